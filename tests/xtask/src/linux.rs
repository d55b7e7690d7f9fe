//! `soak linux`: the full form of everything about Linux guests, as one command.
//!
//! Its parts run two at once ([`lanes`]).

use crate::{
    guests,
    lanes::{self, Part},
    network, paths,
    programs::TestProgram,
    runtimes, setup,
};
use anyhow::{Context as _, Result, bail};
use std::{process::Command, time::Instant};

/// What makes a part's program, or nothing where this machine cannot run it.
pub(crate) type Maker<'a> = &'a dyn Fn() -> Result<Option<Command>>;

/// Every part, or those whose names begin so.
pub(crate) fn soak(programs: &[TestProgram], only: &str) -> Result<()> {
    setup::for_emulator()?;
    let parts = parts(programs, only)?;
    if parts.is_empty() {
        bail!("no part of soak linux begins with {only:?}");
    }
    let (begin, all) = (Instant::now(), parts.len());
    lanes::sum_up("soak linux", all, begin, &lanes::run("soak linux", parts))
}

/// The longest first, so that the lanes end together.
fn parts(programs: &[TestProgram], only: &str) -> Result<Vec<Part>> {
    const FULL: &str = "WARREN_SOAK=1 ";
    let root = paths::root();
    let own = |name: &str, beside: bool, words: &[&str]| -> Result<Option<Command>> {
        let program = programs.iter().find(|program| program.beside == beside && program.name == name);
        let mut command = program.with_context(|| format!("there is no test program {name}"))?.command();
        command.args(words).env("WARREN_SOAK", "1");
        Ok(Some(command))
    };
    let makers: [(&'static str, Maker<'_>); 9] = [
        ("runtimes", &|| runtimes::every(&root, programs, true)),
        ("monitor", &|| guests::monitor(programs, FULL).map(Some)),
        ("supervisor", &|| guests::supervisor(programs, FULL).map(Some)),
        ("network, kernel 6.12", &|| network::lab(&root, "6.12", true)),
        ("hostile guests", &|| guests::hostile(programs, FULL).map(Some)),
        ("lives of functions", &|| runtimes::lives(&root, true)),
        ("templates", &|| runtimes::templates(&root)),
        ("clients", &|| own("clients", true, &[])),
        ("hostile drivers", &|| own("warren_vmm", false, &["hostile"])),
    ];
    let wanted = makers.iter().filter(|(name, _)| name.starts_with(only));
    let mut parts = Vec::new();
    for (name, make) in wanted {
        match make()? {
            Some(command) => {
                parts.push(Part { name: (*name).to_owned(), command, on_installed_emulator: false });
            }
            None => bail!("{name} cannot run here"),
        }
    }
    Ok(parts)
}
