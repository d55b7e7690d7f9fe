use super::*;
use proptest::prelude::*;

fn id(text: &str) -> String {
    text.to_owned()
}

fn check(events: &[Event], expect: &State) {
    let mut machine = Machine::default();
    for event in events {
        let _ = machine.apply(event.clone());
    }
    assert_eq!(machine.state(), expect, "{events:?}");
}

#[test]
fn the_drawing() {
    use Event::{Adopt, Begin, Drain, End, Expire, Jailed, Kill, Ready};
    let destroyed = || Cause::Destroyed(String::new());
    let drained = State::Dead(Cause::Destroyed(id("drained")));
    check(&[], &State::Creating);
    check(&[Jailed], &State::Initialising);
    check(&[Jailed, Ready], &State::Idle);
    check(&[Ready], &State::Creating);
    check(&[Begin(id("a"))], &State::Creating);
    check(&[Jailed, Begin(id("a"))], &State::Initialising);
    check(&[Jailed, Ready, Begin(id("a"))], &State::Busy(id("a")));
    check(&[Jailed, Ready, Begin(id("a")), Begin(id("b"))], &State::Busy(id("a")));
    check(&[Jailed, Ready, Begin(id("a")), End(None)], &State::Idle);
    check(&[Jailed, Ready, Begin(id("a")), End(Some(Cause::TimedOut))], &State::Dead(Cause::TimedOut));
    check(&[Jailed, Ready, Begin(id("a")), Drain(destroyed())], &State::Draining(id("a")));
    check(&[Jailed, Ready, Begin(id("a")), Drain(destroyed()), End(None)], &drained);
    check(&[Jailed, Ready, Begin(id("a")), Expire], &State::Busy(id("a")));
    check(&[Jailed, Ready, Expire], &State::Dead(Cause::Expired));
    check(&[Jailed, Ready, Drain(destroyed())], &State::Dead(destroyed()));
    check(&[Jailed, Drain(destroyed())], &State::Dead(destroyed()));
    check(&[Kill(Cause::NotCreated), Kill(Cause::Stopping)], &State::Dead(Cause::NotCreated));
    check(&[Adopt(None)], &State::Idle);
    check(&[Adopt(Some(id("a")))], &State::Busy(id("a")));
    check(&[Jailed, Adopt(None)], &State::Initialising);
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Jailed),
        2 => Just(Event::Ready),
        1 => proptest::option::of(Just(id("adopted"))).prop_map(Event::Adopt),
        6 => "[a-c]".prop_map(Event::Begin),
        5 => Just(Event::End(None)),
        1 => Just(Event::End(Some(Cause::TimedOut))),
        1 => Just(Event::Drain(Cause::Destroyed(String::new()))),
        1 => Just(Event::Expire),
        1 => Just(Event::Kill(Cause::Stopping)),
    ]
}

proptest! {
    /// The model: a sandbox is at most one invocation's, death is final, and each begun invocation ends once.
    #[test]
    fn model(events in proptest::collection::vec(events(), 0..60)) {
        let mut machine = Machine::default();
        let (mut running, mut begun, mut dead, mut leaving) = (false, 0_u64, false, false);
        for event in events {
            let was_idle = *machine.state() == State::Idle;
            let step = machine.apply(event.clone());
            match &event {
                Event::Begin(_) => {
                    prop_assert_eq!(step.is_ok(), was_idle);
                    if step.is_ok() {
                        prop_assert!(!running && !dead && !leaving);
                        (running, begun) = (true, begun + 1);
                    }
                }
                Event::Adopt(Some(_)) if step.is_ok() => (running, begun) = (true, begun + 1),
                Event::End(_) if step == Ok(Step::Moved) || step == Ok(Step::Died) => {
                    prop_assert!(running);
                    running = false;
                }
                Event::Drain(_) if step.is_ok() => leaving = true,
                Event::Kill(_) => running = false,
                _ => {}
            }
            // `Died` is said exactly once: reclaiming happens exactly once.
            prop_assert!(!(dead && step == Ok(Step::Died)));
            dead |= step == Ok(Step::Died);
            prop_assert_eq!(dead, machine.is_dead());
            prop_assert_eq!(running, machine.running().is_some());
            prop_assert_eq!(begun, machine.finished() + u64::from(running));
        }
    }
}
