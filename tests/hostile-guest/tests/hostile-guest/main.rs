//! Every case in a microVM of its own, beside a neighbour that must go on answering: none wedges it, none reaches the host.
//!
//! Machines are jailed for real (`warren-jailer serve`), but for those with devices that no jailed machine has (card, balloon, plugged
//! memory): these VMMs are sealed by themselves alone. `WARREN_SOAK=1` runs every case, the quick form a share
//! of them (`WARREN_SHARE`), `WARREN_ONLY` those with this in their names.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

#[path = "../../../../jailer/jailer/tests/common/client.rs"]
#[allow(dead_code, reason = "shared with the jailer's own tests, which use all of it")]
mod client;
mod host;
#[macro_use]
#[path = "../../../../vmm/monitor/tests/support/mod.rs"]
mod support;
mod table;
mod wasm;

use host::{Given, Host};
use table::Table;
use warren_hostile_guest::cases::{self, Case, Does, Ends};
use warren_hostile_guest::driver::Machine;
use warren_hostile_guest::verdict::{Seen, Verdict, judge};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{ExitStatus, Limits},
};

/// A machine's memory and what its VMM needs beside it.
const LIMITS: Limits =
    Limits { memory_bytes: 112 << 20, cpu_millis: 1000, cpu_hard: false, pids: 24, cpu_seconds: 0 };

fn named(name: &str) -> SandboxName {
    SandboxName::new(name).unwrap()
}

fn soak() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// Of every so many cases the quick form takes one. Those that every device is tried with lie together,
/// row by row, so that at four each such row is tried with one device at least.
fn share() -> usize {
    std::env::var("WARREN_SHARE").ok().and_then(|share| share.parse().ok()).unwrap_or(4)
}

/// What of a case is not as its row says.
fn differs(case: &Case, seen: &Seen, verdict: &Verdict) -> Option<String> {
    let said: Vec<_> = seen
        .log
        .lines()
        .filter_map(|line| line.split_once("console: ").map(|(_, said)| said))
        .filter(|said| ["used", "needs-reset"].contains(said))
        .collect();
    let ends = match case.ends {
        Ends::GoesOn => seen.exit == Some(ExitStatus::Code(10)),
        Ends::Told => seen.exit == Some(ExitStatus::Code(0)),
        Ends::Named => !verdict.is_defect(),
        Ends::By(code, words) => {
            seen.exit == Some(ExitStatus::Code(code))
                && matches!(verdict, Verdict::Killed(why) if why.contains(words))
        }
    };
    if !ends {
        return Some(format!("{:?} was expected, it is {verdict}", case.ends));
    }
    (said != case.said).then(|| format!("{:?} was expected, it said {said:?}", case.said))
}

#[test]
fn no_linux_guest_wedges_or_breaks_anything() {
    needs_kvm!();
    let mut host = Host::start();
    let mut table = Table::default();
    let (share, only) = (share(), std::env::var("WARREN_ONLY").unwrap_or_default());
    for (at, case) in cases::every().iter().enumerate() {
        if (!soak() && only.is_empty() && at % share != 0)
            || !format!("{}: {}", case.on(), case.name).contains(&only)
        {
            continue;
        }
        let seen = match case.machine() {
            Machine::Jailed => host.jailed(case, &Given::default()),
            Machine::Sealed => host.sealed(case),
        };
        let verdict = judge(&seen);
        table.add(&case.on(), case.name, &seen, &verdict, differs(case, &seen, &verdict));
    }
    table.end();
}

#[test]
fn no_wasm_guest_wedges_or_breaks_anything() {
    needs_kvm!();
    let mut host = Host::start();
    let mut table = Table::default();
    for case in wasm::every() {
        let (seen, differs) = wasm::run(&mut host, &case);
        table.add("wasm", &case.name, &seen, &judge(&seen), differs);
    }
    table.end();
}

/// The test of the test: with one protection taken away, or a VMM that is made to stop, to die or to starve, each time the verdict
/// is a defect of the right name.
#[test]
fn what_breaks_is_told() {
    needs_kvm!();
    let mut host = Host::start();
    let find = |name: &str| {
        *cases::every().iter().find(|case| case.name == name && matches!(case.does, Does::All(_))).unwrap()
    };
    let write =
        *cases::every().iter().find(|case| case.name == "a write to what may not be written").unwrap();
    let told = |seen: &Seen| judge(seen);
    let held = told(&host.jailed(&write, &Given::default()));
    assert_eq!(held, Verdict::Pass);
    let open = told(&host.jailed(&write, &Given { writable: true, ..Given::default() }));
    assert!(matches!(&open, Verdict::Broke(why) if why.contains("read-only disk")), "{open}");
    let memory = find("all of memory");
    assert_eq!(told(&host.jailed(&memory, &Given::default())), Verdict::Pass);
    let starved = told(&host.jailed(&memory, &Given { memory_mib: 32, ..Given::default() }));
    assert!(matches!(&starved, Verdict::Broke(why) if why.contains("memory")), "{starved}");
    let spins = find("spinning with interrupts off");
    assert_eq!(told(&host.jailed(&spins, &Given::default())), Verdict::Pass);
    for (signal, defect) in [(libc::SIGSTOP, "WEDGED"), (libc::SIGKILL, "BROKE")] {
        let seen = host.jailed(&spins, &Given { signal: Some(signal), patience_s: 2, ..Given::default() });
        assert_eq!(told(&seen).name(), defect, "signal {signal}: {seen:?}");
    }
}
