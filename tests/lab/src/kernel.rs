//! Stock Debian kernels for the lab host, fetched as packages and unpacked (never installed) into a cache directory.

use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};
pub use warren_image::debian::Series;
use warren_image::{kernel, modules::Module, modules::Tree};

/// The modules a worker host needs.
const HOST_MODULES: [&str; 2] = ["irqbypass", "kvm-amd"];

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The modules of a worker host, in loading order.
    pub modules: Vec<Module>,
    /// A static busybox.
    pub busybox: PathBuf,
    /// All of its modules.
    pub tree: PathBuf,
}

/// The series with this name.
pub fn series(name: &str) -> Result<Series> {
    Series::from_name(name).with_context(|| format!("no lab kernel `{name}`: choose 6.1 or 6.12"))
}

/// Fetches and unpacks what is not in `cache` yet. Safe to repeat; a broken download leaves no finished mark.
pub fn prepare(series: Series, cache: &Path) -> Result<Kernel> {
    fs::create_dir_all(cache)?;
    let root = cache.join(series.name());
    if !root.join("complete").exists() {
        println!(
            "lab: fetching a {} kernel and busybox-static (Debian packages, unpacked only)",
            series.name()
        );
    }
    let unpacked = kernel::unpack(series, &root, &["busybox-static"])?;
    let modules = load(&unpacked.tree, &HOST_MODULES)?;
    Ok(Kernel { image: unpacked.image, modules, busybox: root.join("bin/busybox"), tree: unpacked.tree })
}

/// These modules and what they need, as far as the kernel has them as modules.
pub(crate) fn load(tree: &Path, names: &[&str]) -> Result<Vec<Module>> {
    let (modules, _builtin_or_absent) = Tree::read(tree)?.closure(names)?;
    Ok(modules)
}
