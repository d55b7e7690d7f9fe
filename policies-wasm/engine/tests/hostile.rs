//! Whatever a policy does: this very decision is made by the built-in default, it is the default's answer, the right
//! counter goes up, and the next decision is the policy's again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::{Arc, LazyLock};
use support::{RUNTIME, artefact, component, fleet, hostile};
use warren_policy_engine::rules::{
    Demand, FitRequest, Health, IdleSandbox, PackingConfig, Place, PlaceRequest, RouteRequest, Scored,
};
use warren_policy_engine::{
    About, By, Inventory, Kind, Limits, Packing, Placement, Policy, Routing, Runtime, State, Status,
    WhyNative,
};
use warren_policy_hostile::misdeeds::{
    BY_SEED, GROW, HUGE, NAN, OVERCOMMIT, RECURSE, SCORE, SLOW, SPIN, TOO_LONG, TRAP, TWICE, UNKNOWN, WEEKS,
};

static PACKING: LazyLock<Arc<Policy>> = LazyLock::new(|| hostile(Kind::Packing));
static PLACEMENT: LazyLock<Arc<Policy>> = LazyLock::new(|| hostile(Kind::Placement));
static ROUTING: LazyLock<Arc<Policy>> = LazyLock::new(|| hostile(Kind::Routing));

const ABOUT: About<'_> = About { function: "f", request: "r" };
const GOOD: u64 = 1;

/// The counter that goes up for a reason.
fn counted(status: &Status, why: WhyNative) -> u64 {
    match why {
        WhyNative::Trap => status.traps,
        WhyNative::Timeout => status.timeouts,
        WhyNative::Fuel => status.out_of_fuel,
        WhyNative::Invalid => status.invalid,
        _ => panic!("{why:?} is not a failure"),
    }
}

fn check_status(before: &Status, after: &Status, why: WhyNative, error: &str) {
    assert_eq!(counted(after, why), counted(before, why) + 1, "{after:?}");
    assert_eq!(after.fallbacks, before.fallbacks + 1, "{after:?}");
    assert_eq!(after.state, State::Active);
    assert!(after.last_error.contains(error), "{:?} does not tell of {error:?}", after.last_error);
}

fn fit_request(function: u64, seed: u64) -> FitRequest {
    let demand = Demand { function, memory_mib: 512, cpu_millis: 300, ..Demand::default() };
    FitRequest { now_ms: 1, seed, demand, shortlist: 8 }
}

/// Sets one host draining and fills another.
fn uneven_fleet() -> Arc<Inventory> {
    let inventory = fleet(20);
    inventory.adjust(7, |host| host.health = Health::Draining);
    inventory.adjust(8, |host| host.free_memory_mib = 511);
    inventory.adjust(9, |host| host.free_cpu_millis = 299);
    inventory
}

fn packing(deed: u64, seed: u64, why: WhyNative, error: &str) {
    let inventory = uneven_fleet();
    let native = Packing::new(&inventory, PackingConfig::default());
    let packing = Packing::new(&inventory, PackingConfig::default());
    packing.load(&PACKING).expect("it loads");
    RUNTIME.settle();
    let before = packing.status();

    let decided = packing.choose(&ABOUT, &fit_request(deed, seed));
    assert_eq!(decided.by, By::Native(why), "{deed:#x}: {}", packing.status().last_error);
    assert_eq!(decided.answer, native.choose(&ABOUT, &fit_request(deed, seed)).answer);
    check_status(&before, &packing.status(), why, error);

    // The instance in waiting is next, told of a change that came meanwhile.
    inventory.adjust(3, |host| host.free_memory_mib -= 1024);
    let decided = packing.choose(&ABOUT, &fit_request(GOOD, seed));
    assert_eq!(decided.by, By::Wasm);
    assert_eq!(decided.answer, native.choose(&ABOUT, &fit_request(GOOD, seed)).answer);
}

#[test]
fn packing_policies_that_do_not_answer() {
    packing(SPIN, 0, WhyNative::Fuel, "fuel");
    packing(TRAP, 0, WhyNative::Trap, "unreachable");
    packing(GROW, 0, WhyNative::Trap, "unreachable");
    packing(RECURSE, 0, WhyNative::Trap, "stack");
}

#[test]
fn packing_policies_that_answer_nonsense() {
    packing(UNKNOWN, 0, WhyNative::Invalid, "hosts listed, 8 wanted");
    packing(BY_SEED, 20, WhyNative::Invalid, "no host 20");
    packing(BY_SEED, 7, WhyNative::Invalid, "host 7 is not ready");
    packing(BY_SEED, 8, WhyNative::Invalid, "host 8 has not enough memory");
    packing(BY_SEED, 9, WhyNative::Invalid, "host 9 has not enough CPU");
    packing(OVERCOMMIT, 8, WhyNative::Invalid, "host 8 may not be overcommitted so far");
    packing(TWICE, 0, WhyNative::Invalid, "is listed twice");
    packing(TOO_LONG, 0, WhyNative::Invalid, "9 hosts listed, 8 wanted");
    packing(SCORE, 0, WhyNative::Invalid, "score above 1000");
}

/// Where fuel is plenty the wall clock still ends it.
#[test]
fn deadline() {
    let limits = Limits { decision_fuel: 1 << 60, decision_ms: 5, ..Limits::default() };
    let runtime = Runtime::start(limits).expect("the runtime starts");
    let packing = Packing::new(&fleet(20), PackingConfig::default());
    packing.load(&open_in(&runtime, Kind::Packing)).expect("it loads");
    runtime.settle();
    let before = packing.status();
    let decided = packing.choose(&ABOUT, &fit_request(SPIN, 0));
    assert_eq!((decided.by, decided.answer.best.len()), (By::Native(WhyNative::Timeout), 8));
    check_status(&before, &packing.status(), WhyNative::Timeout, "past its deadline of 5 ms");
}

/// Millions of entries are not copied out of the policy's memory to be counted.
#[test]
fn huge_answers() {
    // Building the list takes more fuel than a decision has ...
    packing(HUGE, 0, WhyNative::Fuel, "fuel");
    // ... and where fuel is plenty, what may be copied is not.
    let limits = Limits { decision_fuel: 1 << 40, decision_ms: Limits::LONGEST_MS, ..Limits::default() };
    let runtime = Runtime::start(limits).expect("the runtime starts");
    let packing = Packing::new(&fleet(20), PackingConfig::default());
    packing.load(&open_in(&runtime, Kind::Packing)).expect("it loads");
    let decided = packing.choose(&ABOUT, &fit_request(HUGE, 0));
    assert_eq!(decided.by, By::Native(WhyNative::Invalid), "{}", packing.status().last_error);
}

fn open_in(runtime: &Arc<Runtime>, kind: Kind) -> Arc<Policy> {
    let (envelope, key) = artefact(&component("warren-policy-hostile", &["--features", kind.as_str()]));
    Policy::open(runtime, "test", envelope, &[key]).expect("the policy opens")
}

fn place_request(function: u64, seed: u64) -> PlaceRequest {
    let fit = |host| Scored { host, score: 500, overcommit_mib: 0, siblings: 0, locality: 0 };
    let demand = Demand { function, memory_mib: 512, cpu_millis: 300, ..Demand::default() };
    PlaceRequest { now_ms: 1, seed, demand, fits: [1, 2, 3, 7, 8, 9].map(fit).into(), zones: Vec::new() }
}

fn placement(deed: u64, seed: u64, why: WhyNative, error: &str) {
    let inventory = uneven_fleet();
    let native = Placement::new(&inventory);
    let placement = Placement::new(&inventory);
    placement.load(&PLACEMENT).expect("it loads");
    RUNTIME.settle();
    let before = placement.status();

    let decided = placement.choose(&ABOUT, &place_request(deed, seed));
    assert_eq!(decided.by, By::Native(why), "{deed:#x}: {}", placement.status().last_error);
    assert_eq!(decided.answer, native.choose(&ABOUT, &place_request(deed, seed)).answer);
    check_status(&before, &placement.status(), why, error);
    assert_eq!(placement.choose(&ABOUT, &place_request(GOOD, seed)).by, By::Wasm);
}

#[test]
fn placement_policies() {
    placement(SPIN, 0, WhyNative::Fuel, "fuel");
    placement(TRAP, 0, WhyNative::Trap, "unreachable");
    placement(GROW, 0, WhyNative::Trap, "unreachable");
    placement(RECURSE, 0, WhyNative::Trap, "stack");
    placement(UNKNOWN, 0, WhyNative::Invalid, "not among the candidates");
    placement(BY_SEED, 4, WhyNative::Invalid, "host 4 was not among the candidates");
    placement(BY_SEED, 7, WhyNative::Invalid, "host 7 is not ready");
    placement(BY_SEED, 8, WhyNative::Invalid, "host 8 has not enough memory");
    placement(BY_SEED, 9, WhyNative::Invalid, "host 9 has not enough CPU");
}

/// A host that is gone since the request was made is no answer either.
#[test]
fn a_host_that_is_gone() {
    let inventory = fleet(20);
    let placement = Placement::new(&inventory);
    placement.load(&PLACEMENT).expect("it loads");
    inventory.remove("host-3");
    let decided = placement.choose(&ABOUT, &place_request(BY_SEED, 3));
    assert_eq!(decided.by, By::Native(WhyNative::Invalid));
    assert!(placement.status().last_error.contains("there is no host 3"));
}

#[test]
fn routing_policies() {
    let sandbox = IdleSandbox { index: 4, idle_ms: 10, ..IdleSandbox::default() };
    let request =
        |function| RouteRequest { now_ms: 1, seed: 1, function, zone: 0, idle: vec![sandbox], busy: 0 };
    let cases = [
        (SPIN, WhyNative::Fuel, "fuel"),
        (TRAP, WhyNative::Trap, "unreachable"),
        (UNKNOWN, WhyNative::Invalid, "no idle sandbox"),
    ];
    for (deed, why, error) in cases {
        let routing = Routing::new();
        routing.load(&ROUTING).expect("it loads");
        RUNTIME.settle();
        let before = routing.status();
        let decided = routing.choose(&ABOUT, &request(deed));
        assert_eq!(decided.by, By::Native(why));
        assert_eq!(decided.answer, Routing::new().choose(&ABOUT, &request(deed)).answer);
        check_status(&before, &routing.status(), why, error);
        assert_eq!(routing.choose(&ABOUT, &request(GOOD)).by, By::Wasm);
    }
    for (deed, why) in [(WEEKS, WhyNative::Invalid), (TRAP, WhyNative::Trap)] {
        let routing = Routing::new();
        routing.load(&ROUTING).expect("it loads");
        assert_eq!(routing.observe(&ABOUT, deed, 1).by, By::Native(why));
    }
}

/// Slow is not wrong: within the budget a policy may take its time.
#[test]
fn slow_within_the_budget() {
    let inventory = fleet(5);
    let placement = Placement::new(&inventory);
    placement.load(&PLACEMENT).expect("it loads");
    let decided = placement.choose(&ABOUT, &place_request(SLOW, 0));
    assert_eq!(decided.by, By::Wasm);
    assert!(decided.fuel > 20_000, "{}", decided.fuel);
}

/// The bits of a NaN are the same in every instance, and the same for every payload that went in: canonical.
#[test]
fn nan_bits_tell_nothing() {
    let inventory = fleet(5);
    let instances = [(); 2].map(|()| Placement::new(&inventory));
    let mut answers = Vec::new();
    for placement in &instances {
        placement.load(&PLACEMENT).expect("it loads");
        for seed in 0..8 {
            let mut request = place_request(NAN, seed);
            request.fits.truncate(3);
            let decided = placement.choose(&ABOUT, &request);
            assert_eq!(decided.by, By::Wasm);
            answers.push(decided.answer);
        }
    }
    // The one canonical NaN, as the policy reports it: no payload, no sign.
    let Place::On(choice) = answers[0] else { panic!("{answers:?}") };
    assert_eq!(choice.score, 0x7fc0_0000);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

/// A policy that fails again and again rests; decisions go on, and its state says so.
#[test]
fn a_policy_that_always_fails_rests() {
    let inventory = fleet(20);
    let placement = Placement::new(&inventory);
    placement.load(&PLACEMENT).expect("it loads");
    let mut reasons = Vec::new();
    for _ in 0..8 {
        let decided = placement.choose(&ABOUT, &place_request(TRAP, 0));
        let By::Native(why) = decided.by else { panic!("a trap decided") };
        reasons.push(why);
        RUNTIME.settle();
    }
    let (tried, rested) = reasons.split_at(4);
    assert_eq!(tried, [WhyNative::Trap; 4]);
    assert_eq!(rested, [WhyNative::Resting; 4]);
    let status = placement.status();
    assert_eq!(status.state, State::Fallback);
    assert_eq!((status.traps, status.unavailable, status.fallbacks), (4, 4, 8));
    assert!(status.last_error.contains("trap"));

    // A new policy starts with a clean record.
    placement.load(&PLACEMENT).expect("it loads");
    assert_eq!(placement.choose(&ABOUT, &place_request(GOOD, 0)).by, By::Wasm);
    assert_eq!(placement.status().state, State::Active);
}
