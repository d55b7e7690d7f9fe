//! `soak jail`: the full form of everything about the jail, as one command.
//!
//! ```text
//!  here:     hostile processes ▶ hostile guests ▶ sandboxes come and go ▶ the jailer's own suites
//!  the lab:  hostile guests ▶ hostile processes ▶ the jailer's own suites
//! ```
//! One part after the other on each host, both hosts at once: what counts traces on a host has it for itself.

use crate::{
    guests,
    lanes::{self, Part},
    paths,
    programs::TestProgram,
    setup, shell,
};
use anyhow::{Context as _, Result, bail};
use std::{path::Path, process::Command};

/// A test program: its package's folder and its name.
type Place = (&'static str, &'static str);

const ESCAPE: Place = ("tests/escape", "escape");
const HOSTILE_GUEST: Place = ("tests/hostile-guest", "hostile-guest");
const WORKER: Place = ("host-agent/agent", "worker");
/// The jailer's own. `network` makes what it needs of the host; in the lab `linux-network` has a real one.
const JAILER: [&str; 4] = ["jail", "hostile", "life", "network"];
/// Tables of a suite, one after the other, also when all was well.
const TABLES: [&str; 2] = ["--test-threads=1", "--nocapture"];
const FULL: (&str, &str) = ("WARREN_SOAK", "1");

/// Every part, or those whose names begin so.
pub(crate) fn soak(programs: &[TestProgram], only: &str) -> Result<()> {
    if !shell::is_root() {
        bail!("soak jail makes jails of its own: run it as root");
    }
    setup::for_emulator()?;
    let wanted = |parts: Vec<Part>| parts.into_iter().filter(|part| part.name.starts_with(only)).collect();
    let hosts: [Vec<Part>; 2] = [wanted(here(programs)?), wanted(lab(programs)?)];
    if hosts.iter().all(Vec::is_empty) {
        bail!("no part of soak jail begins with {only:?}");
    }
    lanes::all_of("soak jail", hosts.into())
}

fn here(programs: &[TestProgram]) -> Result<Vec<Part>> {
    let one = |name: &str, place: Place, words: &[&str]| -> Result<Part> {
        let mut command = find(programs, place)?.command();
        command.args(words).env(FULL.0, FULL.1);
        Ok(part(name, command))
    };
    let mut parts = vec![
        one("hostile processes, here", ESCAPE, &TABLES)?,
        one("hostile guests, here", HOSTILE_GUEST, &TABLES)?,
        one("come and go, here", WORKER, &["churn::", TABLES[0], TABLES[1]])?,
    ];
    for name in JAILER {
        parts.push(one(&format!("jailer's {name}, here"), ("jailer/jailer", name), &[])?);
    }
    Ok(parts)
}

fn lab(programs: &[TestProgram]) -> Result<Vec<Part>> {
    let form = format!("{}={} ", FULL.0, FULL.1);
    let mut parts = vec![part("hostile guests, lab", guests::hostile(programs, &form)?)];
    let tables = TABLES.join(" ");
    let escape = part("hostile processes, lab", in_lab(programs, ESCAPE, &form, &tables)?);
    // Its neighbour is a VM: the host's first and last make its kernel patch itself.
    parts.push(Part { on_installed_emulator: true, ..escape });
    for name in JAILER.into_iter().filter(|name| *name != "network") {
        let command = in_lab(programs, ("jailer/jailer", name), &form, "")?;
        parts.push(part(&format!("jailer's {name}, lab"), command));
    }
    Ok(parts)
}

/// A suite on the lab host, with what its jails start beside it.
fn in_lab(programs: &[TestProgram], place: Place, environment: &str, words: &str) -> Result<Command> {
    let program = find(programs, place)?;
    let mut command = Command::new(paths::built("warren-lab"));
    command.args(["--limit", if environment.is_empty() { "900" } else { "1800" }]);
    let mut carry = |from: &Path, to: &str| {
        command.arg("--carry").arg(format!("{}=/opt/tests/{to}", from.display()));
    };
    for started in ["warren-jailer", "warren-vmm", "jail-probe", "warren-escape"] {
        carry(&paths::built(started), started);
    }
    carry(&program.file, place.1);
    let name = place.1;
    command
        .arg("--")
        .arg(format!("cd /opt/tests && WARREN_VMM=/opt/tests/warren-vmm {environment}./{name} {words}"));
    Ok(command)
}

fn find(programs: &[TestProgram], (place, name): Place) -> Result<&TestProgram> {
    let is = |p: &&TestProgram| p.beside && p.place() == Path::new(place) && p.name == name;
    programs.iter().find(is).with_context(|| format!("there is no test program {place}::{name}"))
}

fn part(name: &str, command: Command) -> Part {
    Part { name: name.to_owned(), command, on_installed_emulator: false }
}
