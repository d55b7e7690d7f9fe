//! Bad input and worker failures: each gets its typed status, and nothing else is disturbed.

#![allow(clippy::unwrap_used, reason = "a test's panics are its report")]

mod world;

use tonic::Code;
use warren_proto::v1::invoke_service_client::InvokeServiceClient;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        CreateFunctionRequest, DeleteFunctionRequest, DeployPhase, DrainHostRequest, Function,
        FunctionConfig, FunctionLimits, GetFunctionRequest, HostSnapshotRequest, InvokeRequest,
        ListAllSandboxesRequest, ListAllSnapshotsRequest, ListAllSnapshotsResponse, LogsRequest,
        MapHostSnapshotRequest, Optimization, SnapStart, UpdateFunctionRequest, deploy_event,
        invoke_event::Event,
    },
};
use world::{ScriptedWorker, World, refused, request, wire};

#[tokio::test]
async fn requests_that_cannot_be_served_say_why() {
    let world = World::start(100);
    refused(world.create("f", None).await, Code::Unavailable, reason::NO_WORKER_READY, Fault::System);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();

    let invoke = |request: InvokeRequest| async { wire(world.invokes().invoke(request).await) };
    refused(world.invoke("g", "").await, Code::NotFound, reason::NO_SUCH_FUNCTION, Fault::Caller);
    let version = InvokeRequest { version: 9, ..request("f", "") };
    refused(invoke(version).await, Code::NotFound, reason::NO_SUCH_VERSION, Fault::Caller);
    let large = InvokeRequest { payload: vec![b'x'; (6 << 20) + 1].into(), ..request("f", "") };
    refused(invoke(large).await, Code::InvalidArgument, reason::PAYLOAD_TOO_LARGE, Fault::Caller);
    let odd = InvokeRequest { request_id: "no blanks".to_owned(), ..request("f", "") };
    refused(invoke(odd).await, Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    refused(world.create("f", None).await, Code::AlreadyExists, reason::FUNCTION_EXISTS, Fault::Caller);
    for name in ["", "-a", "A", "a b", &"x".repeat(65)] {
        refused(world.create(name, None).await, Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    }
    // However long a name is, the refusal is one that a client can read.
    let drain = DrainHostRequest { host: "h".repeat(1 << 20), undrain: false };
    let absent = wire(world.admin().drain_host(drain).await);
    refused(absent, Code::NotFound, reason::NO_SUCH_HOST, Fault::Caller);
    refused(world.create("h", Some(101)).await, Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    let empty = CreateFunctionRequest { name: "h".to_owned(), ..Default::default() };
    let empty = wire(world.functions().create_function(empty).await);
    refused(empty, Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller);
    let stale = UpdateFunctionRequest { name: "f".to_owned(), expected_revision: 77, ..Default::default() };
    let stale = wire(world.functions().update_function(stale).await);
    refused(stale, Code::Aborted, reason::REVISION_CONFLICT, Fault::Caller);
    let absent = DeleteFunctionRequest { name: "g".to_owned(), ..Default::default() };
    let absent = wire(world.functions().delete_function(absent).await);
    refused(absent, Code::NotFound, reason::NO_SUCH_FUNCTION, Fault::Caller);

    let mut nobody = InvokeServiceClient::new(world.channel());
    refused(
        wire(nobody.invoke(request("f", "")).await),
        Code::Unauthenticated,
        reason::NO_VALID_TOKEN,
        Fault::Caller,
    );

    // The next good one succeeds, and exactly its sandbox is there.
    assert_eq!(world.invoke("f", "fine").await.unwrap().payload, "fine");
    assert_eq!(worker.sandboxes().len(), 1);
}

#[tokio::test]
async fn the_largest_payload_comes_back_whole() {
    let world = World::start(100);
    let _worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let payload: Vec<u8> = (0..6 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
    let largest = InvokeRequest { payload: payload.clone().into(), ..request("f", "") };
    let mut client = world.invokes().max_decoding_message_size(usize::MAX);
    assert_eq!(wire(client.invoke(largest.clone()).await).unwrap().payload, payload);
    // And in pieces.
    let mut events = client.invoke_stream(largest).await.unwrap().into_inner();
    let (mut pieces, mut ended) = (Vec::new(), false);
    while let Some(event) = events.message().await.unwrap() {
        match event.event.unwrap() {
            Event::Chunk(chunk) => pieces.extend_from_slice(&chunk),
            Event::Log(_) => panic!("nobody asked for logs"),
            Event::End(_) => ended = true,
        }
    }
    assert!(ended && pieces == payload);
}

#[tokio::test]
async fn cold_is_told_and_warm_is_reused() {
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let cold = world.invoke("f", "1").await.unwrap().timing.unwrap();
    assert!(cold.cold && (cold.jail_us, cold.vm_us, cold.init_us) == (1, 2, 3));
    let warm = world.invoke("f", "2").await.unwrap().timing.unwrap();
    assert!(!warm.cold && warm.jail_us == 0);
    assert_eq!(worker.sandboxes().len(), 1);
    // An update drains it, a deletion drains what came after.
    let update = UpdateFunctionRequest {
        name: "f".to_owned(),
        code: Some(b"other".as_slice().into()),
        ..Default::default()
    };
    assert_eq!(wire(world.functions().update_function(update.clone()).await).unwrap().versions, [1, 2]);
    world.until(|| async { worker.sandboxes().len() }, |count| *count == 0).await;
    let again = wire(world.functions().update_function(update).await).unwrap();
    assert_eq!(again.versions, [1, 2], "an update that changes nothing makes no version");
    assert!(world.invoke("f", "3").await.unwrap().timing.unwrap().cold);
    let old = InvokeRequest { version: 1, ..request("f", "old") };
    assert_eq!(wire(world.invokes().invoke(old).await).unwrap().version, 1);
    let all = DeleteFunctionRequest { name: "f".to_owned(), ..Default::default() };
    wire(world.functions().delete_function(all).await).unwrap();
    world.until(|| async { worker.sandboxes().len() }, |count| *count == 0).await;
    let listed = wire(world.admin().list_all_sandboxes(ListAllSandboxesRequest::default()).await).unwrap();
    assert!(listed.sandboxes.is_empty());
}

#[tokio::test]
async fn worker_failures_are_retried_only_when_nothing_has_run() {
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    for payload in ["busy-once", "gone-once", "early-once"] {
        assert_eq!(world.invoke("f", payload).await.unwrap().payload, payload);
        assert_eq!(worker.ran(payload), 1, "{payload}");
    }
    let system = Fault::System;
    // Hints that are always wrong, and sandboxes that always die, have an end: nothing has run, so the client may come again.
    for payload in ["early", "gone"] {
        let early = world.invoke("f", payload).await;
        assert!(early.as_ref().is_err_and(|error| error.retryable), "{payload}: {early:?}");
        refused(early, Code::Unavailable, reason::SANDBOX_LOST_BEFORE_START, system);
        assert_eq!(worker.ran(payload), 0, "{payload}");
    }
    let lost = world.invoke("f", "lost-once").await;
    assert!(lost.as_ref().is_err_and(|error| error.retryable));
    refused(lost, Code::Unavailable, reason::SANDBOX_LOST, system);
    assert_eq!(worker.ran("lost-once"), 0, "it may have run, so it is not tried again");
    // The function's own failure keeps its sandbox.
    refused(world.invoke("f", "trap").await, Code::Unknown, reason::FUNCTION_TRAPPED, Fault::Function);
    assert!(!world.invoke("f", "fine").await.unwrap().timing.unwrap().cold);
}

#[tokio::test]
async fn log_lines_come_with_the_stream_and_from_the_worker() {
    let world = World::start(100);
    let _worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("f", None).await.unwrap();
    let follow = InvokeRequest { want_log: true, ..request("f", "x") };
    let mut events = world.invokes().invoke_stream(follow).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        seen.push(match event.event.unwrap() {
            Event::Log(line) => line.text,
            Event::Chunk(chunk) => String::from_utf8(chunk.to_vec()).unwrap(),
            Event::End(end) => format!("end {}", end.version),
        });
    }
    assert_eq!(seen, ["a line", "x", "end 1"]);
    let logs = LogsRequest { function: "f".to_owned(), ..Default::default() };
    let mut lines = world.functions().logs(logs).await.unwrap().into_inner();
    let mut numbers = Vec::new();
    while let Some(line) = lines.message().await.unwrap() {
        numbers.push(line.sequence);
    }
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn a_worker_that_never_comes_to_an_end_is_heard_as_long_as_it_was_asked() {
    let world = World::start(100);
    let _worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    world.create("babble", None).await.unwrap();
    for (tail, expect) in [(0, 100), (7, 7), (u32::MAX, 10_000)] {
        let logs = LogsRequest { function: "babble".to_owned(), tail, follow: false };
        let mut lines = world.functions().logs(logs).await.unwrap().into_inner();
        let mut count = 0;
        while lines.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, expect, "{tail}");
    }
}

#[tokio::test]
async fn of_two_deploys_at_once_one_is_told_of_the_other() {
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    worker.prepare.forget_permits(usize::MAX);
    let (one, two, ()) = tokio::join!(world.create("f", None), world.create("f", None), async {
        // Both are compiling before either may end.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        worker.prepare.add_permits(1);
    });
    let loser = match (one, two) {
        (Ok(_), loser) | (loser, Ok(_)) => loser,
        both => panic!("nobody won: {both:?}"),
    };
    refused(loser, Code::Aborted, reason::REVISION_CONFLICT, Fault::Caller);
    let kept = GetFunctionRequest { name: "f".to_owned() };
    assert_eq!(wire(world.functions().get_function(kept).await).unwrap().versions, [1]);
}

#[tokio::test]
async fn snapshots_are_asked_of_their_hosts() {
    let world = World::start(100);
    let list = || async {
        let request = ListAllSnapshotsRequest { function: "f".to_owned() };
        wire(world.admin().list_all_snapshots(request).await).unwrap()
    };
    assert_eq!(list().await, ListAllSnapshotsResponse::default());
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    let listed = list().await;
    assert_eq!((listed.snapshots.len(), listed.silent_hosts.len()), (1, 0));
    assert_eq!((listed.snapshots[0].function.as_str(), listed.snapshots[0].host_id.as_str()), ("f", "w1"));
    let request = |host: &str, key: &str| HostSnapshotRequest { host: host.to_owned(), key: key.to_owned() };
    for (digit, good) in [("0", true), ("1", false)] {
        let verified = world.admin().verify_host_snapshot(request("w1", &digit.repeat(64))).await;
        assert_eq!(wire(verified).unwrap().good, good);
    }
    let (caller, key) = (Fault::Caller, "0".repeat(64));
    let mapped = async |host: &str, key: &str, base: &str| {
        let (host, key, base_key) = (host.to_owned(), key.to_owned(), base.to_owned());
        wire(world.admin().map_host_snapshot(MapHostSnapshotRequest { host, key, base_key }).await)
    };
    for (base, filled) in [("1".repeat(64), 1), (String::new(), 99)] {
        let window = mapped("w1", &key, &base).await.unwrap().windows[0];
        assert_eq!((window.same, window.filled), (0, filled));
    }
    refused(mapped("w2", &key, "").await, Code::NotFound, reason::NO_SUCH_HOST, caller);
    for (key, base) in [("", ""), (key.as_str(), "1"), ("../x", key.as_str())] {
        refused(mapped("w1", key, base).await, Code::InvalidArgument, reason::BAD_REQUEST, caller);
    }
    let removed = wire(world.admin().remove_host_snapshot(request("w1", &key)).await);
    refused(removed, Code::NotFound, reason::NO_SUCH_SNAPSHOT, caller);
    let elsewhere = wire(world.admin().verify_host_snapshot(request("w2", &key)).await);
    refused(elsewhere, Code::NotFound, reason::NO_SUCH_HOST, caller);
    for bad in ["", "0", "../../etc/passwd", &"g".repeat(64), &"0".repeat(65)] {
        let answer = wire(world.admin().remove_host_snapshot(request("w1", bad)).await);
        refused(answer, Code::InvalidArgument, reason::BAD_REQUEST, caller);
    }
    // What a lost host keeps is not known, and that is said.
    worker.die();
    let silent = world.until(list, |listed| !listed.silent_hosts.is_empty()).await;
    assert_eq!((silent.snapshots.len(), silent.silent_hosts), (0, vec!["w1".to_owned()]));
}

/// A host that registers has what it keeps of an earlier release made again, where that is wanted, and loses the old ones.
#[tokio::test]
async fn outdated_snapshots_are_made_again_when_their_host_registers() {
    let world = World::start(100);
    let worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    let start = [("fine", SnapStart::Published), ("off", SnapStart::Off), ("torn", SnapStart::Published)];
    for (name, snap_start) in start {
        deployed(&world, name, snap_start).await.1.unwrap();
    }
    let kept = [("fine", 1, "7"), ("fine", 9, "8"), ("off", 1, "9"), ("gone", 1, "a"), ("torn", 1, "b")];
    for (function, version, digit) in kept {
        worker.keeps(function, version, digit);
    }
    worker.report_to(&world.identity_dir(), world.control).await;
    // Of a version that is there, is to have one, and whose new one is good: nothing else goes.
    let left = ["fine", "off", "gone", "torn"];
    world.until(|| async { worker.outdated() }, |outdated| *outdated == left).await;
    // All others are left for good, however often it registers.
    worker.report_to(&world.identity_dir(), world.control).await;
    worker.keeps("fine", 1, "c");
    worker.report_to(&world.identity_dir(), world.control).await;
    world.until(|| async { worker.outdated() }, |outdated| *outdated == left).await;
}

/// What becomes of a version whose snapshot is made before it is there, by what the worker says of it.
#[tokio::test]
async fn a_version_is_there_once_its_snapshot_is_or_says_why_not() {
    let world = World::start(100);
    let _worker = ScriptedWorker::join(&world.identity_dir(), world.control).await;
    let (prepare, make, verify) = (DeployPhase::Preparing, DeployPhase::Snapshotting, DeployPhase::Verifying);
    let both = &[prepare, make][..];
    let cases = [
        ("fine", &[prepare, make, verify][..], Ok((Optimization::On, ""))),
        ("drew", both, Ok((Optimization::Off, "drew, it says"))),
        ("full", both, Ok((Optimization::Off, "full, it says"))),
        ("lost", both, Ok((Optimization::Off, "the worker was lost"))),
        ("torn", &[prepare, make, verify], Ok((Optimization::Off, "was not verified"))),
        ("trap", both, Err((Code::Unknown, reason::FUNCTION_INIT_FAILED))),
        ("slow", both, Err((Code::DeadlineExceeded, reason::FUNCTION_INIT_TIMED_OUT))),
    ];
    for (name, phases, expected) in cases {
        let (seen, ended) = deployed(&world, name, SnapStart::Unspecified).await;
        assert_eq!(seen, phases, "{name}");
        match expected {
            Ok((optimization, words)) => {
                let latest = ended.unwrap().latest.unwrap();
                assert_eq!(
                    (latest.snap_start(), latest.optimization()),
                    (SnapStart::Published, optimization)
                );
                assert!(latest.optimization_reason.contains(words), "{name}: {}", latest.optimization_reason);
                assert_eq!(latest.optimization_reason.is_empty(), words.is_empty(), "{name}");
                assert_eq!(world.invoke(name, "x").await.unwrap().payload, "x");
            }
            Err((code, reason)) => {
                refused(ended, code, reason, Fault::Function);
                // Nothing was changed; without looking at its init it is taken.
                refused(
                    world.invoke(name, "x").await,
                    Code::NotFound,
                    reason::NO_SUCH_FUNCTION,
                    Fault::Caller,
                );
                let (seen, ended) = deployed(&world, name, SnapStart::Off).await;
                let latest = ended.unwrap().latest.unwrap();
                assert_eq!((seen, latest.optimization()), (vec![prepare], Optimization::Unspecified));
            }
        }
    }
    // An update that turns it off is a change; one that says what holds already is none.
    let update = |snap_start: SnapStart| {
        let config = FunctionConfig { snap_start: snap_start.into(), ..FunctionConfig::default() };
        let request =
            UpdateFunctionRequest { name: "fine".to_owned(), config: Some(config), ..Default::default() };
        let mut client = world.functions();
        async move { wire(client.update_function(request).await).unwrap().versions.len() }
    };
    // The first one's timeout is another than the default.
    assert_eq!(update(SnapStart::Published).await, 2);
    assert_eq!(update(SnapStart::Unspecified).await, 2);
    assert_eq!(update(SnapStart::Off).await, 3);
}

/// Its phases, and its end.
async fn deployed(
    world: &World,
    name: &str,
    snap_start: SnapStart,
) -> (Vec<DeployPhase>, Result<Function, WireError>) {
    let limits = FunctionLimits { timeout_ms: 2000, ..FunctionLimits::default() };
    let config =
        FunctionConfig { limits: Some(limits), snap_start: snap_start.into(), ..FunctionConfig::default() };
    let request = CreateFunctionRequest {
        name: name.to_owned(),
        code: b"module".as_slice().into(),
        config: Some(config),
        ..Default::default()
    };
    let mut events = world.functions().create_function_stream(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    loop {
        match events.message().await.map(|event| event.and_then(|event| event.event)) {
            Ok(Some(deploy_event::Event::Progress(progress))) => {
                assert_eq!(progress.host_id, "w1");
                seen.push(progress.phase());
            }
            Ok(Some(deploy_event::Event::Done(function))) => return (seen, Ok(function)),
            Ok(None) => {
                let nothing = "it ended without an answer";
                return (seen, Err(WireError::new(Code::Unknown, "NO_ANSWER", Fault::System, nothing)));
            }
            Err(status) => return (seen, Err(WireError::from_status(&status))),
        }
    }
}
