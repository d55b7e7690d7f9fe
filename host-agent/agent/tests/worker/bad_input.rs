//! The table of bad input: each row its error, and after each the next good call succeeds.

use crate::rig::{Caller, Disk, Rig, expect, module, version};
use tonic::Code;
use warren_proto::{
    error::Fault,
    v1::{FunctionLimits, FunctionVersion, SandboxState},
};

#[tokio::test(flavor = "multi_thread")]
async fn modules() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let good = module::obedient();
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("not wasm", b"this is no module".to_vec(), "MODULE_MALFORMED"),
        ("cut short", good[..good.len() / 2].to_vec(), "MODULE_MALFORMED"),
        ("odd import", module::wat(module::ODD_IMPORT), "MISSING_IMPORT"),
        ("no handler", module::wat(module::NO_HANDLER), "MISSING_EXPORT"),
        ("wants 512 MiB", module::wat(module::WANTS_MUCH), "MODULE_NEEDS_MORE_MEMORY"),
    ];
    for (what, code, reason) in rows {
        let bad = caller.prepare(&version("bad", &code, |_| ()), &code, b"").await;
        println!("{what}");
        expect(bad, Code::InvalidArgument, reason, Fault::Function);
    }
    assert_eq!(rig.jailed_processes(), [0; 0]);
    caller.prepare(&version("good", &good, |_| ()), &good, b"").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_take_too_much_to_compile() {
    let small = module::variant(9);
    let rows = [
        ("--compile-seconds", "1", module::slow_to_compile(), "COMPILE_TIMED_OUT"),
        ("--compile-memory-mib", "40", module::large_to_compile(), "COMPILE_OUT_OF_MEMORY"),
    ];
    for (flag, value, bomb, reason) in rows {
        let rig = Rig::start(&[flag, value]).await;
        let caller = Caller::new(&rig).await;
        let bad = caller.prepare(&version("bomb", &bomb, |_| ()), &bomb, b"").await;
        println!("{flag}");
        expect(bad, Code::InvalidArgument, reason, Fault::Function);
        assert_eq!(rig.jailed_processes(), [0; 0]);
        caller.prepare(&version("small", &small, |_| ()), &small, b"").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_the_deploy_and_nothing_else() {
    let rig = Rig::start_on(&[], Disk::Tiny).await;
    let caller = Caller::new(&rig).await;
    let (large, small) = (module::bulky(), module::variant(8));
    let fits = version("small", &small, |_| ());
    caller.prepare(&fits, &small, b"").await.unwrap();
    let full = caller.prepare(&version("large", &large, |_| ()), &large, b"").await;
    let full = expect(full, Code::ResourceExhausted, "DISK_FULL", Fault::System);
    assert!(full.retryable);
    caller.create("s1", &fits).await.unwrap();
    caller.invoke("s1", b"").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepares_of_one_version_share_the_work() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    let all = futures::future::join_all((0..6).map(|_| caller.prepare(&echo, &code, b""))).await;
    let compiled: Vec<u64> =
        all.into_iter().map(Result::unwrap).filter(|one| !one.cached).map(|one| one.compile_ms).collect();
    assert!(
        !compiled.is_empty() && compiled.iter().all(|ms| *ms == compiled[0]),
        "one compilation: {compiled:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn words() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::variant(1);
    let with = |memory_mib, timeout_ms, tmp_mib| {
        move |version: &mut FunctionVersion| {
            version.limits =
                Some(FunctionLimits { memory_mib, timeout_ms, tmp_mib, reserved_concurrency: None });
        }
    };
    let rows: Vec<(FunctionVersion, &str)> = vec![
        (version("Bad Name", &code, |_| ()), "BAD_VERSION"),
        (version("f", &code, with(64, 1, 1)), "BAD_VERSION"),
        (version("f", &code, with(20_000, 1, 1)), "BAD_VERSION"),
        (version("f", &code, with(128, 1_000_000, 1)), "BAD_VERSION"),
        (version("f", &code, with(128, 1000, 100)), "BAD_VERSION"),
        (version("f", b"other code", |_| ()), "DIGEST_MISMATCH"),
        (version("f", &code, |version| version.code_digest = "xyz".into()), "BAD_VERSION"),
    ];
    for (bad, reason) in rows {
        expect(caller.prepare(&bad, &code, b"").await, Code::InvalidArgument, reason, Fault::Caller);
    }
    let good = version("f", &code, |_| ());
    caller.prepare(&good, &code, b"").await.unwrap();
    for id in ["", "UPPER", "a/b", "../x", &"a".repeat(41)] {
        expect(caller.create(id, &good).await, Code::InvalidArgument, "BAD_REQUEST", Fault::Caller);
    }
    let unknown = version("f", b"nobody has this", |_| ());
    expect(caller.create("s1", &unknown).await, Code::Unavailable, "BLOB_UNAVAILABLE", Fault::System);
    assert_eq!(caller.list().await, []);

    caller.create("s1", &good).await.unwrap();
    expect(caller.create("s1", &good).await, Code::AlreadyExists, "SANDBOX_EXISTS", Fault::System);
    expect(caller.invoke("s9", b"").await, Code::NotFound, "SANDBOX_GONE", Fault::System);
    let too_large = vec![0; (6 << 20) + 1];
    expect(caller.invoke("s1", &too_large).await, Code::InvalidArgument, "PAYLOAD_TOO_LARGE", Fault::Caller);
    let mut request = caller.request("s1", b"");
    request.request_id = "a b".into();
    let bad = caller.client.clone().invoke_sandbox(request).await;
    expect(bad, Code::InvalidArgument, "BAD_REQUEST", Fault::Caller);
    let mut request = caller.request("s1", b"");
    request.client_deadline_unix_ms = 1;
    let bad = caller.client.clone().invoke_sandbox(request).await;
    expect(bad, Code::DeadlineExceeded, "CLIENT_DEADLINE_PASSED", Fault::Caller);
    caller.invoke("s1", b"").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let json = version("bad", &code, |version| version.json_response = true);
    caller.prepare(&json, &code, b"").await.unwrap();
    caller.create("s1", &json).await.unwrap();
    // What the event says, the error, and whether the sandbox goes on.
    let rows = [
        ("t", Code::Unknown, "FUNCTION_TRAPPED"),
        ("e", Code::Unknown, "FUNCTION_EXITED"),
        ("n", Code::Unknown, "RESPONSE_NOT_UTF8_JSON"),
        ("x", Code::Unknown, "RESPONSE_NOT_UTF8_JSON"),
        ("b", Code::OutOfRange, "RESPONSE_TOO_LARGE"),
        ("r", Code::Unknown, "FUNCTION_STACK_OVERFLOW"),
        ("m", Code::Unknown, "FUNCTION_OUT_OF_MEMORY"),
    ];
    for (event, code, reason) in rows {
        println!("{event}");
        let error = expect(caller.invoke("s1", event.as_bytes()).await, code, reason, Fault::Function);
        assert!(!error.retryable);
        if event == "e" {
            assert!(error.message.contains("code 7"), "{}", error.message);
        }
        let next = caller.invoke("s1", b"[1]").await.unwrap();
        assert_eq!(next.payload, "[1]");
    }
    assert_eq!(caller.find("s1").await.unwrap().state(), SandboxState::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_costs_the_sandbox() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |version| {
        version.limits = Some(FunctionLimits { timeout_ms: 300, ..FunctionLimits::default() });
    });
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let error = caller.invoke("s1", b"s").await;
    let error = expect(error, Code::DeadlineExceeded, "FUNCTION_TIMED_OUT", Fault::Function);
    assert!(!error.retryable);
    caller.until_gone("s1").await;
    assert_eq!(rig.run_files(), [""; 0]);
    caller.create("s2", &echo).await.unwrap();
    caller.invoke("s2", b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_says_so() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::variant(2);
    let large = version("large", &code, |version| {
        version.limits = Some(FunctionLimits { memory_mib: 2000, ..FunctionLimits::default() });
    });
    caller.prepare(&large, &code, b"").await.unwrap();
    caller.create("s1", &large).await.unwrap();
    caller.create("s2", &large).await.unwrap();
    let full = expect(caller.create("s3", &large).await, Code::ResourceExhausted, "HOST_FULL", Fault::System);
    assert!(full.retryable);
    caller.destroy("s1", 1).await.unwrap();
    caller.create("s3", &large).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn older_epochs_are_refused() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::variant(3);
    let function = version("f", &code, |_| ());
    caller.prepare(&function, &code, b"").await.unwrap();
    caller.create_in("s1", &function, 5).await.unwrap();
    let stale = caller.create_in("s2", &function, 4).await;
    expect(stale, Code::FailedPrecondition, "STALE_EPOCH", Fault::System);
    let stale = caller.destroy("s1", 4).await;
    expect(stale, Code::FailedPrecondition, "STALE_EPOCH", Fault::System);
    assert_eq!(caller.list().await.len(), 1);
    caller.destroy("s1", 5).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_control_may_call() {
    use tonic::transport::Endpoint;
    use warren_identity::{HostId, Peer, Service, client_tls};
    use warren_proto::v1::{ListSandboxesRequest, worker_service_client::WorkerServiceClient};
    let rig = Rig::start(&[]).await;
    let identity = rig.dir.path().join("identity");
    // Another worker's certificate: the right CA, the wrong role.
    let tls = client_tls(&identity, Service::Agent, &Peer::Worker(HostId::new("h1").unwrap())).unwrap();
    let endpoint =
        Endpoint::from_shared(format!("https://{}", rig.address)).unwrap().tls_config(tls).unwrap();
    let mut client = WorkerServiceClient::new(endpoint.connect().await.unwrap());
    let refused = client.list_sandboxes(ListSandboxesRequest {}).await;
    expect(refused, Code::PermissionDenied, "WRONG_ROLE", Fault::Caller);
    // No certificate, no connection.
    let endpoint = Endpoint::from_shared(format!("http://{}", rig.address)).unwrap();
    let plain = match endpoint.connect().await {
        Ok(channel) => {
            WorkerServiceClient::new(channel).list_sandboxes(ListSandboxesRequest {}).await.is_ok()
        }
        Err(_) => false,
    };
    assert!(!plain);
}
