use super::*;
use proptest::prelude::*;
use std::collections::{HashMap as Map, HashSet as Set};
use warren_abi::isa::IsaSet;
use warren_artefact::{Digest, GuestOf};

fn of(version: u64) -> SnapshotOf {
    SnapshotOf {
        function: format!("f{version}"),
        version,
        task: None,
        told: Digest([3; 32]),
        guest: GuestOf::Wasm {
            source: Digest([1; 32]),
            code: Digest([2; 32]),
            program: Digest([4; 32]),
            abi_version: 2,
            isa: IsaSet::BASELINE,
        },
    }
}

fn not_now() -> NotMade {
    NotMade::NotNow("no room".into())
}

#[test]
fn one_at_a_time_and_not_again_at_once() {
    let (mut tries, of, now) = (Tries::default(), of(1), Instant::now());
    let key = of.key();
    assert!(tries.begin(&of, now) && !tries.begin(&of, now), "it is being made");
    assert!(tries.end(key, Ok(()), now));
    assert!(tries.begin(&of, now), "it was made, and is gone again");
    assert!(tries.end(key, Err(not_now()), now));
    assert!(!tries.begin(&of, now), "it has just failed");
    assert!(tries.begin(&of, now + RETRY), "it may be tried again");
    assert!(tries.end(key, Err(NotMade::Cannot("drew".into())), now));
    assert!(!tries.begin(&of, now + 2 * RETRY), "it cannot be");
    assert_eq!(tries.entries()[0].not_made.as_ref().map(NotMade::reason), Some("drew"));
    assert!(tries.forget(key) && tries.begin(&of, now), "who is told to asks again");
}

#[test]
fn what_is_forgotten_while_it_is_made_is_not_kept() {
    let (mut tries, of, now) = (Tries::default(), of(1), Instant::now());
    assert!(!tries.forget(of.key()), "nothing was known");
    assert!(tries.begin(&of, now) && tries.forget(of.key()));
    assert!(tries.entries().is_empty() && !tries.begin(&of, now), "it is still at it");
    assert!(!tries.end(of.key(), Ok(()), now));
    assert!(tries.begin(&of, now) && tries.end(of.key(), Ok(()), now), "the next one is");
}

#[test]
fn who_insists_waits_for_no_minute_but_not_for_the_impossible() {
    let (mut tries, of, now) = (Tries::default(), of(1), Instant::now());
    let key = of.key();
    assert_eq!(tries.insist(&of, now), Insisted::Begin);
    assert_eq!(tries.insist(&of, now), Insisted::Underway);
    assert!(!tries.begin(&of, now), "it is being made");
    assert!(tries.end(key, Err(not_now()), now) && !tries.begin(&of, now));
    assert_eq!((tries.last(key), tries.insist(&of, now)), (Some(not_now()), Insisted::Begin));
    let cannot = NotMade::Cannot("drew".into());
    assert!(tries.end(key, Err(cannot.clone()), now));
    assert_eq!(tries.insist(&of, now), Insisted::Cannot(cannot));
}

#[test]
fn reasons_and_ends_are_bounded() {
    let (mut tries, now) = (Tries::default(), Instant::now());
    for version in 0..MOST_ENDED as u64 + 10 {
        tries.refused(&of(version), &"\u{e9}".repeat(MOST_REASON), now);
    }
    assert!(tries.ended.len() <= MOST_ENDED);
    assert!(
        tries
            .entries()
            .iter()
            .all(|entry| { entry.not_made.as_ref().is_some_and(|why| why.reason().len() == MOST_REASON) })
    );
    tries.retain(|function| function == "f4100");
    assert_eq!(tries.entries().len(), 1);
}

#[derive(Clone, Debug)]
enum Act {
    Begin(u64),
    End(u64, u8),
    Forget(u64),
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0_u64..4).prop_map(Act::Begin),
        (0_u64..4, 0_u8..4).prop_map(|(version, how)| Act::End(version, how)),
        (0_u64..4).prop_map(Act::Forget),
        Just(Act::Wait),
    ]
}

proptest! {
    /// Beside the plainest account of the same: a set of those that are made, and when each may be tried again.
    #[test]
    fn as_the_model(acts in prop::collection::vec(act(), 0..80)) {
        let (mut tries, mut now) = (Tries::default(), Instant::now());
        let mut making: Map<u64, bool> = Map::new();
        let mut failed: Map<u64, Option<Instant>> = Map::new();
        for act in acts {
            match act {
                Act::Begin(version) => {
                    let rests = failed.get(&version).is_some_and(|until| until.is_none_or(|until| now < until));
                    let expect = !making.contains_key(&version) && !rests;
                    prop_assert_eq!(tries.begin(&of(version), now), expect);
                    if expect {
                        making.insert(version, true);
                    }
                }
                Act::End(version, how) => {
                    let ended = match how {
                        0 => Ok(()),
                        1 => Err(not_now()),
                        2 => Err(NotMade::Init { timed_out: false, why: "trap".into() }),
                        _ => Err(NotMade::Cannot("drew".into())),
                    };
                    let wanted = making.remove(&version);
                    prop_assert_eq!(tries.end(of(version).key(), ended.clone(), now), wanted == Some(true));
                    match (wanted, ended) {
                        (Some(true), Ok(())) => drop(failed.remove(&version)),
                        (Some(true), Err(NotMade::Cannot(_))) => drop(failed.insert(version, None)),
                        (Some(true), Err(_)) => drop(failed.insert(version, Some(now + RETRY))),
                        _ => {}
                    }
                }
                Act::Forget(version) => {
                    let known = failed.remove(&version).is_some();
                    let made = making.get_mut(&version).is_some_and(|wanted| std::mem::replace(wanted, false));
                    prop_assert_eq!(tries.forget(of(version).key()), known || made);
                }
                Act::Wait => now += RETRY / 2,
            }
            let shown: Set<u64> = tries.entries().iter().map(|entry| entry.subject.version).collect();
            let unwanted = |version: &u64| making.get(version) == Some(&false);
            let expect: Set<u64> = making.iter().filter(|(_, wanted)| **wanted).map(|(version, _)| *version)
                .chain(failed.keys().copied().filter(|version| !unwanted(version))).collect();
            prop_assert_eq!(shown, expect);
        }
    }
}
