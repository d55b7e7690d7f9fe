//! The `policy` bench: what a decision costs, natively and as a component, for three sizes of fleet.
//!
//! Every decision comes with one change of the inventory, as in life: what was just placed. A sample is the time of a
//! batch of decisions over its size; native and Wasm batches alternate, so both see the same machine. `native-policy`
//! is the rules alone (the floor); `native-slot` is the engine without a policy, so that its own cost shows.
//!
//! Prints one JSON line a figure; `--table` prints people's form instead.
#![allow(clippy::expect_used, reason = "a bench that cannot go on ends")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use support::{builtin, fleet};
use warren_policy_engine::rules::{
    Delta, Demand, FitRequest, HostInfo, IdleSandbox, PackingConfig, PackingRules, PlaceRequest,
    PlacementRules, RouteRequest, RoutingRules, Scored,
};
use warren_policy_engine::{About, By, Inventory, Kind, Packing, Placement, Policy, Routing};

const BATCH: u32 = 64;
const SAMPLES: usize = 2_000;
const ABOUT: About<'_> = About { function: "thumbnail", request: "0190b7a2-0000-7000-8000-000000000000" };

fn main() {
    let table = std::env::args().any(|argument| argument == "--table");
    let mut figures = Vec::new();
    for kind in [Kind::Packing, Kind::Placement] {
        let policy = builtin(kind);
        let mut medians = Vec::new();
        for hosts in [64u32, 1_024, 10_240] {
            let measured = hosted(kind, &policy, hosts);
            medians.push((f64::from(hosts), measured.wasm.p50));
            figures.extend(measured.figures(&format!("{}-n{hosts}", kind.as_str())));
        }
        figures.push(slope(kind, &medians));
    }
    let policy = builtin(Kind::Routing);
    for idle in [1u32, 8, 64] {
        figures.extend(routed(&policy, idle).figures(&format!("routing-idle{idle}")));
    }
    for figure in figures {
        println!("{}", if table { figure.row() } else { figure.json() });
    }
}

/// One printed figure.
struct Figure {
    metric: String,
    unit: &'static str,
    quantiles: Quantiles,
    baseline: &'static str,
    ratio: f64,
}

impl Figure {
    fn json(&self) -> String {
        let Self { metric, unit, quantiles: Quantiles { p50, p99 }, baseline, ratio } = self;
        format!(
            r#"{{"bench":"policy","metric":"{metric}","unit":"{unit}","p50":{p50:.1},"p99":{p99:.1},"n":{SAMPLES},"baseline":"{baseline}","ratio":{ratio:.2},"host":"local"}}"#
        )
    }

    fn row(&self) -> String {
        let Self { metric, unit, quantiles: Quantiles { p50, p99 }, baseline, ratio } = self;
        format!("{metric:28} p50 {p50:8.1} {unit:6} p99 {p99:8.1} {unit:6} {ratio:6.2} x {baseline}")
    }
}

#[derive(Clone, Copy)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

struct Measured {
    rules: Quantiles,
    slot: Quantiles,
    wasm: Quantiles,
    fuel: u64,
}

impl Measured {
    fn figures(&self, name: &str) -> Vec<Figure> {
        let figure = |metric: String, unit, quantiles: Quantiles, baseline, floor: f64| Figure {
            metric,
            unit,
            quantiles,
            baseline,
            ratio: quantiles.p50 / floor,
        };
        #[expect(clippy::cast_precision_loss, reason = "some thousand units")]
        let fuel = self.fuel as f64;
        vec![
            figure(name.to_owned(), "ns", self.wasm, "native-policy", self.rules.p50),
            figure(format!("{name}-engine"), "ns", self.wasm, "native-slot", self.slot.p50),
            figure(format!("{name}-native"), "ns", self.rules, "native-policy", self.rules.p50),
            figure(format!("{name}-fuel"), "units", Quantiles { p50: fuel, p99: fuel }, "none", fuel),
        ]
    }
}

/// How much longer a decision takes for each doubling of the fleet, fitted; 1.00 is flat.
fn slope(kind: Kind, medians: &[(f64, f64)]) -> Figure {
    let points: Vec<_> = medians.iter().map(|(hosts, ns)| (hosts.log2(), ns.log2())).collect();
    #[expect(clippy::cast_precision_loss, reason = "three points")]
    let count = points.len() as f64;
    let (x, y) =
        points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let growth = (covariance / variance).exp2();
    let quantiles = Quantiles { p50: growth, p99: growth };
    Figure {
        metric: format!("{}-slope", kind.as_str()),
        unit: "x",
        quantiles,
        baseline: "flat",
        ratio: growth,
    }
}

fn hosted(kind: Kind, policy: &Arc<Policy>, hosts: u32) -> Measured {
    let inventory = fleet(hosts);
    let snapshot: Vec<HostInfo> = (0..hosts).filter_map(|host| inventory.get(host)).collect();
    if kind == Kind::Packing {
        let mut rules = PackingRules::new(PackingConfig::default());
        rules.snapshot(snapshot.iter().copied());
        let native = Packing::new(&inventory, PackingConfig::default());
        let wasm = Packing::new(&inventory, PackingConfig::default());
        wasm.load(policy).expect("it loads");
        let mut measured = measure(
            &inventory,
            hosts,
            |round, change| {
                rules.apply(Delta::Upsert(change));
                black_box(rules.choose(&fit_request(round)));
            },
            |round| _ = black_box(native.choose(&ABOUT, &fit_request(round))),
            |round| assert_eq!(black_box(wasm.choose(&ABOUT, &fit_request(round))).by, By::Wasm),
        );
        measured.fuel = wasm.status().fuel_p50;
        measured
    } else {
        let mut rules = PlacementRules::new();
        rules.snapshot(snapshot.iter().copied());
        let native = Placement::new(&inventory);
        let wasm = Placement::new(&inventory);
        wasm.load(policy).expect("it loads");
        let requests: Vec<_> = (0..BATCH).map(|round| place_request(round, hosts)).collect();
        let request = |round: u32| &requests[round as usize % requests.len()];
        let mut measured = measure(
            &inventory,
            hosts,
            |round, change| {
                rules.apply(Delta::Upsert(change));
                black_box(rules.choose(request(round)));
            },
            |round| _ = black_box(native.choose(&ABOUT, request(round))),
            |round| assert_eq!(black_box(wasm.choose(&ABOUT, request(round))).by, By::Wasm),
        );
        measured.fuel = wasm.status().fuel_p50;
        measured
    }
}

fn routed(policy: &Arc<Policy>, idle: u32) -> Measured {
    let rules = RoutingRules::new();
    let native = Routing::new();
    let wasm = Routing::new();
    wasm.load(policy).expect("it loads");
    let sandbox = |index: u32| IdleSandbox {
        index,
        idle_ms: index * 7919 % 600_000,
        invocations: index,
        zone: index % 3,
        host_load: index * 37 % 1000,
    };
    let idle = (0..idle).map(sandbox).collect();
    let request = RouteRequest { now_ms: 1, seed: 1, function: 7, zone: 1, idle, busy: 3 };
    let inventory = fleet(1);
    let mut measured = measure(
        &inventory,
        1,
        |_, _| _ = black_box(rules.choose(&request)),
        |_| _ = black_box(native.choose(&ABOUT, &request)),
        |_| assert_eq!(black_box(wasm.choose(&ABOUT, &request)).by, By::Wasm),
    );
    measured.fuel = wasm.status().fuel_p50;
    measured
}

/// Alternates batches of the three; what each decision would set aside is told before it.
fn measure(
    inventory: &Arc<Inventory>,
    hosts: u32,
    mut rules: impl FnMut(u32, HostInfo),
    mut slot: impl FnMut(u32),
    mut wasm: impl FnMut(u32),
) -> Measured {
    let mut samples = [const { Vec::new() }; 3];
    let mut round = 0u32;
    for sample in 0..SAMPLES + SAMPLES / 10 {
        let mut times = [0u128; 3];
        for _ in 0..BATCH {
            round = round.wrapping_add(1);
            let host = round.wrapping_mul(7919) % hosts;
            inventory
                .adjust(host, |host| host.free_memory_mib = host.free_memory_mib.wrapping_sub(64) % 16_384);
            let change = inventory.get(host).unwrap_or_default();
            let mut step = |at: usize, run: &mut dyn FnMut()| {
                let started = Instant::now();
                run();
                times[at] += started.elapsed().as_nanos();
            };
            step(0, &mut || rules(round, change));
            step(1, &mut || slot(round));
            step(2, &mut || wasm(round));
        }
        // The first tenth warms caches and pages.
        if sample >= SAMPLES / 10 {
            for (samples, time) in samples.iter_mut().zip(times) {
                #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a batch")]
                samples.push(time as f64 / f64::from(BATCH));
            }
        }
    }
    let [rules, slot, wasm] = samples.map(quantiles);
    Measured { rules, slot, wasm, fuel: 0 }
}

fn quantiles(mut samples: Vec<f64>) -> Quantiles {
    samples.sort_by(f64::total_cmp);
    let at = |share: usize| samples[(samples.len() - 1) * share / 100];
    Quantiles { p50: at(50), p99: at(99) }
}

fn demand(round: u32) -> Demand {
    Demand {
        function: u64::from(round % 97),
        memory_mib: 128 << (round % 4),
        cpu_millis: 72 << (round % 4),
        memory_used_p50_mib: 60,
        memory_used_p99_mib: 110,
        concurrency_p50: 1,
        concurrency_p99: 9,
    }
}

fn fit_request(round: u32) -> FitRequest {
    FitRequest { now_ms: 1, seed: u64::from(round), demand: demand(round), shortlist: 8 }
}

fn place_request(round: u32, hosts: u32) -> PlaceRequest {
    let fit = |at: u32| Scored {
        host: (round * 31 + at * 7) % hosts,
        score: 900 - at * 20,
        overcommit_mib: 0,
        siblings: at % 3,
        locality: at * 100,
    };
    PlaceRequest {
        now_ms: 1,
        seed: u64::from(round),
        demand: demand(round),
        fits: (0..8).map(fit).collect(),
        zones: vec![],
    }
}
