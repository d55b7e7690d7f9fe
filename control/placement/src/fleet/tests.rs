use super::*;
use crate::{Observations, express};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{
    task::{Context, Waker},
    time::SystemTime,
};
use warren_identity::{Credentials, HostId, Line, Peer, Service, ensure_local_at};
use warren_proto::v1::{FunctionLimits, HostResources, Kind, Network, Runtime, Sandbox};

/// Wires that nobody answers: these tests never call.
fn wires(address: &str) -> Result<Wires, tonic::transport::Error> {
    let (dir, host) = (tempfile::tempdir().unwrap(), HostId::from_any("host"));
    ensure_local_at(dir.path(), Some(host.clone()), SystemTime::now()).unwrap();
    let credentials = Credentials::load(dir.path(), Service::Control).unwrap();
    let peer = Peer::Worker(host);
    let general = Line::new(credentials.clone(), &peer, address, |endpoint| endpoint)?;
    Ok(Wires { general, express: express(address, &peer, credentials) })
}

fn runtime(name: &str, digest: &str) -> Runtime {
    Runtime { name: name.into(), digest: digest.into() }
}

/// A host that runs Linux guests unless it says why not.
fn host(fleet: &Fleet, id: &str, no_linux_because: &str, runtimes: &[Runtime]) {
    let mut guests = vec!["wasm".to_owned()];
    if no_linux_because.is_empty() {
        guests.push("linux".to_owned());
    }
    let resources = HostResources {
        cpu_millis: 4000,
        memory_mib: 1024,
        guests,
        no_linux_because: no_linux_because.into(),
        ..HostResources::default()
    };
    let request = RegisterWorkerRequest {
        host_id: id.into(),
        address: "127.0.0.1:1".into(),
        resources: Some(resources),
        runtimes: runtimes.to_vec(),
        ..RegisterWorkerRequest::default()
    };
    fleet.register(&request, Instant::now(), wires).unwrap();
}

fn linux(runtime: &str, build: &str) -> FunctionVersion {
    FunctionVersion {
        name: "f".into(),
        kind: Kind::Linux.into(),
        runtime: runtime.into(),
        runtime_digest: build.into(),
        limits: Some(FunctionLimits { memory_mib: 256, ..FunctionLimits::default() }),
        ..FunctionVersion::default()
    }
}

fn place(fleet: &Fleet, version: &FunctionVersion) -> Result<String, NoPlace> {
    let wanted = Wanted { version, request_id: "r", observed: Observations::default() };
    fleet.place(&wanted, &Siblings::new()).map(|worker| worker.id().to_string())
}

#[tokio::test]
async fn linux_functions_go_where_they_can_run() {
    let fleet = Fleet::default();
    assert_eq!(place(&fleet, &linux("python", "")), Err(NoPlace::NoWorker));
    host(&fleet, "soft", "guest kernels are interpreted", &[]);
    let error = place(&fleet, &linux("python", "")).unwrap_err();
    assert!(error.to_string().contains("soft: guest kernels are interpreted"), "{error}");
    assert!(fleet.any_for(&FunctionVersion::default()).is_ok(), "a Wasm function runs there");
    host(&fleet, "base", "", &[runtime("base", "a1")]);
    let error = place(&fleet, &linux("python", "b1")).unwrap_err();
    assert!(matches!(&error, NoPlace::NoRuntime { name, build: None } if name == "python"), "{error}");
    host(&fleet, "python", "", &[runtime("python", "b1"), runtime("python", "b0")]);
    // Whatever the policies would rather have: never where it cannot run, and until there is no room left.
    for build in ["", "b1", "b0"] {
        assert_eq!(place(&fleet, &linux("python", build)), Ok("python".into()), "{build}");
    }
    assert!(matches!(place(&fleet, &linux("python", "b2")), Err(NoPlace::NoRuntime { .. })));
    assert_eq!(place(&fleet, &linux("python", "b1")), Ok("python".into()));
    assert_eq!(place(&fleet, &linux("python", "b1")), Err(NoPlace::NoRoom { memory_mib: 256 }));
    assert_eq!(place(&fleet, &linux("base", "a1")), Ok("base".into()));
}

#[tokio::test]
async fn outbound_network_is_a_hard_limit_only_where_it_is_asked_for() {
    let fleet = Fleet::default();
    let cannot = |no_network_because: &str, id: &str| {
        let resources = HostResources {
            memory_mib: 1024,
            guests: vec!["linux".into()],
            no_network_because: no_network_because.into(),
            ..HostResources::default()
        };
        let request = RegisterWorkerRequest {
            host_id: id.into(),
            address: "127.0.0.1:1".into(),
            resources: Some(resources),
            runtimes: vec![runtime("base", "a1")],
            ..RegisterWorkerRequest::default()
        };
        fleet.register(&request, Instant::now(), wires).unwrap();
    };
    cannot("no nftables", "alone");
    let outbound = FunctionVersion { network: Network::Outbound.into(), ..linux("base", "a1") };
    let error = place(&fleet, &outbound).unwrap_err();
    assert_eq!(error, NoPlace::NoNetwork("alone: no nftables".into()));
    assert_eq!(place(&fleet, &linux("base", "a1")), Ok("alone".into()));
    cannot("", "connected");
    assert_eq!(place(&fleet, &outbound), Ok("connected".into()));
}

/// More hosts that cannot than a policy's shortlist has places: the one that can is found all the same.
#[tokio::test]
async fn the_one_among_many() {
    let fleet = Fleet::default();
    for number in 0..40 {
        host(&fleet, &format!("w{number}"), "no", &[]);
    }
    host(&fleet, "z", "", &[runtime("base", "a1")]);
    for _ in 0..4 {
        assert_eq!(place(&fleet, &linux("base", "a1")), Ok("z".into()));
    }
    assert_eq!(place(&fleet, &linux("base", "a1")), Err(NoPlace::NoRoom { memory_mib: 256 }));
}

#[tokio::test]
async fn only_more_free_memory_of_a_host_that_takes_sandboxes_is_more_room() {
    let fleet = Fleet::default();
    let rings = |what: &str, act: &dyn Fn(), expected: bool| {
        let mut more_room = std::pin::pin!(fleet.more_room());
        act();
        let rang = more_room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert_eq!(rang, expected, "{what}");
    };
    let says = |host: &str, free_memory_mib: u64| {
        let report =
            HeartbeatRequest { host_id: host.into(), free_memory_mib, ..HeartbeatRequest::default() };
        fleet.heartbeat(&report, Instant::now());
    };
    rings("a new host", &|| host(&fleet, "a", "", &[]), true);
    rings("nothing new", &|| says("a", 1024), false);
    rings("less", &|| says("a", 256), false);
    rings("the same", &|| says("a", 256), false);
    rings("more", &|| says("a", 257), true);
    rings("a sandbox ended", &|| fleet.returned("a", 128), true);
    rings("taken out of service", &|| drop(fleet.set_drained("a", true)), false);
    rings("more, of no use", &|| says("a", 1024), false);
    rings("a sandbox ended, of no use", &|| fleet.returned("a", 128), false);
    rings("back in service", &|| drop(fleet.set_drained("a", false)), true);
}

/// A host may say any numbers of itself: nothing overflows, and a sandbox finds a place or none.
#[tokio::test]
async fn any_figures_are_borne() {
    let fleet = Fleet::default();
    let (long, word) = (|| prop_oneof![Just(0), 0..20_000_u64, any::<u64>()], any::<u32>());
    let of_host = (word, long(), 0..4_u32);
    let beat = (long(), any::<u32>(), any::<u32>(), any::<u32>(), long(), long());
    let sandbox = prop_oneof![Just(0), 128..10_240_u32, any::<u32>()];
    let lives = (of_host, beat, sandbox.clone(), sandbox);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(500));
    let any = runner.run(&lives, |((cpu_millis, memory_mib, zone), beat, promised, wanted)| {
        for id in ["a", "b"] {
            let resources =
                HostResources { cpu_millis, memory_mib, zone: zone.to_string(), ..HostResources::default() };
            let request = RegisterWorkerRequest {
                host_id: id.into(),
                address: "127.0.0.1:1".into(),
                resources: Some(resources),
                sandboxes: vec![Sandbox { memory_mib: promised, ..Sandbox::default() }; 3],
                ..RegisterWorkerRequest::default()
            };
            fleet.register(&request, Instant::now(), wires).unwrap();
        }
        let (free_memory_mib, sandboxes, busy, load, used_memory_mib, used_memory_spread_mib) = beat;
        let beat = HeartbeatRequest {
            host_id: "a".into(),
            free_memory_mib,
            sandboxes,
            busy,
            load,
            used_memory_mib,
            used_memory_spread_mib,
            ..HeartbeatRequest::default()
        };
        prop_assert!(fleet.heartbeat(&beat, Instant::now()));
        let limits = Some(FunctionLimits { memory_mib: wanted, ..FunctionLimits::default() });
        let version = FunctionVersion { name: "f".into(), limits, ..FunctionVersion::default() };
        let placed = place(&fleet, &version);
        prop_assert!(matches!(placed, Ok(_) | Err(NoPlace::NoRoom { .. })), "{placed:?}");
        for id in ["a", "b"] {
            fleet.returned(id, wanted);
        }
        prop_assert!(fleet.get("a").unwrap().glance().load <= 1000);
        Ok(())
    });
    any.unwrap();
}
