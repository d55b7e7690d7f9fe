//! The supervisor as the first process of a stock guest, on the lab host: over vsock, with its disks, as the agent has it.
//!
//! The lab carries what `cargo xtask` made: kernels and modules (`WARREN_GUESTS`), the VMM, the programs of
//! `tests/functions`, a root file system with an extension, an empty scratch disk (`WARREN_FIXTURES`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[path = "guest/copies.rs"]
mod copies;
mod support;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use support::machine::{Machine, Written, archive};
use support::{Running, Sandbox};
use warren_vmm_protocol::guest::{GuestReply, InitFailure};

/// The folders of guests and fixtures; without them nothing is tested, and that is said.
fn places() -> Option<(PathBuf, PathBuf)> {
    let place = |name| std::env::var_os(name).map(PathBuf::from);
    let found = place("WARREN_GUESTS").zip(place("WARREN_FIXTURES"));
    if found.is_none() {
        skipped("no guests here, they run on the lab host");
    }
    found
}

/// Says that a case did nothing, and why, past libtest's capturing.
fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("warren-skipped: init::guest::{}: {why}\n", thread.name().unwrap_or("?"));
    rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
}

/// Whether the full form was asked for.
fn full() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// The same for a case of that alone, which says so where it was not.
fn full_form() -> bool {
    let full = full();
    if !full && places().is_some() {
        skipped("in the full form, `cargo xtask soak linux supervisor`");
    }
    full
}

/// Whether time is the guest's work alone.
fn virtual_time() -> bool {
    std::env::var_os("WARREN_VIRTUAL_TIME").is_some()
}

/// The Rust function in a guest with `kernel`, configured further by `change`. One with 6.1 begins with what was written down of one
/// such guest before a function was in it.
fn guest(
    kernel: &str,
    files: &[(&str, &str)],
    change: impl FnOnce(Sandbox) -> Sandbox,
) -> Option<(Machine, Running)> {
    static NOBODYS: LazyLock<Option<Written>> = LazyLock::new(|| nobodys("6.1"));
    static COUNT: AtomicU32 = AtomicU32::new(1);
    if kernel != "6.1" {
        return guest_with("", kernel, files, change);
    }
    let written = NOBODYS.as_ref()?;
    function(files, change, |task| {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let machine = written.begin(1000 + number, task);
        let told = support::restored(u128::from(number) << 32);
        assert_eq!(Running::copy(machine.stream()).restore_again(&told), Some(GuestReply::Acknowledged));
        machine
    })
}

/// A guest that no function is in, written down.
fn nobodys(kernel: &str) -> Option<Written> {
    let (guests, fixtures) = places()?;
    let machine = Machine::start(&guests.join(kernel), &fixtures, &[], "");
    let mut running = Running::copy(machine.stream());
    assert_eq!(running.hold_still(), Some(true));
    Some(machine.write_down())
}

/// The same in a guest that boots for it, with these words more for init.
fn guest_with(
    words: &str,
    kernel: &str,
    files: &[(&str, &str)],
    change: impl FnOnce(Sandbox) -> Sandbox,
) -> Option<(Machine, Running)> {
    let (guests, fixtures) = places()?;
    function(files, change, |task| Machine::start(&guests.join(kernel), &fixtures, task, words))
}

/// In a machine with its files.
fn function(
    files: &[(&str, &str)],
    change: impl FnOnce(Sandbox) -> Sandbox,
    start: impl FnOnce(&[u8]) -> Machine,
) -> Option<(Machine, Running)> {
    let (_, fixtures) = places()?;
    let program = std::fs::read(fixtures.join("bootstrap")).unwrap();
    let mut members = vec![("bootstrap", program.as_slice())];
    members.extend(files.iter().map(|(name, text)| (*name, text.as_bytes())));
    let task = archive(&members);
    let mut sandbox = Sandbox::new();
    sandbox.config.init_timeout = 60_000.try_into().unwrap();
    let mut sandbox = change(sandbox);
    sandbox.config.task_len = task.len() as u64;
    sandbox.config.tmp = 16.try_into().unwrap();
    sandbox.config.wall_unix_ns = 1_900_000_000_000_000_000;
    let machine = start(&task);
    let running = sandbox.over(machine.stream());
    Some((machine, running))
}

fn ends(machine: Machine, running: Running) {
    let log = running.shutdown_over();
    assert!(log.contains("extension: shutdown spindown"), "{log}");
    machine.powered_off();
}

fn everything(kernel: &str) {
    let guest = guest_with("", kernel, &[("data/x", "hello")], |sandbox| sandbox);
    let Some((machine, mut running)) = guest else { return };
    assert_eq!(running.init, Ok(()), "{}", running.log);
    assert!(running.log.contains("rust: cold"), "{}", running.log);
    let look: serde_json::Value =
        serde_json::from_slice(&running.invoke(r#"{"do":"look"}"#).payload).unwrap();
    for (name, expect) in [
        ("uid", "993\t993\t993\t993"),
        ("groups", ""),
        ("privileges", "1"),
        ("capabilities", "0000000000000000"),
        ("host", "sandbox"),
        ("task", "read-only filesystem or storage medium"),
        ("root", "permission denied"),
        ("etc", "permission denied"),
        ("disk", "permission denied"),
        ("folder", "/var/task"),
    ] {
        assert_eq!(look[name], expect, "{look}");
    }
    let late = look["unix_s"].as_u64().unwrap() - 1_900_000_000;
    assert!(late < 600, "{look}");
    for number in 1..=100 {
        let answer = running.invoke(&format!(r#"{{"value":{number}}}"#));
        let said: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!((&said["echo"], &said["count"]), (&number.into(), &(number + 1).into()), "{answer:?}");
        assert!(answer.log.contains("extension: invoke request-"), "{answer:?}");
    }
    // What is left in /tmp is there for the next event; the quota holds, and what is removed can be written again.
    assert_eq!(running.invoke(r#"{"do":"keep","value":7}"#).text(), r#""""#);
    assert_eq!(running.invoke(r#"{"do":"keep","value":8}"#).text(), r#""7""#);
    for _ in 0..2 {
        let fill: serde_json::Value =
            serde_json::from_slice(&running.invoke(r#"{"do":"fill"}"#).payload).unwrap();
        assert_eq!(fill["why"], "No space left on device", "{fill}");
        let bytes = fill["bytes"].as_u64().unwrap();
        assert!((15 << 20..=16 << 20).contains(&bytes), "{fill}");
    }
    let large = running.invoke(&format!(r#"{{"do":"large","bytes":{}}}"#, 6 << 20));
    assert!(large.error().starts_with("response-too-large"), "{}", large.error());
    let exited = running.invoke(r#"{"do":"exit"}"#);
    assert!(exited.error().starts_with("exit 3: Runtime.ExitError"), "{}", exited.error());
    let again = running.invoke(r#"{"value":1}"#);
    assert!(again.text().contains(r#""count":1"#), "{again:?}");
    ends(machine, running);
}

#[test]
fn everything_with_6_1() {
    everything("6.1");
}

/// Two that begin with what was written down before a function was in it: each has its own files, randomness and time.
#[test]
fn functions_begin_with_one_guest() {
    let mut all = std::collections::BTreeSet::new();
    for files in [&[("data/x", "hello")][..], &[]] {
        let Some((machine, mut running)) = guest("6.1", files, |sandbox| sandbox) else { return };
        assert_eq!(running.init, Ok(()), "{}", running.log);
        let mut said = |event: &str| -> serde_json::Value {
            serde_json::from_slice(&running.invoke(event).payload).unwrap()
        };
        let drawn = said(r#"{"do":"draw"}"#);
        for name in ["random", "uuid", "given"] {
            assert!(all.insert(format!("{name} {}", drawn[name])), "drawn twice: {drawn}");
        }
        let look = said(r#"{"do":"look"}"#);
        assert_eq!((&look["host"], &look["folder"]), (&"sandbox".into(), &"/var/task".into()), "{look}");
        let late = look["unix_s"].as_u64().unwrap() - 1_900_000_000;
        assert!(late < 600, "{look}");
        ends(machine, running);
    }
}

/// In the full form; `WARREN_SOAK=1`.
#[test]
fn everything_with_6_12() {
    if full_form() {
        everything("6.12");
    }
}

/// A thread in the background counts a hundred times a second while an event runs, and not while none does. On a machine as
/// slow as can be it counts less; more it cannot.
#[test]
fn nothing_runs_between_events() {
    let Some((machine, mut running)) = guest("6.1", &[], |sandbox| sandbox) else { return };
    let ticks = |answer: &support::Answer| answer.text().parse::<u64>().unwrap();
    let before = ticks(&running.invoke(r#"{"do":"ticks"}"#));
    let during = ticks(&running.invoke(r#"{"do":"rest"}"#));
    assert!(during > before + 20, "{before} to {during}: nothing is counted during an event");
    // Not a wait for something: what is looked for is that nothing happens.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let after = ticks(&running.invoke(r#"{"do":"ticks"}"#));
    assert!(after < during + 100, "{during} to {after}: the function ran between two events");
    // It is whole, extension and all: held and let go a hundred times more.
    for number in 1..=100 {
        assert!(running.invoke(&format!(r#"{{"value":{number}}}"#)).text().contains("echo"));
    }
    ends(machine, running);
}

/// What it costs a warm event that nothing runs between two: the same hundred events without, in virtual time, where a figure is
/// the instructions that were run. Most of it is letting a group go, which every thread of it has to hear.
#[test]
fn holding_programs_costs_little() {
    const EVENTS: u32 = 100;
    if !virtual_time() {
        if places().is_some() {
            skipped("in virtual time alone, so in the full form, `cargo xtask soak linux supervisor`");
        }
        return;
    }
    let us = |words: &str| {
        let (machine, mut running) = guest_with(words, "6.1", &[], |sandbox| sandbox)?;
        running.invoke(r#"{"value":0}"#);
        let mut all = std::time::Duration::ZERO;
        for number in 1..=EVENTS {
            let began = std::time::Instant::now();
            running.invoke(&format!(r#"{{"value":{number}}}"#));
            all += began.elapsed();
            // The next event finds them held, as one that comes a while later does.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        ends(machine, running);
        Some(all / EVENTS)
    };
    let Some((without, with)) = us("warren.hold=no").zip(us("")) else { return };
    println!("a warm event: {with:?}; without holding programs: {without:?}");
    assert!(with < without + without / 10, "{with:?} is more than a tenth over {without:?}");
}

/// A time, and what it has to be: no less, and in virtual time, where it is exact, hardly more.
#[track_caller]
fn lasted(what: &str, us: u64, ms: u64) {
    let exact = virtual_time();
    let most = if exact { ms + 250 } else { u64::MAX };
    assert!((ms..=most).contains(&(us / 1000)), "{what} lasted {us} us, not {ms} ms");
    println!("{what}: {us} us of {ms} ms{}", if exact { ", virtual" } else { "" });
}

/// Init has ten seconds; then it is tried again inside the event, which has its own time and not init's.
#[test]
fn init_has_ten_seconds_and_the_event_its_own() {
    let change = |mut sandbox: Sandbox| {
        sandbox.config.init_timeout = Sandbox::new().config.init_timeout;
        sandbox.variable("INIT", "sleep")
    };
    let Some((machine, mut running)) = guest("6.1", &[], change) else { return };
    let error = running.init.clone().unwrap_err();
    assert_eq!((error.failure, error.error_type.as_str()), (InitFailure::TimedOut, "Sandbox.Timedout"));
    lasted("init", running.init_us, 10_000);
    let answer = running.invoke_within("{}", 12_000);
    assert_eq!(answer.error(), "TimedOut");
    lasted("the event", answer.done.handler_us, 12_000);
    running.rest();
    machine.powered_off();
}

/// An extension that does not end has two seconds after SHUTDOWN began.
#[test]
fn a_shutdown_has_two_seconds() {
    let change = |sandbox: Sandbox| sandbox.variable("EXTENSION", "deaf");
    let Some((machine, running)) = guest("6.1", &[], change) else { return };
    assert_eq!(running.init, Ok(()), "{}", running.log);
    let began = std::time::Instant::now();
    let log = running.shutdown_over();
    lasted("the shutdown", u64::try_from(began.elapsed().as_micros()).unwrap(), 2000);
    assert!(log.contains("extension: shutdown spindown"), "{log}");
    machine.powered_off();
}

#[test]
fn an_event_past_its_time_powers_the_guest_off() {
    let Some((machine, mut running)) = guest("6.1", &[], |sandbox| sandbox) else { return };
    let answer = running.invoke_within(r#"{"do":"sleep"}"#, 2000);
    assert_eq!(answer.error(), "TimedOut");
    lasted("the event", answer.done.handler_us, 2000);
    let log = running.rest();
    assert!(log.contains("extension: shutdown timeout"), "{log}");
    machine.powered_off();
}

#[test]
fn an_archive_that_leads_out_is_refused() {
    let Some((machine, running)) = guest("6.1", &[("../out", "x")], |sandbox| sandbox) else { return };
    let error = running.init.clone().unwrap_err();
    assert_eq!((error.failure, error.error_type.as_str()), (InitFailure::Task, "Sandbox.InvalidTask"));
    machine.powered_off();
}

#[test]
fn a_runtime_that_ends_in_init_can_be_tried_again() {
    let change = |sandbox: Sandbox| sandbox.variable("INIT", "exit");
    let Some((machine, mut running)) = guest("6.1", &[], change) else { return };
    assert_eq!(running.init.clone().unwrap_err().error_type.as_str(), "Runtime.ExitError");
    let answer = running.invoke("{}");
    assert!(answer.error().starts_with("exit 7: Runtime.ExitError"), "{}", answer.error());
    running.shutdown_over();
    machine.powered_off();
}
