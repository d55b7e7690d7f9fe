//! Functions that are ready are written down with their guest, and copies of them brought back: each is one of its own before
//! anything of it runs.

use super::guest;
use super::support::{Running, machine::Written, restored};
use serde_json::Value;
use std::collections::BTreeSet;

/// The clock that every copy is told; the first life's is 50 million seconds behind.
const UNIX_S: u64 = 1_950_000_000;

fn document(running: &mut Running, event: &str) -> Value {
    serde_json::from_slice(&running.invoke(event).payload).unwrap()
}

/// What copies drew is of no two of them alike.
#[derive(Default)]
struct Drawn {
    values: BTreeSet<String>,
    ports: Vec<u64>,
}

impl Drawn {
    fn take(&mut self, drawn: &Value, generation: u128) {
        for name in ["random", "uuid", "given"] {
            assert!(self.values.insert(format!("{name} {}", drawn[name])), "drawn twice: {drawn}");
        }
        let asked: Vec<_> =
            drawn["asked"].as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
        assert!(asked.iter().all(|port| (16_384..=65_535).contains(port)), "{drawn}");
        // The first is the secret's alone; those after it begin where it stood, a few at random further.
        self.ports.extend(asked.first());
        assert_eq!(drawn["host"], format!("copy-{generation}"), "{drawn}");
        let late = drawn["unix_s"].as_u64().unwrap().checked_sub(UNIX_S);
        assert!(late.is_some_and(|late| late < 600), "{drawn}");
    }

    /// Ports are few: some of a hundred copies may be near each other. Those that choose by one secret from one range all are.
    fn all_differ(&self) {
        let mut ports = self.ports.clone();
        ports.sort_unstable();
        let near = ports.windows(2).filter(|pair| pair[1] - pair[0] <= 16).count();
        assert!(near <= 1 + ports.len() / 5, "{ports:?}");
    }
}

/// A copy, told that it is one.
fn copy(written: &Written, generation: u128) -> (super::Machine, Running) {
    let machine = written.bring_back(100 + u32::try_from(generation).unwrap());
    let mut running = Running::copy(machine.stream());
    assert!(running.restore(&restored(generation)), "no acknowledgement came first");
    assert_eq!(running.init, Ok(()), "{}", running.log);
    (machine, running)
}

/// Copies of a function that knows nothing of it, each asked for what it draws.
fn copies(kernel: &str, count: u128) {
    let Some((machine, mut running)) = guest(kernel, &[], super::Sandbox::for_a_snapshot) else { return };
    assert_eq!(running.init, Ok(()), "{}", running.log);
    assert_eq!(running.hold_still(), Some(true), "this kernel holds programs");
    let written = machine.write_down();
    let mut drawn = Drawn::default();
    for generation in 1..=count {
        let (machine, mut running) = copy(&written, generation);
        drawn.take(&document(&mut running, r#"{"do":"draw"}"#), generation);
        let again = document(&mut running, r#"{"value":1}"#);
        assert_eq!((&again["echo"], &again["count"]), (&1.into(), &2.into()), "{again}");
        if generation == 1 {
            super::ends(machine, running);
        }
    }
    drawn.all_differ();
}

#[test]
fn copies_of_6_1_are_their_own() {
    copies("6.1", if super::full() { 100 } else { 5 });
}

/// In the full form; `WARREN_SOAK=1`.
#[test]
fn copies_of_6_12_are_their_own() {
    if super::full_form() {
        copies("6.12", 100);
    }
}

/// Without a word of its host a copy runs nothing: its runtime, which waits to be restored, draws nothing and counts nothing. What
/// it draws as soon as it may is its own.
#[test]
fn nothing_runs_before_a_copy_is_its_own() {
    let change = |sandbox: super::Sandbox| sandbox.variable("RESTORE", "wait").for_a_snapshot();
    let Some((machine, mut running)) = guest("6.1", &[("data/x", "hello")], change) else { return };
    assert_eq!((running.init.clone(), running.hold_still()), (Ok(()), Some(true)), "{}", running.log);
    let written = machine.write_down();
    let mut drawn = Drawn::default();
    for generation in 1..=3 {
        let machine = written.bring_back(9);
        assert!(Running::copy(machine.stream()).refuses_an_event(), "an event before it is its own");
        let mut running = Running::copy(machine.stream());
        assert!(running.restore(&restored(generation)));
        assert_eq!(running.init, Ok(()), "{}", running.log);
        let said = running.log.split_once("rust: restored; drawn before ").unwrap().1;
        let (before, after) = said.lines().next().unwrap().split_once(", after ").unwrap();
        let before: Value = serde_json::from_str(before).unwrap();
        assert_eq!(before["host"], "sandbox", "drawn in the life before");
        drawn.take(&serde_json::from_str(after).unwrap(), generation);
        assert_eq!(document(&mut running, r#"{"value":1}"#)["count"], 1);
    }
    drawn.all_differ();
}

/// What was left in `/tmp` before is there in every copy; what one leaves there no other sees.
#[test]
fn copies_have_a_scratch_disk_each() {
    let Some((machine, mut running)) = guest("6.1", &[], super::Sandbox::for_a_snapshot) else { return };
    assert_eq!(running.invoke(r#"{"do":"keep","value":7}"#).text(), r#""""#);
    assert_eq!(running.hold_still(), Some(true));
    let written = machine.write_down();
    for generation in 1..=2_u32 {
        let (machine, mut running) = copy(&written, generation.into());
        let keep = format!(r#"{{"do":"keep","value":{}}}"#, 10 + generation);
        assert_eq!(running.invoke(&keep).text(), r#""7""#);
        super::ends(machine, running);
    }
}
