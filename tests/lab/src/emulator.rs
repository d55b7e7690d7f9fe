//! The emulator: the installed QEMU, or the same sources without one defect.
//!
//! QEMU 7.2's software SVM notes the vector of an interrupt that a host injects as a pending exception, and does not forget it
//! once it is delivered (`helper_vmrun`; the sources of later versions read the same). If QEMU leaves its loop before the
//! guest's next exit, because a timer of the *host* expires, it delivers the interrupt once more, into its own handler: a guest
//! that holds a lock there waits for itself for ever. In virtual time that happens to most long runs; nothing outside QEMU can
//! close the window. So those runs have a QEMU built here, once, from the source package of the installed one and one
//! line more. Figures are taken with the installed one, as its peers' were.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use warren_image::{alone, tool};

/// The program's name.
const QEMU: &str = "qemu-system-x86_64";
/// Where the delivery is, and what follows it.
const PLACE: &str = "target/i386/tcg/sysemu/svm_helper.c";
const DELIVERY: &str = "do_interrupt_x86_hardirq(env, vector, 1);\n";
const FORGET: &str = "            cs->exception_index = -1;\n";
/// Where the packages of QEMU and its firmware keep what is loaded from files.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];
/// Most of QEMU is not for this machine.
const FEATURES: [&str; 7] = [
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-tcg",
    "--enable-system",
    "--enable-fdt=system",
    "--disable-kvm",
    "--disable-docs",
];

/// Which QEMU emulates the lab host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Emulator {
    /// The installed one.
    Installed,
    /// Built from the installed one's sources, so that an injected interrupt is delivered once.
    Mended,
}

impl Emulator {
    /// Its command, built first if need be: minutes, once a version and cache.
    pub fn command(self, cache: &Path) -> Result<Command> {
        match self {
            Self::Installed => {
                tool::require(&[QEMU]).context("Debian package qemu-system-x86")?;
                Ok(ends_with_us(Path::new(QEMU)))
            }
            Self::Mended => {
                let mut command = ends_with_us(&mended(&cache.join("emulator"))?);
                command.args(FIRMWARE.iter().flat_map(|folder| ["-L", folder]));
                Ok(command)
            }
        }
    }
}

/// A program that the kernel ends with whoever runs the machine, however that ends.
fn ends_with_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// The built program. Whoever comes while another builds it waits for that.
fn mended(folder: &Path) -> Result<PathBuf> {
    let query = ["-W", "-f", "${source:Package} ${source:Version}", "qemu-system-x86"];
    let said = tool::run(tool::command("dpkg-query").args(query)).context("which QEMU is installed")?;
    let said = String::from_utf8(said)?;
    let (package, version) = said.trim().split_once(' ').context("dpkg-query names no version")?;
    let _alone = alone::at(folder)?;
    fs::create_dir_all(folder)?;
    let built = folder.join(format!("{QEMU}-{}", version.replace([':', '/'], "-")));
    if !built.exists() {
        let begin = Instant::now();
        println!(
            "lab: building {package} {version} that delivers an injected interrupt once (minutes, once)"
        );
        let work = folder.join("work");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let program = build(&fs::canonicalize(&work)?, package, version)?;
        let fresh = folder.join("new");
        fs::copy(program, &fresh)?;
        fs::rename(fresh, &built)?;
        fs::remove_dir_all(&work)?;
        println!("lab: built in {:.0} s", begin.elapsed().as_secs_f32());
    }
    Ok(built)
}

fn build(work: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let source = fetch(work, package, version)?;
    let place = source.join(PLACE);
    let text = fs::read_to_string(&place).with_context(|| place.display().to_string())?;
    ensure!(
        text.matches(DELIVERY).count() == 1 && !text.contains(FORGET),
        "{package} {version} is another at {PLACE}: look there whether it still needs this, and use it as installed if not"
    );
    fs::write(&place, text.replace(DELIVERY, &format!("{DELIVERY}{FORGET}")))?;
    let out = source.join("out");
    fs::create_dir(&out)?;
    let configure = source.join("configure").display().to_string();
    tool::run(tool::command(&configure).args(FEATURES).current_dir(&out))?;
    tool::run(tool::command("ninja").arg(QEMU).current_dir(&out))?;
    Ok(out.join(QEMU))
}

/// The sources with Debian's changes, from where this machine has its packages.
fn fetch(work: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let format =
        ["indextargets", "--format", "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
    let known = String::from_utf8(tool::run(tool::command("apt-get").args(format))?)?;
    let mut lines: Vec<_> = known.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    fs::write(work.join("sources.list"), lines.join("\n") + "\n")?;
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let apt = || {
        let mut command = tool::command("apt-get");
        command.current_dir(work).args(["-qq", "-o", "Dir::Etc::sourceparts=-"]);
        for (name, place) in
            [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")]
        {
            command.arg("-o").arg(format!("Dir::{name}={}", work.join(place).display()));
        }
        command
    };
    tool::run(apt().arg("update"))?;
    tool::run(apt().args(["source", "--download-only"]).arg(format!("{package}={version}")))?;
    let mut found = fs::read_dir(work)?.filter_map(|entry| Some(entry.ok()?.path()));
    let description = found.find(|path| path.extension().is_some_and(|it| it == "dsc"));
    let description = description.with_context(|| format!("no sources of {package} {version} came"))?;
    let source = work.join("source");
    tool::run(tool::command("dpkg-source").args(["--no-check", "-x"]).arg(description).arg(&source))?;
    Ok(source)
}
