//! Prepare, create, invoke, destroy; and the rules that hold meanwhile.

use crate::rig::{Caller, Rig, expect, module, until, version};
use std::time::Duration;
use tonic::Code;
use warren_proto::{error::Fault, v1::SandboxState};

#[tokio::test(flavor = "multi_thread")]
async fn cold_warm_destroyed() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());

    let first = caller.prepare(&echo, &code, b"").await.unwrap();
    assert!(!first.cached && first.artefact_bytes > 0, "{first:?}");
    let again = caller.prepare(&echo, &code, b"").await.unwrap();
    assert!(again.cached && again.compile_ms == 0, "{again:?}");

    let created = caller.create("s1", &echo).await.unwrap();
    let sandbox = created.sandbox.clone().unwrap();
    assert_eq!((sandbox.state(), sandbox.function.as_str()), (SandboxState::Idle, "echo"));
    assert!(created.jail_us > 0 && created.vm_us > 0 && created.init_us > 0, "{created:?}");

    let cold = caller.invoke("s1", b"hello").await.unwrap();
    assert_eq!(cold.payload, "hello");
    let report = cold.report.unwrap();
    assert!(
        report.init_us > 0 && report.billed_ms * 1000 >= report.init_us + report.duration_us,
        "{report:?}"
    );
    assert!(report.memory_peak_bytes > 0 && report.memory_peak_bytes <= 128 << 20, "{report:?}");
    for round in 0..20 {
        let payload = vec![b'0' + round; usize::from(round) * 1000 + 1];
        let warm = caller.invoke("s1", &payload).await.unwrap();
        assert_eq!(warm.payload, payload);
        assert_eq!(warm.report.unwrap().init_us, 0);
    }
    assert_eq!(caller.find("s1").await.unwrap().invocations, 21);

    caller.destroy("s1", 1).await.unwrap();
    assert_eq!(caller.list().await, []);
    assert_eq!(rig.run_files(), [""; 0]);
    until("no VMM is left", async || rig.jailed_processes().is_empty().then_some(())).await;
    caller.destroy("s1", 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_payload_goes_both_ways() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let payload: Vec<u8> = (0..6 << 20).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(caller.invoke("s1", &payload).await.unwrap().payload, payload);
    assert_eq!(caller.invoke("s1", b"").await.unwrap().payload, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let calls = (0..8).map(|_| caller.invoke("s1", b"h"));
    let (answered, refused): (Vec<_>, Vec<_>) =
        futures::future::join_all(calls).await.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty() && !refused.is_empty(), "{} {}", answered.len(), refused.len());
    for refusal in refused {
        let error = expect(refusal, Code::FailedPrecondition, "SANDBOX_BUSY", Fault::System);
        assert!(error.retryable);
    }
    caller.invoke("s1", b"next").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_break_the_sandbox() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let call = tokio::time::timeout(Duration::from_millis(50), caller.invoke("s1", b"h"));
    assert!(call.await.is_err(), "the function runs longer than that");
    let after = caller.until_state("s1", SandboxState::Idle).await;
    assert_eq!(after.invocations, 1, "it ran to its end");
    caller.invoke("s1", b"next").await.unwrap();
    let lines = caller.logs("echo").await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("REPORT")).count(), 2, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_lets_the_running_one_end() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let (answer, ()) = tokio::join!(caller.invoke("s1", b"h"), async {
        caller.until_state("s1", SandboxState::Busy).await;
        caller.destroy("s1", 1).await.unwrap();
        let refused = caller.invoke("s1", b"x").await;
        expect(refused, Code::FailedPrecondition, "SANDBOX_BUSY", Fault::System);
    });
    assert_eq!(answer.unwrap().payload, "h");
    caller.until_gone("s1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_ones_go() {
    let rig = Rig::start(&["--idle-ms", "150"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    caller.invoke("s1", b"x").await.unwrap();
    caller.until_gone("s1").await;
    until("control heard of it", async || rig.control.died().contains(&"s1".to_owned()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_archive_is_fetched_and_bad_ones_are_refused() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, "a.txt", &b"text"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let with_task = |archive: &[u8]| {
        version("echo", &code, |version| version.task_digest = blake3::hash(archive).to_hex().to_string())
    };
    rig.control.add_blob(&archive);
    rig.control.add_blob(&code);
    // Nothing is sent along: both are fetched by digest.
    caller.create("s1", &with_task(&archive)).await.unwrap();
    assert_eq!(caller.invoke("s1", b"x").await.unwrap().payload, "x");
    let bad = caller.prepare(&with_task(b"no archive"), &code, b"no archive").await;
    expect(bad, Code::InvalidArgument, "TASK_ARCHIVE_INVALID", Fault::Caller);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_agent_is_the_end_of_everything() {
    let mut rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    for id in ["s1", "s2", "s3"] {
        caller.create(id, &echo).await.unwrap();
    }
    assert_eq!(rig.agent.terminate(), Some(0));
    assert_eq!(rig.run_files(), [""; 0]);
    assert_eq!(rig.jailed_processes(), [0; 0]);
}
