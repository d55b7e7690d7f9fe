//! Whatever happens in whatever order: the rules that must hold. Steps are drawn, invalid ones included.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashSet;
use warren_vmm_protocol::guest::InitFailure;

#[derive(Clone, Debug)]
enum Step {
    Event(u64),
    Shutdown,
    RuntimeNext,
    RestoreNext,
    RestoreError,
    /// The sandbox was brought back from what was written down.
    Restored,
    Answer(bool),
    InitError,
    Register(usize, bool, bool),
    ExtensionNext(usize),
    ExtensionError(usize),
    Ended(usize),
    Wait(u64),
    /// Until the next deadline, and a little more.
    Late,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u64..5_000_000).prop_map(Step::Event),
        1 => Just(Step::Shutdown),
        6 => Just(Step::RuntimeNext),
        4 => Just(Step::RestoreNext),
        1 => Just(Step::RestoreError),
        2 => Just(Step::Restored),
        4 => any::<bool>().prop_map(Step::Answer),
        1 => Just(Step::InitError),
        4 => (0..4_usize, any::<bool>(), any::<bool>()).prop_map(|(at, invoke, shutdown)| Step::Register(at, invoke, shutdown)),
        6 => (0..4_usize).prop_map(Step::ExtensionNext),
        1 => (0..4_usize).prop_map(Step::ExtensionError),
        2 => (0..3_usize).prop_map(Step::Ended),
        2 => (1_u64..400_000).prop_map(Step::Wait),
        1 => Just(Step::Late),
    ]
}

/// The world around the machine: which processes run, who waits, what the host still expects.
#[derive(Default)]
struct World {
    running: HashSet<Who>,
    waiting: HashSet<Who>,
    /// The host waits for this event's end.
    owed: Option<String>,
    /// How often the host may still be told that everybody waits, or does not: after init, and after each restore.
    tellings: usize,
    /// The runtime waits to be restored: nothing else may be given to it.
    restorable: bool,
    off: bool,
    /// Every program is held.
    held: bool,
}

impl World {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.off, "{action:?} after the end");
            let quiet = matches!(action, Action::Thaw | Action::Record(_) | Action::Say(_));
            assert!(!self.held || quiet, "{action:?} while programs are held");
            match action {
                Action::Freeze => {
                    assert!(self.running.iter().all(|who| self.waiting.contains(who)), "somebody is busy");
                    assert_eq!(self.owed, None, "held with an event owed");
                    self.held = true;
                }
                Action::Thaw => self.held = false,
                Action::Launch(who) => {
                    assert!(self.running.insert(who), "{who:?} was started twice");
                    self.waiting.remove(&who);
                    self.restorable &= who != Who::Runtime;
                }
                Action::Terminate(who) | Action::Kill(who) => {
                    assert!(self.running.contains(&who), "{who:?} does not run");
                }
                Action::Deliver(who, Delivery::Restored) => {
                    assert_eq!(who, Who::Runtime);
                    self.waiting.remove(&who);
                    self.restorable = false;
                }
                Action::Deliver(who, Delivery::Event) => {
                    assert!(
                        who != Who::Runtime || !self.restorable,
                        "an event for one that waits to be restored"
                    );
                    assert!(self.owed.is_some(), "an event for {who:?} that nobody sent");
                    // Only the runtime may be given one again.
                    assert!(self.waiting.remove(&who) || who == Who::Runtime, "{who:?} does not wait");
                }
                Action::Deliver(who, Delivery::Shutdown { .. }) => {
                    assert!(self.waiting.remove(&who), "{who:?} does not wait");
                }
                Action::Say(Said::Done { .. }) => {
                    assert!(self.owed.take().is_some(), "an end without an event");
                }
                Action::Say(_) => {
                    assert!(self.tellings > 0, "it was told already");
                    self.tellings -= 1;
                }
                Action::PowerOff => {
                    assert!(self.running.is_empty(), "off with {:?}", self.running);
                    assert_eq!(self.owed, None, "off with an event owed");
                    self.off = true;
                }
                Action::Record(_) => {}
            }
        }
    }
}

fn run(steps: &[Step], snapshots: bool, external: usize) {
    let mut machine = Machine::new(10_000_000, snapshots, (0..external).map(|at| format!("e{at}")).collect());
    let mut world = World { tellings: 1, ..World::default() };
    let mut now = 0;
    let mut number = 0;
    machine.start(now);
    world.take(machine.take_actions());
    for step in steps {
        now += 1;
        match step {
            // The host sends one at a time.
            Step::Event(timeout) if world.owed.is_none() && !world.off => {
                number += 1;
                let id = format!("r{number}");
                world.owed = Some(id.clone());
                machine.event(now, id, *timeout);
            }
            Step::Shutdown => machine.shutdown(now),
            Step::RuntimeNext if world.running.contains(&Who::Runtime) => {
                let new = world.waiting.insert(Who::Runtime);
                if machine.runtime_next(now).is_err() && new {
                    world.waiting.remove(&Who::Runtime);
                }
            }
            Step::RestoreNext if world.running.contains(&Who::Runtime) => {
                let (new, before) = (world.waiting.insert(Who::Runtime), world.restorable);
                world.restorable = true;
                if machine.restore_next(now).is_err() {
                    world.restorable = before;
                    if new {
                        world.waiting.remove(&Who::Runtime);
                    }
                } else {
                    assert!(snapshots, "one that nobody writes down waits to be restored");
                }
            }
            Step::RestoreError => {
                let _ = machine.restore_error(now, &Fault::new(InitFailure::Restore, "X", String::new()));
            }
            Step::Restored => {
                let (held, idle) = (world.held, machine.is_idle());
                world.tellings += usize::from(idle);
                let taken = machine.restored(now).is_ok();
                assert!(taken == idle && (!taken || held), "brought back while something runs");
            }
            Step::Answer(mine) => {
                let id = machine.current().unwrap_or_default().to_owned();
                let id = if *mine { id } else { "other".to_owned() };
                let answer = Answer::Response(Bytes::new());
                let taken = machine.answer(&id, answer, "InvocationResponse");
                assert!(*mine || taken.is_err());
            }
            Step::InitError => {
                let _ =
                    machine.runtime_init_error(now, &Fault::new(InitFailure::Runtime, "X", String::new()));
            }
            Step::Register(at, invoke, shutdown) => {
                let subscription = Subscription { invoke: *invoke, shutdown: *shutdown };
                let _ = machine.register(&format!("e{at}"), subscription);
                machine.registered(now);
            }
            Step::ExtensionNext(at) => {
                let id = ExtensionId(*at);
                world.waiting.insert(Who::Extension(id));
                if machine.extension_next(now, id).is_err() {
                    world.waiting.remove(&Who::Extension(id));
                }
            }
            Step::ExtensionError(at) => {
                let fault = Fault::new(InitFailure::Extension, "X", String::new());
                let _ = machine.extension_error(now, ExtensionId(*at), &fault);
            }
            Step::Ended(at) => {
                let who = if *at == 0 { Who::Runtime } else { Who::Extension(ExtensionId(at - 1)) };
                if world.running.remove(&who) {
                    world.waiting.remove(&who);
                    machine.ended(now, who, &Ending::Status(1));
                }
            }
            Step::Wait(time) => {
                now += time;
                machine.tick(now);
            }
            Step::Late => {
                now = now.max(machine.deadline().unwrap_or(now)) + 1;
                machine.tick(now);
            }
            Step::Event(_) | Step::RuntimeNext | Step::RestoreNext => {}
        }
        world.take(machine.take_actions());
        assert!(
            world.owed.is_none() || machine.deadline().is_some(),
            "{:?}: an event without a deadline",
            machine.phase
        );
    }
    come_to_an_end(machine, world, now);
}

/// From wherever it is: asked to end it does, if only time passes and what is killed dies.
fn come_to_an_end(mut machine: Machine, mut world: World, mut now: Micros) {
    machine.shutdown(now);
    world.take(machine.take_actions());
    for _ in 0..8 {
        if world.off {
            return;
        }
        now = now.max(machine.deadline().unwrap_or(now)) + 1;
        machine.tick(now);
        let actions = machine.take_actions();
        let killed: Vec<_> = actions
            .iter()
            .filter_map(|action| if let Action::Kill(who) = action { Some(*who) } else { None })
            .collect();
        world.take(actions);
        let killed =
            if machine.deadline().is_none() { world.running.iter().copied().collect() } else { killed };
        for who in killed {
            if world.running.remove(&who) {
                machine.ended(now, who, &Ending::Signal(9));
                world.take(machine.take_actions());
            }
        }
    }
    panic!("it never ends: {:?}", machine.phase);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_rules_hold(steps in prop::collection::vec(step(), 0..80), snapshots: bool, external in 0..3_usize) {
        run(&steps, snapshots, external);
    }
}
