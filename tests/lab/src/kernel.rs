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

/// What a host's kernel needs for its sandboxes' network, where it has it as modules: taps, pairs of links, nftables with
/// what translates addresses, and links that are slow on purpose. (An installed system loads them by itself.)
const NETWORK_MODULES: [&str; 11] = [
    "tun",
    "veth",
    "sch_netem",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_fib_ipv4",
    "nft_reject_ipv4",
    "nf_conntrack_netlink",
];

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

impl Kernel {
    /// The same, with what sandboxes' network needs.
    pub fn with_network(mut self) -> Result<Self> {
        let known = |modules: &[Module], name: &str| modules.iter().any(|module| module.name == name);
        for module in load(&self.tree, &NETWORK_MODULES)? {
            if !known(&self.modules, &module.name) {
                self.modules.push(module);
            }
        }
        Ok(self)
    }
}

/// These modules and what they need, as far as the kernel has them as modules.
pub(crate) fn load(tree: &Path, names: &[&str]) -> Result<Vec<Module>> {
    let (modules, _builtin_or_absent) = Tree::read(tree)?.closure(names)?;
    Ok(modules)
}
