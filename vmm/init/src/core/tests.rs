//! The rules one by one: a script of what happens, and what the machine then says.

use super::*;
use bytes::Bytes;
use warren_vmm_protocol::guest::InitFailure;

mod restore;

/// A machine in a test: time goes on by hand, actions are collected as words.
struct Case {
    machine: Machine,
    now: Micros,
    said: Vec<String>,
}

const RUNTIME: Who = Who::Runtime;
const EXT: Who = Who::Extension(ExtensionId(0));
const BOTH: Subscription = Subscription { invoke: true, shutdown: true };

impl Case {
    fn new(extensions: &[&str]) -> Self {
        Self::of_kind(false, extensions)
    }

    /// One that is to be written down, or not.
    fn of_kind(snapshots: bool, extensions: &[&str]) -> Self {
        let external = extensions.iter().map(|name| (*name).to_owned()).collect();
        let machine = Machine::new(10_000_000, snapshots, external);
        let mut case = Self { machine, now: 0, said: Vec::new() };
        case.tell(Machine::start);
        case
    }

    /// Up, its runtime waiting to be restored.
    fn restorable() -> Self {
        let mut case = Self::of_kind(true, &[]);
        case.tell(Machine::restore_next).unwrap();
        case.expect("launch runtime, ready");
        case
    }

    fn tell<R>(&mut self, step: impl FnOnce(&mut Machine, Micros) -> R) -> R {
        self.now += 1000;
        let result = step(&mut self.machine, self.now);
        let actions = self.machine.take_actions();
        self.said.extend(actions.iter().filter_map(word));
        result
    }

    fn next(&mut self, who: Who) -> Result<(), Refusal> {
        self.tell(|machine, now| match who {
            Who::Runtime => machine.runtime_next(now),
            Who::Extension(id) => machine.extension_next(now, id),
        })
    }

    fn answer(&mut self, id: &str) -> Result<(), Refusal> {
        self.tell(|machine, _| {
            machine.answer(id, Answer::Response(Bytes::from_static(b"ok")), "InvocationResponse")
        })
    }

    fn event(&mut self, id: &str) {
        self.tell(|machine, now| machine.event(now, id.to_owned(), 3_000_000));
    }

    fn ended(&mut self, who: Who, ending: &Ending) {
        self.tell(|machine, now| machine.ended(now, who, ending));
    }

    /// Lets the time of the next deadline come.
    fn late(&mut self) {
        self.now = self.machine.deadline().expect("a deadline") + 1;
        self.tell(Machine::tick);
    }

    /// What was said since the last look.
    fn expect(&mut self, words: &str) {
        let said = std::mem::take(&mut self.said).join(", ");
        assert_eq!(said, words, "in {:?}", self.machine.phase);
    }

    fn register(&mut self, name: &str, subscription: Subscription) -> Result<ExtensionId, Refusal> {
        let id = self.tell(|machine, _| machine.register(name, subscription)).map(|(id, _)| id);
        self.tell(Machine::registered);
        id
    }

    /// Up with a runtime alone.
    fn idle() -> Self {
        let mut case = Self::new(&[]);
        case.next(RUNTIME).unwrap();
        case.expect("launch runtime, ready");
        case
    }

    /// Up with an extension too.
    fn with_extension() -> Self {
        let mut case = Self::new(&["ext"]);
        case.expect("launch ext0");
        case.register("ext", BOTH).unwrap();
        case.expect("launch runtime");
        case.next(RUNTIME).unwrap();
        case.expect("");
        case.next(EXT).unwrap();
        case.expect("ready");
        case
    }
}

fn name(who: Who) -> String {
    match who {
        Who::Runtime => "runtime".to_owned(),
        Who::Extension(id) => format!("ext{}", id.0),
    }
}

fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Launch(who) => format!("launch {}", name(*who)),
        Action::Terminate(who) => format!("term {}", name(*who)),
        Action::Kill(who) => format!("kill {}", name(*who)),
        Action::Deliver(who, Delivery::Event) => format!("event to {}", name(*who)),
        Action::Deliver(who, Delivery::Restored) => format!("restored to {}", name(*who)),
        Action::Deliver(who, Delivery::Shutdown { reason, .. }) => format!("{reason:?} to {}", name(*who)),
        Action::Say(Said::Ready { .. }) => "ready".to_owned(),
        Action::Say(Said::InitFailed { fault, .. }) => format!("init failed {}", fault.error_type),
        Action::Say(Said::Done { answer, .. }) => match answer {
            Answer::Response(_) => "done".to_owned(),
            Answer::Failed(fault) => format!("done {}", fault.error_type),
            other => format!("done {other:?}"),
        },
        Action::PowerOff => "off".to_owned(),
        // The model's.
        Action::Freeze | Action::Thaw | Action::Record(_) => return None,
    })
}

#[test]
fn programs_are_held_between_events() {
    let mut machine = Machine::new(10_000_000, false, Vec::new());
    machine.start(0);
    machine.runtime_next(1).unwrap();
    assert_eq!(machine.take_actions().last(), Some(&Action::Freeze));
    for id in ["a", "b"] {
        machine.event(2, id.to_owned(), 1000);
        let actions = machine.take_actions();
        assert_eq!(actions.first(), Some(&Action::Thaw), "{actions:?}");
        machine.answer(id, Answer::Stopped, "InvocationResponse").unwrap();
        machine.runtime_next(3).unwrap();
        let actions = machine.take_actions();
        assert_eq!(actions.last(), Some(&Action::Freeze), "{actions:?}");
    }
    machine.shutdown(4);
    assert_eq!(machine.take_actions().first(), Some(&Action::Thaw));
}

#[test]
fn an_event_ends_when_the_runtime_waits_again() {
    let mut case = Case::idle();
    case.event("a");
    case.expect("event to runtime");
    case.answer("a").unwrap();
    case.expect("");
    case.next(RUNTIME).unwrap();
    case.expect("done");
    assert_eq!(case.machine.deadline(), None);
}

#[test]
fn an_event_waits_for_extensions_too() {
    let mut case = Case::with_extension();
    case.event("a");
    case.expect("event to ext0, event to runtime");
    case.answer("a").unwrap();
    case.next(RUNTIME).unwrap();
    case.expect("");
    case.next(EXT).unwrap();
    case.expect("done");
}

#[test]
fn extensions_register_before_the_runtime_starts_and_it_may_bring_its_own() {
    let mut case = Case::new(&["a", "b"]);
    case.expect("launch ext0, launch ext1");
    assert_eq!(case.register("mine", Subscription::default()), Err(Refusal::RegistrationClosed));
    case.register("b", BOTH).unwrap();
    case.expect("");
    assert_eq!(case.next(EXT), Err(Refusal::ExtensionState));
    assert_eq!(case.register("b", BOTH), Err(Refusal::ExtensionState));
    case.register("a", BOTH).unwrap();
    case.expect("launch runtime");
    assert_eq!(case.register("mine", BOTH), Err(Refusal::EventType));
    let mine = case.register("mine", Subscription { invoke: true, shutdown: false }).unwrap();
    assert_eq!(case.register("mine", Subscription::default()), Err(Refusal::NameTaken));
    for at in 3..EXTENSIONS_MAX {
        case.register(&format!("more{at}"), Subscription::default()).unwrap();
    }
    assert_eq!(case.register("one too many", Subscription::default()), Err(Refusal::TooManyExtensions));
    for at in 0..EXTENSIONS_MAX {
        case.next(Who::Extension(ExtensionId(at))).unwrap();
    }
    case.expect("");
    case.next(RUNTIME).unwrap();
    case.expect("ready");
    assert_eq!(case.register("late", Subscription::default()), Err(Refusal::RegistrationClosed));
    assert_eq!(mine, ExtensionId(2));
    case.event("e");
    case.expect("event to ext0, event to ext1, event to ext2, event to runtime");
}

#[test]
fn the_runtime_answers_what_it_has_once() {
    let mut case = Case::idle();
    assert!(matches!(case.answer("a"), Err(Refusal::RuntimeState { from: "Ready", .. })));
    case.event("a");
    assert_eq!(case.answer("b"), Err(Refusal::RequestId));
    case.answer("a").unwrap();
    assert!(matches!(case.answer("a"), Err(Refusal::RuntimeState { from: "ResponseSent", .. })));
    let fault = Fault::new(InitFailure::Runtime, "x", String::new());
    let refused = case.tell(|machine, now| machine.runtime_init_error(now, &fault));
    assert!(matches!(refused, Err(Refusal::RuntimeState { .. })));
}

#[test]
fn one_that_asks_again_for_what_it_has_gets_it_again() {
    let mut case = Case::idle();
    case.event("a");
    case.expect("event to runtime");
    case.next(RUNTIME).unwrap();
    case.expect("event to runtime");
}

#[test]
fn a_runtime_that_ends_fails_the_event_and_comes_back_with_the_next() {
    for (ending, error_type) in [
        (Ending::Status(1), "Runtime.ExitError"),
        (Ending::Status(0), "Runtime.ExitError"),
        (Ending::Signal(11), "Runtime.ExitError"),
        (Ending::OutOfMemory, "Runtime.OutOfMemory"),
    ] {
        let mut case = Case::idle();
        case.event("a");
        case.ended(RUNTIME, &ending);
        case.expect(&format!("event to runtime, done {error_type}"));
        case.event("b");
        case.expect("launch runtime");
        case.next(RUNTIME).unwrap();
        case.expect("event to runtime");
    }
}

#[test]
fn an_answer_that_was_given_stands() {
    let mut case = Case::idle();
    case.event("a");
    case.answer("a").unwrap();
    case.ended(RUNTIME, &Ending::Status(1));
    case.expect("event to runtime, done");
}

#[test]
fn one_that_ends_between_events_is_started_by_the_next() {
    let mut case = Case::with_extension();
    case.ended(RUNTIME, &Ending::Signal(9));
    case.expect("Failure to ext0");
    case.event("a");
    case.expect("");
    case.ended(EXT, &Ending::Status(0));
    case.expect("launch ext0");
}

#[test]
fn an_event_past_its_deadline_ends_the_sandbox() {
    let mut case = Case::with_extension();
    case.event("a");
    case.expect("event to ext0, event to runtime");
    case.late();
    case.expect("done TimedOut, term runtime");
    case.late();
    case.expect("kill runtime");
    // The extension is busy with the event; it is told when it asks.
    case.next(EXT).unwrap();
    case.expect("Timeout to ext0");
    case.next(EXT).unwrap();
    case.expect("kill runtime, kill ext0");
    case.ended(RUNTIME, &Ending::Signal(9));
    case.ended(EXT, &Ending::Signal(9));
    case.expect("off");
}

#[test]
fn an_extension_that_does_not_end_has_two_seconds() {
    let mut case = Case::with_extension();
    let began = case.now + 1000;
    case.tell(Machine::shutdown);
    assert_eq!(case.machine.deadline(), Some(began + RUNTIME_GRACE_US));
    case.ended(RUNTIME, &Ending::Signal(15));
    case.expect("term runtime, Spindown to ext0");
    assert_eq!(case.machine.deadline(), Some(began + SHUTDOWN_BUDGET_US));
    case.late();
    case.expect("kill ext0");
    case.ended(EXT, &Ending::Signal(9));
    case.expect("off");
}

#[test]
fn one_that_wants_no_shutdown_is_killed() {
    let mut case = Case::new(&["ext"]);
    case.register("ext", Subscription { invoke: true, shutdown: false }).unwrap();
    case.next(EXT).unwrap();
    case.next(RUNTIME).unwrap();
    case.tell(Machine::shutdown);
    case.ended(RUNTIME, &Ending::Signal(15));
    case.ended(EXT, &Ending::Signal(9));
    case.expect("launch ext0, launch runtime, ready, term runtime, kill ext0, kill ext0, off");
}

#[test]
fn without_extensions_nothing_is_waited_for() {
    let mut case = Case::idle();
    case.tell(Machine::shutdown);
    case.expect("kill runtime");
    case.ended(RUNTIME, &Ending::Signal(9));
    case.expect("off");
}

#[test]
fn init_past_its_limit_is_said_and_tried_again_inside_the_event() {
    let mut case = Case::new(&[]);
    assert_eq!(case.machine.deadline(), Some(1000 + 10_000_000));
    case.late();
    case.expect("launch runtime, init failed Sandbox.Timedout, kill runtime");
    case.event("a");
    case.expect("");
    case.ended(RUNTIME, &Ending::Signal(9));
    case.expect("launch runtime");
    // Now the event's own time counts.
    assert!(case.machine.deadline().unwrap() < case.now + 3_000_000);
    case.next(RUNTIME).unwrap();
    case.expect("event to runtime");
}

#[test]
fn an_init_error_is_the_answer_of_an_event_that_waits() {
    let fault = Fault::new(InitFailure::Runtime, "Runtime.ImportModuleError", "no".to_owned());
    let mut case = Case::new(&[]);
    case.tell(|machine, now| machine.runtime_init_error(now, &fault)).unwrap();
    case.expect("launch runtime, init failed Runtime.ImportModuleError, kill runtime");
    case.ended(RUNTIME, &Ending::Status(1));
    case.event("a");
    case.expect("launch runtime");
    case.tell(|machine, now| machine.runtime_init_error(now, &fault)).unwrap();
    case.expect("done Runtime.ImportModuleError, kill runtime");
}

#[test]
fn an_extension_that_cannot_start_fails_init() {
    let mut case = Case::new(&["ext"]);
    case.ended(EXT, &Ending::NotStarted { error_type: "x", why: "no".to_owned() });
    case.expect("launch ext0, init failed Extension.LaunchError");
    let mut case = Case::new(&["ext"]);
    case.ended(EXT, &Ending::Status(4));
    case.expect("launch ext0, init failed Extension.Crash");
    let mut case = Case::with_extension();
    let fault = Fault::new(InitFailure::Extension, "Extension.ExitError", "no".to_owned());
    case.event("a");
    case.tell(|machine, now| machine.extension_error(now, ExtensionId(0), &fault)).unwrap();
    case.expect("event to ext0, event to runtime, done Extension.ExitError, term runtime");
}

#[test]
fn a_second_event_at_once_is_the_hosts_fault() {
    let mut case = Case::idle();
    case.event("a");
    case.event("b");
    case.expect("event to runtime, done Stopped, kill runtime");
    case.event("c");
    case.expect("done Stopped");
}

#[test]
fn a_shutdown_answers_the_event_that_runs() {
    let mut case = Case::idle();
    case.event("a");
    case.tell(Machine::shutdown);
    case.expect("event to runtime, done Stopped, kill runtime");
    case.ended(RUNTIME, &Ending::Signal(9));
    case.expect("off");
    case.event("b");
    case.expect("");
}
