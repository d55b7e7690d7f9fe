use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[derive(Debug, PartialEq, Eq)]
struct One(String);

impl Named for One {
    fn name(&self) -> &str {
        &self.0
    }
}

fn class(memory_mib: u32) -> Class {
    Class::with_code(memory_mib, 0)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Makes and ends until there is nothing to do; how many wait then, by class.
fn settle(pool: &mut Pool<One>, now: Duration, name: &mut u64) -> Vec<(u32, usize)> {
    loop {
        match pool.next(now) {
            Next::Make(class) => {
                *name += 1;
                assert_eq!(pool.made(class, One(name.to_string())), None);
            }
            Next::End(_) => {}
            Next::Wait(_) => break,
        }
    }
    let mut all: Vec<_> =
        pool.classes.iter().map(|(class, lot)| (class.memory_mib(), lot.waiting.len())).collect();
    all.sort_unstable();
    all
}

#[test]
fn as_many_as_in_the_busiest_second() {
    let (mut pool, mut name) = (Pool::new(10), 0);
    assert_eq!(settle(&mut pool, at(0), &mut name), []);
    pool.expect(class(128), at(1));
    assert_eq!(settle(&mut pool, at(1), &mut name), [(128, 1)]);
    for _ in 0..4 {
        pool.take(class(128), at(100));
    }
    assert_eq!(settle(&mut pool, at(100), &mut name), [(128, 4)]);
    pool.take(class(128), at(130));
    assert_eq!(settle(&mut pool, at(159), &mut name), [(128, 4)], "the minute is not over");
    assert_eq!(settle(&mut pool, at(160), &mut name), [(128, 1)], "it is");
    assert_eq!(settle(&mut pool, at(130 + 599), &mut name), [(128, 1)]);
    assert_eq!(settle(&mut pool, at(130 + 600), &mut name), [], "ended and forgotten");
}

#[test]
fn the_budget_is_shared() {
    let (mut pool, mut name) = (Pool::new(7), 0);
    for (memory, count) in [(128, 100), (256, 2), (512, 100)] {
        for _ in 0..count {
            pool.take(class(memory), at(5));
        }
    }
    assert_eq!(settle(&mut pool, at(5), &mut name), [(128, 2), (256, 2), (512, 3)]);
    let nothing = &mut Pool::<One>::new(0);
    assert_eq!((nothing.take(class(128), at(5)), nothing.next(at(5))), (None, Next::Wait(LOOK_AGAIN)));
    assert_eq!(nothing.counts(), Counts::default(), "it is off: nothing is missed");
}

#[test]
fn what_failed_or_was_given_up_comes_later() {
    let (mut pool, mut name) = (Pool::new(7), 0);
    pool.expect(class(128), at(5));
    assert_eq!(pool.next(at(5)), Next::Make(class(128)));
    pool.failed(class(128), at(5));
    assert_eq!(pool.next(at(9)), Next::Wait(LOOK_AGAIN));
    assert_eq!(settle(&mut pool, at(10), &mut name), [(128, 1)]);
    assert!(pool.give_up(at(10)).is_some() && pool.give_up(at(10)).is_none());
    assert_eq!(settle(&mut pool, at(14), &mut name), [(128, 0)]);
    assert_eq!(settle(&mut pool, at(15), &mut name), [(128, 1)]);
    let dead = name.to_string();
    assert!(pool.died(&dead, at(15)).is_some() && pool.died(&dead, at(15)).is_none());
    assert_eq!(settle(&mut pool, at(15), &mut name), [(128, 0)]);
    assert_eq!(settle(&mut pool, at(16), &mut name), [(128, 1)], "replaced");
}

#[test]
fn closed_for_ever() {
    let (mut pool, mut name) = (Pool::new(7), 0);
    pool.expect(class(128), at(5));
    settle(&mut pool, at(5), &mut name);
    pool.expect(class(256), at(5));
    assert_eq!(pool.next(at(5)), Next::Make(class(256)));
    assert_eq!(pool.close().len(), 1);
    assert!(pool.made(class(256), One("late".into())).is_some(), "for who closed it to end");
    assert_eq!((pool.take(class(128), at(6)), pool.next(at(6))), (None, Next::Wait(LOOK_AGAIN)));
}

#[derive(Clone, Debug)]
enum Step {
    Take(u32),
    Expect(u32),
    Next,
    Made,
    Failed,
    Died(usize),
    GiveUp,
    Later(u64),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = 1_u32..80;
    let step = prop_oneof![
        6 => class.clone().prop_map(Step::Take),
        2 => class.prop_map(Step::Expect),
        12 => Just(Step::Next),
        8 => Just(Step::Made),
        1 => Just(Step::Failed),
        1 => (0_usize..8).prop_map(Step::Died),
        1 => Just(Step::GiveUp),
        2 => (0_u64..700).prop_map(Step::Later),
    ];
    let close = proptest::option::weighted(0.2, 0_usize..200);
    (proptest::collection::vec(step, 0..200), close).prop_map(|(mut steps, close)| {
        if let Some(at) = close {
            steps.insert(at.min(steps.len()), Step::Close);
        }
        steps
    })
}

proptest! {
    /// Every zygote that was made is at one place at any time: here, or given out once. There are never more than the budget allows.
    #[test]
    fn each_is_given_out_once(steps in steps(), budget in 0_usize..12) {
        let (mut pool, mut now, mut names) = (Pool::new(budget), at(1), 0_u64);
        let (mut here, mut making, mut closed) = (HashSet::new(), Vec::new(), false);
        for step in steps {
            let out = match step {
                Step::Take(memory) => pool.take(class(memory), now),
                Step::Expect(memory) => { pool.expect(class(memory), now); None }
                Step::Next => match pool.next(now) {
                    Next::Make(class) => { making.push(class); None }
                    Next::End(one) => Some(one),
                    Next::Wait(_) => None,
                },
                Step::Made => match making.pop() {
                    Some(class) => {
                        names += 1;
                        here.insert(names.to_string());
                        let back = pool.made(class, One(names.to_string()));
                        prop_assert_eq!(back.is_some(), closed);
                        back
                    }
                    None => None,
                },
                Step::Failed => { if let Some(class) = making.pop() { pool.failed(class, now); } None }
                Step::Died(at) => {
                    let name = pool.waiting().nth(at).map(|one| one.0.clone());
                    let died = name.as_ref().and_then(|name| pool.died(name, now));
                    prop_assert_eq!(died.as_ref().map(|one| &one.0), name.as_ref());
                    died
                }
                Step::GiveUp => pool.give_up(now),
                Step::Later(seconds) => { now += Duration::from_secs(seconds); None }
                Step::Close => {
                    closed = true;
                    for one in pool.close() {
                        prop_assert!(here.remove(&one.0));
                    }
                    None
                }
            };
            if let Some(One(name)) = out {
                prop_assert!(here.remove(&name), "{} was given out before", name);
            }
            let waiting: HashSet<_> = pool.waiting().map(|one| one.0.clone()).collect();
            prop_assert_eq!(&waiting, &here);
            prop_assert!(closed || here.len() + making.len() <= budget);
            prop_assert!(pool.classes.len() <= MOST_CLASSES);
        }
    }
}
