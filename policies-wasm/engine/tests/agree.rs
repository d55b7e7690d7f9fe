//! Native and Wasm are one set of rules: equal on every log, and so are two instances of a component.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use support::builtin;
use warren_policy_engine::rules::{
    Demand, FitRequest, Health, IdleSandbox, PackingConfig, PlaceRequest, RouteRequest, Scored, ZoneSiblings,
};
use warren_policy_engine::{About, By, HostReport, Inventory, Kind, Packing, Placement, Policy, Routing};

static PACKING: LazyLock<Arc<Policy>> = LazyLock::new(|| builtin(Kind::Packing));
static PLACEMENT: LazyLock<Arc<Policy>> = LazyLock::new(|| builtin(Kind::Placement));
static ROUTING: LazyLock<Arc<Policy>> = LazyLock::new(|| builtin(Kind::Routing));

#[derive(Debug, Clone)]
enum Step {
    Report(u32, HostReport),
    Remove(u32),
    Place { seed: u64, demand: Demand, shortlist: u32, siblings: u32, locality: u32 },
    Reload,
}

fn report() -> impl Strategy<Value = HostReport> {
    (
        (0..4u32, 0..3u32, 0..40_000u32, 0..40_000u32),
        (0..64_000u32, 0..64_000u32, 0..20_000u32, 0..4_000u32, 0..50u32, 0..50u32),
    )
        .prop_map(|((zone, health, memory, free), (cpu, free_cpu, p50, spread, sandboxes, busy))| {
            HostReport {
                zone,
                health: [Health::NotReady, Health::Ready, Health::Draining][health as usize],
                memory_mib: memory,
                free_memory_mib: free,
                cpu_millis: cpu,
                free_cpu_millis: free_cpu,
                used_p50_mib: p50,
                used_spread_mib: spread,
                sandboxes,
                busy,
            }
        })
}

fn demand() -> impl Strategy<Value = Demand> {
    (any::<u64>(), 0..12_000u32, 0..8_000u32, 0..8_000u32, 0..12_000u32).prop_map(
        |(function, memory_mib, cpu_millis, p50, p99)| Demand {
            function,
            memory_mib,
            cpu_millis,
            memory_used_p50_mib: p50,
            memory_used_p99_mib: p99,
            concurrency_p50: 1,
            concurrency_p99: 9,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..200u32, report()).prop_map(|(host, report)| Step::Report(host, report)),
        1 => (0..200u32).prop_map(Step::Remove),
        8 => (any::<u64>(), demand(), 0..70u32, 0..9u32, 0..1200u32).prop_map(
            |(seed, demand, shortlist, siblings, locality)| Step::Place { seed, demand, shortlist, siblings, locality }
        ),
        1 => Just(Step::Reload),
    ]
}

const ABOUT: About<'_> = About { function: "f", request: "r" };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn packing_and_placement(overcommit_percent in 0..60u32, steps in proptest::collection::vec(step(), 1..120)) {
        let inventory = Inventory::new();
        let config = PackingConfig { overcommit_percent };
        let native = (Packing::new(&inventory, config), Placement::new(&inventory));
        let wasm = [(); 2].map(|()| (Packing::new(&inventory, config), Placement::new(&inventory)));
        for (packing, placement) in &wasm {
            packing.load(&PACKING).expect("packing loads");
            placement.load(&PLACEMENT).expect("placement loads");
        }
        for step in steps {
            match step {
                Step::Report(host, report) => {
                    inventory.report(&host.to_string(), report).expect("there is room");
                }
                Step::Remove(host) => {
                    inventory.remove(&host.to_string());
                }
                // A fresh instance, told by a snapshot, must decide as one that was told by changes.
                Step::Reload => {
                    wasm[1].0.load(&PACKING).expect("packing loads");
                    wasm[1].1.load(&PLACEMENT).expect("placement loads");
                }
                Step::Place { seed, demand, shortlist, siblings, locality } => {
                    let request = FitRequest { now_ms: 1, seed, demand, shortlist };
                    let fits = native.0.choose(&ABOUT, &request).answer;
                    for (packing, _) in &wasm {
                        let decided = packing.choose(&ABOUT, &request);
                        prop_assert_eq!(decided.by, By::Wasm);
                        prop_assert_eq!(&decided.answer, &fits);
                    }
                    let scored = |(at, fit)| Scored::of(fit, siblings * at % 7, locality * at % 1001);
                    let request = PlaceRequest {
                        now_ms: 1,
                        seed,
                        demand,
                        fits: (0u32..).zip(fits.best.iter().copied()).map(scored).collect(),
                        zones: (0..siblings).map(|zone| ZoneSiblings { zone, siblings: zone * 2 }).collect(),
                    };
                    let place = native.1.choose(&ABOUT, &request).answer;
                    for (_, placement) in &wasm {
                        let decided = placement.choose(&ABOUT, &request);
                        prop_assert_eq!(decided.by, By::Wasm);
                        prop_assert_eq!(decided.answer, place);
                    }
                }
            }
        }
    }

    #[test]
    fn routing(
        requests in proptest::collection::vec(
            (
                0..6u64,
                0..3u32,
                proptest::collection::vec((0..90u32, 0..5_000u32, 0..9u32, 0..3u32, 0..1001u32), 0..64),
                0..20_000_000u64,
            ),
            1..100,
        )
    ) {
        let native = Routing::new();
        let wasm = Routing::new();
        wasm.load(&ROUTING).expect("routing loads");
        let mut now_ms = 1_000_000;
        for (function, zone, idle, gap_ms) in requests {
            now_ms += gap_ms;
            let sandbox = |(index, idle_ms, invocations, zone, host_load)| {
                IdleSandbox { index, idle_ms, invocations, zone, host_load }
            };
            let idle = idle.into_iter().map(sandbox).collect();
            let request = RouteRequest { now_ms, seed: 1, function, zone, idle, busy: 2 };
            let decided = wasm.choose(&ABOUT, &request);
            prop_assert_eq!(decided.by, By::Wasm);
            prop_assert_eq!(decided.answer, native.choose(&ABOUT, &request).answer);
            let decided = wasm.observe(&ABOUT, function, now_ms);
            prop_assert_eq!(decided.by, By::Wasm);
            prop_assert_eq!(decided.answer, native.observe(&ABOUT, function, now_ms).answer);
        }
    }
}
