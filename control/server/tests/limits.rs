//! Limits, lost clients, lost workers, restarts: nothing is ever over, nothing is ever lost.

#![allow(clippy::unwrap_used, reason = "a test's panics are its report")]

mod world;

use std::{sync::Arc, time::Duration};
use tonic::{Code, transport::Endpoint};
use warren_identity::{Peer, Service, client_tls};
use warren_proto::{
    error::Fault,
    reason,
    v1::{
        HeartbeatRequest, ListHostsRequest, RegisterWorkerRequest, Sandbox, SandboxState, StatusRequest,
        fleet_service_client::FleetServiceClient,
    },
};
use world::{ScriptedWorker, World, refused, request, wire};

async fn running(world: &World) -> u32 {
    wire(world.admin().status(StatusRequest {}).await).unwrap().running
}

#[tokio::test]
async fn concurrency_stops_at_the_limit_with_a_reason_and_a_hint() {
    let world = Arc::new(World::start(5));
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("reserved", Some(2)).await.unwrap();
    world.create("other", None).await.unwrap();
    let cases = [("reserved", 2, reason::FUNCTION_CONCURRENCY), ("other", 3, reason::ACCOUNT_CONCURRENCY)];
    let mut held = Vec::new();
    for (function, limit, reason) in cases {
        for at in 0..limit {
            let world = Arc::clone(&world);
            held.push(tokio::spawn(async move { world.invoke(function, &format!("hold-{at}")).await }));
        }
        world.until(|| async { worker.peak(function) }, |peak| *peak == limit).await;
        let refusal = world.invoke(function, "one too many").await;
        let hint = refusal.as_ref().unwrap_err().retry_after;
        assert!(hint.is_some_and(|hint| !hint.is_zero()), "{hint:?}");
        refused(refusal, Code::ResourceExhausted, reason, Fault::Throttle);
    }
    assert_eq!(running(&world).await, 5);
    worker.hold.add_permits(5);
    for call in held {
        call.await.unwrap().unwrap();
    }
    assert_eq!(running(&world).await, 0);
    for (function, limit, _) in cases {
        assert_eq!(world.invoke(function, "again").await.unwrap().payload, "again");
        assert_eq!(worker.peak(function), limit);
    }
}

#[tokio::test]
async fn a_client_that_leaves_keeps_its_slot_until_the_worker_is_done() {
    let world = World::start(1);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    {
        let mut client = world.invokes();
        let call = client.invoke(request("f", "hold"));
        tokio::select! {
            _ = call => panic!("it holds"),
            _ = world.until(|| async { worker.running() }, |count| *count == 1) => {}
        }
    }
    // The call is dropped and its connection with it; the worker still runs it.
    refused(
        world.invoke("f", "x").await,
        Code::ResourceExhausted,
        reason::ACCOUNT_CONCURRENCY,
        Fault::Throttle,
    );
    assert_eq!((worker.running(), running(&world).await), (1, 1));
    worker.hold.add_permits(1);
    world.until(|| running(&world), |count| *count == 0).await;
    let next = world.invoke("f", "next").await.unwrap();
    assert!(!next.timing.unwrap().cold, "the sandbox lives on");
}

#[tokio::test]
async fn a_lost_worker_fails_its_calls_and_its_slots_wait_for_their_timeout() {
    let world = Arc::new(World::start(1));
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let call = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.invoke("f", "hold").await }
    });
    world.until(|| async { worker.running() }, |count| *count == 1).await;
    worker.die();
    let its_own = worker.sandboxes();
    let failed = call.await.unwrap();
    assert!(failed.as_ref().is_err_and(|error| error.retryable));
    refused(failed, Code::Unavailable, reason::WORKER_LOST, Fault::System);
    // What ran there may run still, as far as anybody knows; nor does another host's word end it.
    let at_the_limit = async || {
        let call = world.invoke("f", "x").await;
        refused(call, Code::ResourceExhausted, reason::ACCOUNT_CONCURRENCY, Fault::Throttle);
    };
    at_the_limit().await;
    let tls = client_tls(&world.identity_of("w2"), Service::Agent, &Peer::Control).unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{}", world.control)).unwrap();
    let mut other = FleetServiceClient::new(endpoint.tls_config(tls).unwrap().connect_lazy());
    let dead = |sandbox: Sandbox| Sandbox { state: SandboxState::Dead.into(), ..sandbox };
    let sandboxes: Vec<_> = its_own.into_iter().map(dead).collect();
    assert_eq!(sandboxes.len(), 1);
    let lie = RegisterWorkerRequest { sandboxes, ..worker.registration("w2") };
    wire(other.register_worker(lie).await).unwrap();
    at_the_limit().await;
    let hosts = || async { wire(world.admin().list_hosts(ListHostsRequest {}).await).unwrap().hosts };
    world.until(hosts, |hosts| hosts.iter().all(|host| host.state == "lost")).await;
    // It comes back without that sandbox, which settles it.
    let _back = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.until(|| running(&world), |count| *count == 0).await;
    assert!(world.invoke("f", "fine").await.unwrap().timing.unwrap().cold);
}

#[tokio::test]
async fn a_restart_loses_no_configuration_adopts_sandboxes_and_counts_what_still_runs() {
    let mut world = World::start(1);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    let made = world.create("f", None).await.unwrap();
    let mut client = world.invokes();
    let call = tokio::spawn(async move { client.invoke(request("f", "hold")).await });
    world.until(|| async { worker.running() }, |count| *count == 1).await;
    world.kill_and_restart();
    assert!(call.await.unwrap().is_err());
    let kept = warren_proto::v1::GetFunctionRequest { name: "f".to_owned() };
    assert_eq!(wire(world.functions().get_function(kept).await).unwrap(), made);
    worker.report_to(&world.identity_dir(), world.control).await;
    // The invocation of the last life still runs, so the limit of one is reached.
    refused(
        world.invoke("f", "x").await,
        Code::ResourceExhausted,
        reason::ACCOUNT_CONCURRENCY,
        Fault::Throttle,
    );
    worker.hold.add_permits(1);
    world.until(|| async { world.invoke("f", "y").await }, Result::is_ok).await.unwrap();
    assert_eq!(worker.sandboxes().len(), 1, "adopted, not made anew");
    assert!(world.terminate(), "a clean stop on SIGTERM");
}

#[tokio::test]
async fn a_worker_can_only_speak_for_itself() {
    let world = World::start(1);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    let endpoint = Endpoint::from_shared(format!("https://{}", world.control)).unwrap();
    let tls = client_tls(&world.identity_dir(), Service::Agent, &Peer::Control).unwrap();
    let mut as_agent = FleetServiceClient::new(endpoint.tls_config(tls).unwrap().connect_lazy());
    let other = worker.register(&mut as_agent, "w2").await;
    assert_eq!(other.unwrap_err().code(), Code::PermissionDenied);
    let mut as_client = FleetServiceClient::new(world.channel());
    let nobody = worker.register(&mut as_client, "w1").await;
    assert_eq!(nobody.unwrap_err().code(), Code::PermissionDenied);
}

/// What a host says of itself is judged, whoever vouches for the host; what it said before stands.
#[tokio::test]
async fn a_worker_that_makes_things_up_is_refused_by_name() {
    let world = World::start(1);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let tls = client_tls(&world.identity_dir(), Service::Agent, &Peer::Control).unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{}", world.control)).unwrap();
    let mut fleet = FleetServiceClient::new(endpoint.tls_config(tls).unwrap().connect_lazy());
    let sandbox = |id: &str| Sandbox { id: id.to_owned(), function: "f".to_owned(), ..Default::default() };
    let made_up = [
        RegisterWorkerRequest { sandboxes: vec![sandbox("../../x")], ..worker.registration("w1") },
        RegisterWorkerRequest { builder_key: vec![0; 31].into(), ..worker.registration("w1") },
        RegisterWorkerRequest { address: "h".repeat(1 << 20), ..worker.registration("w1") },
    ];
    for request in made_up {
        let refusal = wire(fleet.register_worker(request).await);
        refused(refusal, Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    }
    let changed = vec![sandbox(&"s".repeat(1 << 20))];
    let beat = HeartbeatRequest { host_id: "w1".to_owned(), changed, ..Default::default() };
    refused(wire(fleet.heartbeat(beat).await), Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    assert_eq!(world.invoke("f", "still").await.unwrap().payload, "still");
}

#[tokio::test]
async fn room_is_made_by_letting_go_of_what_is_idle() {
    // The worker has room for eight sandboxes of 128 MiB.
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    for at in 0..10 {
        let name = format!("f{at}");
        world.create(&name, None).await.unwrap();
        assert_eq!(world.invoke(&name, "x").await.unwrap().payload, "x");
        assert!(worker.sandboxes().len() <= 8);
    }
    // The newest are kept.
    assert!(!world.invoke("f9", "x").await.unwrap().timing.unwrap().cold);
    assert!(world.invoke("f0", "x").await.unwrap().timing.unwrap().cold);
}

#[tokio::test]
async fn a_full_host_is_believed_after_its_next_report() {
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let free = || async {
        wire(world.admin().list_hosts(ListHostsRequest {}).await).unwrap().hosts[0].free_memory_mib
    };
    worker.compiles_with(1024);
    world.until(free, |mib| *mib == 0).await;
    refused(world.invoke("f", "x").await, Code::Unavailable, reason::NO_CAPACITY, Fault::System);
    // The compilation has ended, and control is yet to hear of it.
    worker.compiles_with(0);
    assert_eq!(world.invoke("f", "x").await.unwrap().payload, "x");
}

#[tokio::test]
async fn whoever_waits_takes_whichever_sandbox_is_free_first() {
    let world = Arc::new(World::start(100));
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    // Far more than fit: the rest wait for those that run, and all are answered.
    let calls: Vec<_> = (0..40)
        .map(|at| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.invoke("f", &format!("{at}")).await })
        })
        .collect();
    for (at, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().payload, format!("{at}"));
    }
    assert!(worker.sandboxes().len() <= 8);
    tokio::time::timeout(Duration::from_secs(5), world.until(|| running(&world), |count| *count == 0))
        .await
        .unwrap();
}
