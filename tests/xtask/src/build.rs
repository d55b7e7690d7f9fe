//! `build`: everything a host needs, collected in `target/warren`.

use crate::{paths, setup, shell};
use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Options of `build`.
#[derive(clap::Args, Clone, Default)]
#[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --without-functions")]
pub(crate) struct Options {
    /// Leave out the demo functions.
    #[arg(long)]
    pub without_functions: bool,
}

/// The static programs that ship.
const PROGRAMS: &[&str] = &[
    "warren",
    "warren-control",
    "warren-agent",
    "warren-jailer",
    "warren-vmm",
    "warren-compile",
    "warren-pager",
    // PID 1 of Linux guests; goes into kernels' initrds.
    "warren-init",
];
/// Turns a policy's core module into a component; built with the programs, not shipped.
const POLICY_TOOL: &str = "warren-policy-tool";
/// Component = package of `policies-wasm/builtin`.
const POLICIES: &[(&str, &str)] = &[
    ("packing", "warren-policy-packing"),
    ("placement", "warren-policy-placement"),
    ("routing", "warren-policy-routing"),
];

/// Builds and collects.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::for_build()?;
    let begin = Instant::now();
    let out = paths::collected();
    for part in ["bin", "policies", "functions"] {
        std::fs::create_dir_all(out.join(part)).with_context(|| format!("create {}", out.display()))?;
    }
    programs(&out)?;
    guest(&out)?;
    policies(&out)?;
    if !options.without_functions {
        functions(&out)?;
    }
    println!("==> built into {} in {}", out.display(), shell::short(begin.elapsed()));
    Ok(())
}

/// The whole workspace in one cargo call: features unify once, and the tests find every dependency built.
fn programs(out: &Path) -> Result<()> {
    let mut command = shell::cargo(&paths::root());
    command.args(["build", "--locked", "--workspace", "--exclude", "xtask"]);
    shell::step("programs", &mut command)?;
    PROGRAMS.iter().try_for_each(|name| collect(&paths::built(name), &out.join("bin").join(name)))
}

fn guest(out: &Path) -> Result<()> {
    let directory = paths::root().join("vmm/guest");
    if !directory.join("Cargo.toml").exists() {
        return Ok(());
    }
    shell::step("guest", shell::cargo(&directory).args(["build", "--release"]))?;
    let built = directory.join("target").join(paths::BARE).join("release/warren-guest");
    collect(&built, &out.join("bin/warren-guest"))
}

/// Core modules first, then components of them.
fn policies(out: &Path) -> Result<()> {
    // One `rustc` a package: the packages are libraries for the host, and a module only here.
    for (_, package) in POLICIES {
        let mut command = shell::cargo(&paths::root());
        command.args(["rustc", "--locked", "--release", "--target", paths::WASM, "-p", package]);
        command.args(["--crate-type", "cdylib"]);
        shell::step(package, &mut command)?;
    }
    let built = paths::target().join(paths::WASM).join("release");
    for (name, package) in POLICIES {
        let module = built.join(format!("{}.wasm", package.replace('-', "_")));
        if !module.exists() {
            println!("    {package} makes no module: the native default decides");
            continue;
        }
        let component = module.with_extension("component.wasm");
        shell::output(
            Command::new(paths::built(POLICY_TOOL)).arg("componentize").arg(&module).arg(&component),
        )?;
        collect(&component, &out.join("policies").join(format!("{name}.wasm")))?;
    }
    Ok(())
}

fn functions(out: &Path) -> Result<()> {
    let directory = paths::root().join("tests/functions");
    if !directory.join("Cargo.toml").exists() {
        return Ok(());
    }
    shell::step("functions", shell::cargo(&directory).args(["build", "--release"]))?;
    // The component and the published program, which a plain build does not make (tests/functions/README.md).
    let assemble = ["run", "--release", "--package", "assemble", "--target", "host-tuple"];
    shell::step("functions (component, published)", shell::cargo(&directory).args(assemble))?;
    let mut found = Vec::new();
    for part in [paths::WASI.to_owned() + "/release", "assembled".to_owned()] {
        let built = directory.join("target").join(part);
        let Ok(entries) = built.read_dir() else { continue };
        found.extend(
            entries.flatten().map(|entry| entry.path()).filter(|p| p.extension() == Some(OsStr::new("wasm"))),
        );
    }
    found.sort();
    for file in found {
        let name: PathBuf = file.file_name().map(PathBuf::from).unwrap_or_default();
        collect(&file, &out.join("functions").join(name))?;
    }
    Ok(())
}

/// Copies through a new inode, so that a running program's file is left alone; skips what is the same.
fn collect(from: &Path, to: &Path) -> Result<()> {
    let source = from.metadata().with_context(|| format!("{} was not built", from.display()))?;
    if let Ok(old) = to.metadata() {
        let newer = source.modified()? > old.modified()?;
        if !newer && old.len() == source.len() {
            return Ok(());
        }
    }
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh).with_context(|| format!("copy {} to {}", from.display(), fresh.display()))?;
    std::fs::rename(&fresh, to).with_context(|| format!("put {} in its place", to.display()))
}
