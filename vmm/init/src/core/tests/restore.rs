//! Sandboxes that are written down and brought back.

use super::*;

fn fault(error_type: &str) -> Fault {
    Fault::new(InitFailure::Runtime, error_type, "no".to_owned())
}

/// Everything that is done about one step, in order.
fn actions(machine: &mut Machine) -> Vec<String> {
    let short = |action: &Action| match action {
        Action::Freeze => Some("held".to_owned()),
        Action::Thaw => Some("let go".to_owned()),
        other => word(other),
    };
    machine.take_actions().iter().filter_map(short).collect()
}

#[test]
fn a_runtime_hears_of_it_and_is_held_before_and_after() {
    let mut machine = Machine::new(10_000_000, true, Vec::new());
    machine.start(0);
    machine.restore_next(1).unwrap();
    assert_eq!(actions(&mut machine), ["launch runtime", "ready", "held"]);
    assert!(machine.is_idle());
    machine.restored(2).unwrap();
    assert_eq!(actions(&mut machine), ["let go", "restored to runtime"]);
    assert_eq!(machine.restored(3), Err(NotIdle));
    machine.runtime_next(4).unwrap();
    assert_eq!(actions(&mut machine), ["ready", "held"]);
    // A copy of a copy.
    machine.restored(5).unwrap();
    assert_eq!(actions(&mut machine), ["ready"]);
}

#[test]
fn one_that_does_not_ask_for_it_stays_held() {
    let mut machine = Machine::new(10_000_000, true, Vec::new());
    machine.start(0);
    machine.runtime_next(1).unwrap();
    assert_eq!(actions(&mut machine), ["launch runtime", "ready", "held"]);
    machine.restored(2).unwrap();
    assert_eq!(actions(&mut machine), ["ready"]);
    machine.event(3, "a".to_owned(), 1000);
    assert_eq!(actions(&mut machine), ["let go", "event to runtime"]);
}

#[test]
fn only_one_that_is_to_be_written_down_waits_for_it() {
    let mut case = Case::new(&[]);
    let refused = case.tell(Machine::restore_next);
    assert_eq!(refused, Err(Refusal::RuntimeState { from: "Started", to: "RestoreReady" }));
    let mut case = Case::idle();
    assert!(case.tell(Machine::restore_next).is_err());
    // Once it waits for that, it does not wait for events.
    let mut case = Case::restorable();
    assert_eq!(case.next(RUNTIME), Err(Refusal::RuntimeState { from: "RestoreReady", to: "Ready" }));
    assert!(case.tell(|machine, now| machine.restore_error(now, &fault("X"))).is_err());
}

#[test]
fn extensions_are_waited_for_before_it_is_written_down() {
    let mut case = Case::of_kind(true, &["ext"]);
    case.register("ext", BOTH).unwrap();
    case.tell(Machine::restore_next).unwrap();
    case.expect("launch ext0, launch runtime");
    case.next(EXT).unwrap();
    case.expect("ready");
    case.tell(Machine::restored).unwrap();
    case.next(RUNTIME).unwrap();
    case.expect("restored to runtime, ready");
}

#[test]
fn one_that_asks_again_hears_it_again() {
    let mut case = Case::restorable();
    case.tell(Machine::restore_next).unwrap();
    case.expect("");
    case.tell(Machine::restored).unwrap();
    case.tell(Machine::restore_next).unwrap();
    case.expect("restored to runtime, restored to runtime");
}

/// What was not brought back is told the same once there is an event: also one whose programs were started again.
#[test]
fn an_event_does_not_wait_for_a_restore() {
    let mut case = Case::restorable();
    case.event("a");
    case.expect("restored to runtime");
    case.next(RUNTIME).unwrap();
    case.expect("event to runtime");
    case.ended(RUNTIME, &Ending::Status(1));
    case.expect("done Runtime.ExitError");
    case.event("b");
    case.tell(Machine::restore_next).unwrap();
    case.expect("launch runtime, restored to runtime");
    case.next(RUNTIME).unwrap();
    case.expect("event to runtime");
}

#[test]
fn a_restore_that_fails_ends_the_sandbox_by_name() {
    let mut case = Case::restorable();
    case.tell(Machine::restored).unwrap();
    case.tell(|machine, now| machine.restore_error(now, &fault("Runtime.AfterRestoreError"))).unwrap();
    case.expect("restored to runtime, init failed Runtime.AfterRestoreError, kill runtime");
    case.ended(RUNTIME, &Ending::Status(65));
    case.expect("off");

    let mut case = Case::restorable();
    case.tell(Machine::restored).unwrap();
    case.ended(RUNTIME, &Ending::Status(1));
    case.expect("restored to runtime, init failed Runtime.ExitError, off");

    let mut case = Case::restorable();
    case.tell(Machine::restored).unwrap();
    assert_eq!(case.machine.deadline(), Some(case.now + RESTORE_LIMIT_US));
    case.late();
    case.expect("restored to runtime, init failed Sandbox.Timedout, kill runtime");
}

/// With an event it is the event's answer, and the next starts over.
#[test]
fn a_restore_that_fails_is_the_answer_of_an_event_that_waits() {
    let mut case = Case::restorable();
    case.event("a");
    case.tell(|machine, now| machine.restore_error(now, &fault("Runtime.AfterRestoreError"))).unwrap();
    case.expect("restored to runtime, done Runtime.AfterRestoreError, kill runtime");
    case.ended(RUNTIME, &Ending::Status(65));
    case.event("b");
    case.expect("launch runtime");
}
