//! What the built-in rules decide, case by case.

use warren_policy_rules::{
    Delta, Demand, FitRequest, Health, HostInfo, IdleSandbox, PackingConfig, PackingRules, Place,
    PlaceRequest, PlacementRules, Reason, Route, RouteRequest, RoutingRules, Scored, ZoneSiblings,
};

/// Free memory of an 8 GiB host, and its sandboxes.
fn host(index: u32, free_memory_mib: u32, sandboxes: u32) -> HostInfo {
    HostInfo {
        index,
        health: Health::Ready,
        memory_mib: 8192,
        free_memory_mib,
        cpu_millis: 8192,
        free_cpu_millis: free_memory_mib,
        sandboxes,
        ..HostInfo::default()
    }
}

fn demand(memory_mib: u32) -> Demand {
    Demand { memory_mib, cpu_millis: memory_mib, ..Demand::default() }
}

fn packs(config: PackingConfig, hosts: &[HostInfo], demand: Demand, expected: &[u32]) {
    let mut rules = PackingRules::new(config);
    rules.snapshot(hosts.iter().copied());
    let fits = rules.choose(&FitRequest { demand, shortlist: 8, ..FitRequest::default() });
    let hosts: Vec<_> = fits.best.iter().map(|fit| fit.host).collect();
    assert_eq!(hosts, expected, "{:?}", fits.best);
}

#[test]
fn packing_prefers_the_tightest_and_empties_hosts() {
    let config = PackingConfig::default();
    packs(config, &[], demand(128), &[]);
    packs(config, &[host(0, 4096, 8), host(1, 1024, 8), host(2, 2048, 8)], demand(512), &[1, 2, 0]);
    // Empty ones come last, also where they are smaller.
    let small = HostInfo { memory_mib: 1024, ..host(0, 1024, 0) };
    packs(config, &[small, host(1, 8000, 1)], demand(512), &[1, 0]);
    // No room, no CPU, not ready.
    packs(config, &[host(0, 511, 1)], demand(512), &[]);
    packs(config, &[HostInfo { free_cpu_millis: 511, ..host(0, 4096, 1) }], demand(512), &[]);
    packs(config, &[HostInfo { health: Health::Draining, ..host(0, 4096, 1) }], demand(512), &[]);
    packs(config, &[HostInfo { health: Health::NotReady, ..host(0, 4096, 1) }], demand(512), &[]);
}

#[test]
fn packing_fills_memory_and_cpu_evenly() {
    let even = host(0, 2048, 4);
    let lopsided = HostInfo { free_cpu_millis: 8000, ..host(1, 2048, 4) };
    packs(PackingConfig::default(), &[lopsided, even], demand(512), &[0, 1]);
}

#[test]
fn packing_keeps_away_from_mixes_that_may_outgrow_their_host() {
    let calm = HostInfo { used_p50_mib: 2000, used_spread_mib: 100, ..host(1, 2048, 8) };
    let wild = HostInfo { used_p50_mib: 6000, used_spread_mib: 1500, ..host(0, 2048, 8) };
    packs(PackingConfig::default(), &[wild, calm], demand(512), &[1, 0]);
}

#[test]
fn packing_promises_unused_memory_again_only_where_allowed_and_known() {
    let idle_mix =
        HostInfo { used_p50_mib: 1000, used_spread_mib: 100, free_cpu_millis: 4096, ..host(0, 256, 30) };
    let unknown = HostInfo { free_cpu_millis: 4096, ..host(1, 256, 30) };
    let full_mix = HostInfo { used_p50_mib: 7000, used_spread_mib: 100, ..idle_mix };
    let allowed = PackingConfig::parse("overcommit-percent=25 other=7 nonsense");
    packs(PackingConfig::default(), &[idle_mix, unknown], demand(512), &[]);
    packs(allowed, &[idle_mix, unknown], demand(512), &[0]);
    packs(allowed, &[full_mix], demand(512), &[]);
    let mut rules = PackingRules::new(allowed);
    rules.snapshot([idle_mix]);
    let fits = rules.choose(&FitRequest { demand: demand(512), shortlist: 1, ..FitRequest::default() });
    assert_eq!(fits.best[0].overcommit_mib, 256);
    assert!(fits.best[0].overcommit_mib <= rules.most_overcommit(&idle_mix));
}

/// What changes is what counts: no trace is left of what a host was before.
#[test]
fn packing_follows_changes() {
    let mut rules = PackingRules::default();
    rules.apply(Delta::Upsert(host(3, 4096, 1)));
    rules.apply(Delta::Upsert(host(3, 100, 1)));
    rules.apply(Delta::Upsert(host(5, 4096, 0)));
    rules.apply(Delta::Removed(9));
    let request = FitRequest { demand: demand(512), shortlist: 8, ..FitRequest::default() };
    assert_eq!(rules.choose(&request).best[0].host, 5);
    rules.apply(Delta::Removed(5));
    assert!(rules.choose(&request).best.is_empty());
    rules.apply(Delta::Upsert(HostInfo { index: u32::MAX, ..host(0, 4096, 0) }));
    assert_eq!(rules.hosts().len(), 1);
}

fn scored(host: u32, score: u32, siblings: u32, locality: u32) -> Scored {
    Scored { host, score, overcommit_mib: 0, siblings, locality }
}

fn places(hosts: &[HostInfo], fits: &[Scored], zones: &[(u32, u32)], expected: Option<(u32, Reason)>) {
    let mut rules = PlacementRules::new();
    rules.snapshot(hosts.iter().copied());
    let request = PlaceRequest {
        demand: demand(512),
        fits: fits.to_vec(),
        zones: zones
            .iter()
            .map(|(zone, siblings)| ZoneSiblings { zone: *zone, siblings: *siblings })
            .collect(),
        ..PlaceRequest::default()
    };
    let place = match rules.choose(&request) {
        Place::On(choice) => Some((choice.host, choice.reason)),
        Place::NeedHost => None,
    };
    assert_eq!(place, expected);
}

#[test]
fn placement_weighs_fit_spread_locality_and_load() {
    let in_zone = |index, zone| HostInfo { zone, ..host(index, 4096, 4) };
    let hosts = [in_zone(0, 0), in_zone(1, 1), in_zone(2, 0)];
    // All else equal, the packing policy's order.
    places(&hosts, &[scored(0, 800, 0, 0), scored(1, 700, 0, 0)], &[], Some((0, Reason::BestFit)));
    // Two siblings in zone 0, none in zone 1: the loss of a zone must not lose the function.
    let fits = [scored(0, 800, 1, 0), scored(1, 700, 0, 0)];
    places(&hosts, &fits, &[(0, 2)], Some((1, Reason::ZoneSpread)));
    // Same zone: another host.
    let fits = [scored(0, 800, 4, 0), scored(2, 750, 0, 0)];
    places(&hosts, &fits, &[(0, 4)], Some((2, Reason::HostSpread)));
    // The bytes are there already.
    let fits = [scored(0, 800, 0, 0), scored(2, 700, 0, 1000)];
    places(&hosts, &fits, &[], Some((2, Reason::Locality)));
    // Busy or idle.
    let busy = HostInfo { busy: 4, ..in_zone(0, 0) };
    let fits = [scored(0, 800, 0, 0), scored(2, 790, 0, 0)];
    places(&[busy, in_zone(2, 0)], &fits, &[], Some((2, Reason::LessLoaded)));
}

#[test]
fn placement_asks_for_a_host_when_none_will_do() {
    places(&[], &[], &[], None);
    places(&[host(0, 4096, 0)], &[], &[], None);
    places(&[host(0, 4096, 0)], &[scored(7, 1000, 0, 0)], &[], None);
    places(&[host(0, 511, 0)], &[scored(0, 1000, 0, 0)], &[], None);
    let draining = HostInfo { health: Health::Draining, ..host(0, 4096, 0) };
    places(
        &[draining, host(1, 4096, 0)],
        &[scored(0, 1000, 0, 0), scored(1, 1, 0, 0)],
        &[],
        Some((1, Reason::BestFit)),
    );
}

fn routes(idle: &[(u32, u32, u32, u32)], expected: Route) {
    let idle = idle.iter().map(|(index, idle_ms, zone, host_load)| IdleSandbox {
        index: *index,
        idle_ms: *idle_ms,
        invocations: 0,
        zone: *zone,
        host_load: *host_load,
    });
    let request = RouteRequest { zone: 1, idle: idle.collect(), ..RouteRequest::default() };
    assert_eq!(RoutingRules::new().choose(&request), expected);
}

#[test]
fn routing_takes_the_most_recent_of_the_callers_zone() {
    routes(&[], Route::StartNew);
    routes(&[(4, 100, 1, 0), (5, 50, 1, 0), (6, 70, 1, 0)], Route::To(5));
    routes(&[(4, 100, 1, 0), (5, 50, 0, 0)], Route::To(4));
    routes(&[(4, 100, 0, 0), (5, 50, 2, 0)], Route::To(5));
    // A saturated host is the last resort, and still better than a cold start.
    routes(&[(4, 1, 1, 990), (5, 50, 0, 0)], Route::To(5));
    routes(&[(4, 1, 1, 990)], Route::To(4));
    // Equal in all: the lowest number.
    routes(&[(9, 5, 1, 0), (8, 5, 1, 0)], Route::To(8));
}
