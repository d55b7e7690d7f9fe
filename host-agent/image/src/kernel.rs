//! A guest's kernel: Debian's stock image, the ELF kernel inside it, and an initrd of init and modules.

use crate::{
    BuildError, KernelManifest, Shelf, config,
    debian::{self, Series},
    digest, initrd,
    manifest::{self},
    modules::{GUEST, OPTIONAL, Tree},
    tool,
};
use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Compressed kernels by the first bytes of their payload, and what unpacks them.
const FORMATS: [(&[u8], &str); 2] = [(&[0x02, 0x21, 0x4C, 0x18], "lz4"), (&[0x28, 0xB5, 0x2F, 0xFD], "zstd")];

/// A kernel package, unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The package's name.
    pub package: String,
    /// The bzImage.
    pub image: PathBuf,
    /// All of its modules.
    pub tree: PathBuf,
}

/// Fetches and unpacks what is not in `root` yet, other packages along with it.
pub fn unpack(series: Series, root: &Path, others: &[&str]) -> Result<Unpacked, BuildError> {
    if !root.join("complete").exists() {
        let package = series.newest_package()?;
        let packages: Vec<_> = std::iter::once(package.as_str()).chain(others.iter().copied()).collect();
        debian::unpack(root, &packages)?;
    }
    let images = debian::files_ending(&root.join("boot"), "")?;
    let is_image = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("vmlinuz"))
    };
    let image = images.into_iter().find(is_image);
    let image = image.ok_or_else(|| BuildError::malformed(root, "the package has no boot/vmlinuz"))?;
    let release = image.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let package = release.replacen("vmlinuz", "linux-image", 1);
    Ok(Unpacked { package, image, tree: root.join("lib/modules") })
}

/// Makes a kernel of a series, under the series' name unless another is given, with this init.
pub fn build(
    series: Series,
    name: &str,
    init: &Path,
    shelf: &Shelf,
    progress: &dyn Fn(&str),
) -> Result<KernelManifest, BuildError> {
    tool::require(&["apt-cache", "apt-get", "dpkg-deb", "lz4", "xz", "zstd"])?;
    progress("fetching the kernel's package");
    let unpacked = unpack(series, &shelf.packages().join(series.name()), &[])?;
    check(&unpacked)?;
    progress("choosing modules");
    let tree = Tree::read(&unpacked.tree)?;
    let (modules, lacking) = tree.closure(&GUEST)?;
    // Some kernels have parts of the list neither way; what every guest needs must be there.
    if let Some(module) = lacking.into_iter().find(|name| !OPTIONAL.contains(&name.as_str())) {
        return Err(BuildError::NoModule { kernel: unpacked.package, module });
    }
    let stage = shelf.stage(&format!("kernel-{name}"))?;
    let failed = || BuildError::io(format!("make kernel {name}"));
    let init = fs::read(init).map_err(BuildError::io(format!("read {}", init.display())))?;
    let archive = initrd::build(&init, &modules)?;
    fs::write(stage.path().join("initrd"), archive).map_err(failed())?;
    fs::copy(&unpacked.image, stage.path().join("vmlinuz")).map_err(failed())?;
    progress("unpacking the kernel inside the image");
    let elf = stage.path().join("vmlinux");
    extract_elf(&unpacked.image, &elf)?;
    let manifest = KernelManifest {
        name: name.to_owned(),
        package: unpacked.package,
        image: "vmlinux".to_owned(),
        image_digest: digest::of_file(&elf)?,
        initrd_digest: digest::of_file(&stage.path().join("initrd"))?,
        modules: modules.into_iter().map(|module| module.name).collect(),
        builtin: GUEST
            .iter()
            .chain(&["ext4"])
            .filter(|name| tree.is_builtin(name))
            .map(ToString::to_string)
            .collect(),
    };
    manifest::write(stage.path(), &manifest)?;
    shelf.put_kernel(&stage, &manifest)?;
    Ok(manifest)
}

/// The package says how its kernel was built.
fn check(unpacked: &Unpacked) -> Result<(), BuildError> {
    let name = unpacked.image.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let config = unpacked.image.with_file_name(name.replacen("vmlinuz", "config", 1));
    let text = fs::read_to_string(&config).map_err(BuildError::io(format!("read {}", config.display())))?;
    match config::lacking(&text) {
        None => Ok(()),
        Some(what) => Err(BuildError::Config { kernel: unpacked.package.clone(), what }),
    }
}

/// Unpacks the ELF kernel that a bzImage unpacks into memory (boot protocol, `payload_offset`, `payload_length`).
pub fn extract_elf(image: &Path, elf: &Path) -> Result<(), BuildError> {
    let bytes = fs::read(image).map_err(BuildError::io(format!("read {}", image.display())))?;
    let payload = payload(&bytes).ok_or_else(|| BuildError::malformed(image, "no boot protocol header"))?;
    let Some((_, tool)) = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic)) else {
        return Err(BuildError::malformed(image, "a compression that is not known here"));
    };
    tool::require(&[tool])?;
    let failed = || BuildError::io(format!("unpack {}", image.display()));
    let fresh = elf.with_extension("new");
    let mut command = tool::command(tool);
    command.arg("-dc").stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.stdout(fs::File::create(&fresh).map_err(failed())?).spawn().map_err(failed())?;
    // It may stop reading before the end: what follows the stream is no part of it.
    let _ = child.stdin.take().map(|mut pipe| pipe.write_all(payload));
    let status = child.wait().map_err(failed())?;
    // A warning about what follows the stream is no failure; an ELF header is the proof.
    let made = fs::read(&fresh).map_err(failed())?;
    if !made.starts_with(b"\x7FELF") {
        let _ = fs::remove_file(&fresh);
        return Err(BuildError::malformed(
            image,
            format!("{tool} ended with {status} and gave no ELF kernel"),
        ));
    }
    fs::rename(fresh, elf).map_err(failed())
}

/// The compressed kernel; its last four bytes, which are left out, are the unpacked length.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let field = bytes.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()
    };
    let code = (usize::from(*bytes.get(0x1F1)?) + 1) * 512;
    let start = code.checked_add(word(0x248)?)?;
    bytes.get(start..start.checked_add(word(0x24C)?.checked_sub(4)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_outside_the_file_is_none() {
        let mut image = vec![0; 0x1000];
        image[0x1F1] = 1;
        image[0x248..0x24C].copy_from_slice(&0x20_u32.to_le_bytes());
        image[0x24C..0x250].copy_from_slice(&0x104_u32.to_le_bytes());
        assert_eq!(payload(&image).map(<[u8]>::len), Some(0x100));
        for wrong in [0_u32, 3, 0x2000, u32::MAX] {
            image[0x24C..0x250].copy_from_slice(&wrong.to_le_bytes());
            assert_eq!(payload(&image), None, "{wrong}");
        }
        assert_eq!(payload(&[]), None);
    }
}
