//! What building, running and testing need on a fresh Debian 12 with rustup and a C tool chain.

use crate::{paths, prepare, shell};
use anyhow::{Result, bail};
use std::{path::Path, process::Command};

/// Options of `setup`.
#[derive(clap::Args, Clone, Default)]
#[command(after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --dry-run")]
pub(crate) struct Options {
    /// Only say what would be installed.
    #[arg(long)]
    pub dry_run: bool,
}

/// A Debian package and how to see that it is not needed.
struct Package {
    name: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

/// The first is what building needs.
const PACKAGES: &[Package] = &[
    Package {
        name: "musl-tools",
        why: "C parts of dependencies for static binaries",
        present: || shell::which("musl-gcc").is_some(),
    },
    Package {
        name: "qemu-system-x86",
        why: "the lab host",
        present: || shell::which("qemu-system-x86_64").is_some(),
    },
    Package {
        name: "python3-venv",
        why: "the gRPC client made by someone else's tool",
        present: || shell::succeeds("python3", &["-c", "import venv, ensurepip"]),
    },
    Package {
        name: "curl",
        why: "a function's runtime in a few lines of shell",
        present: || shell::which("curl").is_some(),
    },
    Package { name: "iproute2", why: "networks of tests", present: || shell::which("ip").is_some() },
    Package { name: "g++", why: "the fuzzer's engine", present: || shell::which("g++").is_some() },
    Package { name: "cpio", why: "the lab host's initramfs", present: || shell::which("cpio").is_some() },
    Package {
        name: "busybox-static",
        why: "the lab host's shell",
        present: || Path::new("/bin/busybox").exists() || Path::new("/usr/bin/busybox").exists(),
    },
    Package {
        name: "xz-utils",
        why: "kernel modules of the lab host",
        present: || shell::which("xz").is_some(),
    },
    Package {
        name: "mmdebstrap",
        why: "root file systems of Linux functions",
        present: || shell::which("mmdebstrap").is_some(),
    },
    Package {
        name: "python3-pip",
        why: "the Python runtime's packages",
        present: || shell::which("pip3").is_some(),
    },
    Package {
        name: "lz4",
        why: "the ELF kernel inside a 6.1 bzImage",
        present: || shell::which("lz4").is_some(),
    },
    Package {
        name: "zstd",
        why: "the ELF kernel inside a 6.12 bzImage",
        present: || shell::which("zstd").is_some(),
    },
    Package {
        name: "e2fsprogs",
        why: "the root file system of the lab's Linux guests",
        present: || shell::which("mke2fs").is_some() || Path::new("/usr/sbin/mke2fs").exists(),
    },
];

/// What building the lab's own emulator needs: long runs in virtual time alone (`warren-lab --emulator mended`).
const EMULATOR: &[Package] = &[
    Package {
        name: "dpkg-dev",
        why: "the sources of QEMU",
        present: || shell::which("dpkg-source").is_some(),
    },
    Package { name: "meson", why: "building QEMU", present: || shell::which("meson").is_some() },
    Package { name: "ninja-build", why: "building QEMU", present: || shell::which("ninja").is_some() },
    Package {
        name: "libglib2.0-dev",
        why: "building QEMU",
        present: || Path::new("/usr/include/glib-2.0/glib.h").exists(),
    },
    Package {
        name: "libpixman-1-dev",
        why: "building QEMU",
        present: || Path::new("/usr/include/pixman-1/pixman.h").exists(),
    },
    Package {
        name: "libfdt-dev",
        why: "building QEMU",
        present: || Path::new("/usr/include/libfdt.h").exists(),
    },
    Package {
        name: "zlib1g-dev",
        why: "building QEMU",
        present: || Path::new("/usr/include/zlib.h").exists(),
    },
];

/// The `setup` task: everything that building and testing need.
pub(crate) fn task(options: &Options) -> Result<()> {
    prepare::require(&run(options)?, prepare::Programs::NotNeeded)
}

/// Installs what is missing and says so; silent about what is there. Gives the packages that only root can install.
pub(crate) fn run(options: &Options) -> Result<Vec<&'static str>> {
    install(options, PACKAGES)
}

fn install(options: &Options, wanted: &'static [Package]) -> Result<Vec<&'static str>> {
    let targets = missing_targets()?;
    let packages: Vec<_> = wanted.iter().filter(|package| !(package.present)()).collect();
    if targets.is_empty() && packages.is_empty() {
        println!("==> setup: everything is here");
        return Ok(Vec::new());
    }
    for target in &targets {
        println!("    rustup target {target}");
    }
    for package in &packages {
        println!("    Debian package {}: {}", package.name, package.why);
    }
    if options.dry_run {
        return Ok(Vec::new());
    }
    if !targets.is_empty() {
        shell::step("rustup targets", Command::new("rustup").args(["target", "add"]).args(&targets))?;
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    if names.is_empty() {
        return Ok(names);
    }
    if shell::which("apt-get").is_none() {
        bail!("this is no Debian: please install {} with your package manager", names.join(", "));
    }
    if !shell::is_root() {
        return Ok(names);
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::step("apt-get update", apt().args(["-qq", "update"]))?;
    shell::step(
        "apt-get install",
        apt().args(["-qq", "-y", "install", "--no-install-recommends"]).args(&names),
    )?;
    Ok(Vec::new())
}

/// What `build` needs, and no more: the lab's packages can wait until somebody tests. Who is not root is told what to
/// run, for the build and everything after it.
pub(crate) fn for_build() -> Result<()> {
    let needed: &'static [Package] = PACKAGES.get(..1).unwrap_or_default();
    if missing_targets()?.is_empty() && needed.iter().all(|package| (package.present)()) {
        return Ok(());
    }
    prepare::require(&install(&Options::default(), needed)?, prepare::Programs::NotBuilt)
}

/// What building the lab's emulator needs besides.
pub(crate) fn for_emulator() -> Result<()> {
    if EMULATOR.iter().all(|package| (package.present)()) {
        return Ok(());
    }
    prepare::require(&install(&Options::default(), EMULATOR)?, prepare::Programs::NotNeeded)
}

fn missing_targets() -> Result<Vec<&'static str>> {
    let wanted = [paths::BARE, paths::MUSL, paths::WASM, paths::WASI];
    if shell::which("rustup").is_none() {
        let list = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let library = Path::new(list.trim()).join("lib/rustlib");
        return Ok(wanted.into_iter().filter(|target| !library.join(target).exists()).collect());
    }
    let list = shell::output(Command::new("rustup").args(["target", "list", "--installed"]))?;
    Ok(wanted.into_iter().filter(|target| !list.lines().any(|line| line.trim() == *target)).collect())
}
