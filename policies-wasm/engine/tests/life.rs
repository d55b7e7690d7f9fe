//! A policy's life: announced, loaded, swapped under load, refused, unloaded.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use support::{RUNTIME, artefact, builtin, component, fleet};
use warren_artefact::{SigningKey, VerifyingKey};
use warren_policy_engine::rules::{Demand, FitRequest, PackingConfig};
use warren_policy_engine::{
    About, By, Identity, Kind, LoadError, Packing, Placement, Policy, State, WhyNative,
};

static PACKING: LazyLock<Arc<Policy>> = LazyLock::new(|| builtin(Kind::Packing));
const ABOUT: About<'_> = About { function: "f", request: "r" };

fn request() -> FitRequest {
    let demand = Demand { function: 1, memory_mib: 512, cpu_millis: 300, ..Demand::default() };
    FitRequest { now_ms: 9, seed: 3, demand, shortlist: 4 }
}

#[test]
fn every_state_is_told_and_every_decision_says_who_made_it() {
    let packing = Packing::new(&fleet(10), PackingConfig::default());
    let by = |packing: &Packing| packing.choose(&ABOUT, &request()).by;
    assert_eq!((packing.status().state, by(&packing)), (State::Native, By::Native(WhyNative::NoPolicy)));

    let identity = Identity { name: "p".to_owned(), digest: "d".to_owned() };
    packing.compiling(identity.clone());
    assert_eq!((packing.status().state, by(&packing)), (State::Compiling, By::Native(WhyNative::Compiling)));
    assert_eq!(packing.status().identity, Some(identity));

    packing.compilation_failed("no compiler".to_owned());
    assert_eq!((packing.status().state, by(&packing)), (State::Failed, By::Native(WhyNative::NotLoaded)));
    assert_eq!(packing.status().last_error, "no compiler");

    packing.load(&PACKING).expect("it loads");
    assert_eq!((packing.status().state, by(&packing)), (State::Active, By::Wasm));
    assert_eq!(packing.status().identity.as_ref(), Some(PACKING.identity()));
    assert_eq!(packing.status().last_error, "");

    packing.unload();
    assert_eq!((packing.status().state, by(&packing)), (State::Native, By::Native(WhyNative::NoPolicy)));
    assert_eq!(packing.status().decisions, 5);
    assert_eq!(packing.status().fallbacks, 1);
}

#[test]
fn decisions_are_explained() {
    let packing = Packing::new(&fleet(10), PackingConfig::default());
    packing.load(&PACKING).expect("it loads");
    let decided = packing.choose(&About { function: "thumbnail", request: "r-1" }, &request());
    packing.choose(&About { function: "other", request: "r-2" }, &request());
    assert_eq!(packing.recent(None, 10).len(), 2);
    let [explained] = &packing.recent(Some("thumbnail"), 10)[..] else { panic!("one") };
    assert_eq!((explained.request.as_str(), explained.by, explained.unix_ms), ("r-1", By::Wasm, 9));
    let best = decided.answer.best[0];
    assert!(explained.text.starts_with(&format!("host-{} fits best", best.host)), "{}", explained.text);
    assert_eq!(explained.candidates.len(), 4);
    assert_eq!(explained.candidates[0].score, i64::from(best.score));
    assert!(explained.candidates[0].chosen);
    assert!(explained.fuel > 0 && explained.took_ns > 0);
}

/// The ring has room for so many and no more.
#[test]
fn memory_of_decisions_is_bounded() {
    let packing = Packing::new(&fleet(10), PackingConfig::default());
    for _ in 0..1000 {
        packing.choose(&ABOUT, &request());
    }
    assert_eq!(packing.recent(None, usize::MAX).len(), 256);
}

#[test]
fn swapping_under_load_loses_no_decision() {
    let inventory = fleet(50);
    let packing = Packing::new(&inventory, PackingConfig::default());
    packing.load(&PACKING).expect("it loads");
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let decided = packing.choose(&ABOUT, &request());
                    assert_eq!((decided.by, decided.answer.best.len()), (By::Wasm, 4));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for swap in 0..50u32 {
            packing.load(&PACKING).expect("it loads");
            inventory.adjust(swap, |host| host.free_memory_mib -= 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let status = packing.status();
    assert_eq!(status.decisions, made.load(Ordering::Relaxed));
    assert_eq!(status.fallbacks, 0, "{status:?}");
}

#[test]
fn what_is_not_a_trusted_policy_is_refused() {
    let made = component("warren-policy-packing", &[]);
    let (envelope, key) = artefact(&made);
    let other = SigningKey::from_secret(&zeroize::Zeroizing::new([8; 32])).verifying_key();
    let open = |envelope: Vec<u8>, trusted: &[VerifyingKey]| Policy::open(&RUNTIME, "p", envelope, trusted);

    assert!(matches!(open(envelope.clone(), &[other]), Err(LoadError::Artefact(_))));
    assert!(matches!(open(envelope.clone(), &[]), Err(LoadError::Artefact(_))));
    for at in [0, 20, envelope.len() / 2, envelope.len() - 1] {
        let mut damaged = envelope.clone();
        damaged[at] ^= 1;
        assert!(matches!(open(damaged, &[key]), Err(LoadError::Artefact(_))), "byte {at}");
    }

    // A good policy in the wrong place: nothing changes there.
    let policy = open(envelope, &[other, key]).expect("one trusted key is enough");
    let placement = Placement::new(&fleet(3));
    let refused = placement.load(&policy);
    assert!(matches!(refused, Err(LoadError::WrongKind { found: Kind::Packing, wanted: Kind::Placement })));
    assert_eq!(placement.status().state, State::Native);
}
