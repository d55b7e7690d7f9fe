//! What clients, workers and control ask over gRPC: bytes that decode as the message, judged as the services judge it.
//!
//! What is let through is within every bound and the same when it is judged again; what is refused fits a client's trailers.

use prost::Message;
use tonic::{Code, Status};
use warren_agent::{
    sandbox::{
        InvokeError,
        epoch::EpochFence,
        invoke::{Invocation, parse_running_id},
    },
    version::{PrepareError, VersionSpec, What},
};
use warren_artefact::SnapshotKey;
use warren_proto::{
    MAX_PAYLOAD_BYTES,
    error::{Fault, MESSAGE_MAX, WireError},
    reason,
    v1::{
        CreateFunctionRequest, CreateSandboxRequest, FunctionConfig, FunctionVersion, HeartbeatRequest,
        InvokeRequest, InvokeSandboxRequest, Kind, LogsRequest, MapHostSnapshotRequest,
        RegisterWorkerRequest, Runtime, Sandbox, SnapStart,
    },
};
use warren_sandbox_plan::name::SandboxName;
use warren_validation::{CLIP_CHARS, function, invoke, operator, worker as fleet_worker};

/// Longest refusal: its own words, and what it says back, of which each character may be shown in ten.
const REFUSAL_MAX: usize = 400 + 2 * 10 * CLIP_CHARS;
const HEX: usize = 64;

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
}

fn is_digest(text: &str) -> bool {
    text.len() == HEX && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The request's fault, said in few words.
fn refused(error: &WireError) {
    let known = [reason::BAD_REQUEST, reason::PAYLOAD_TOO_LARGE, reason::CODE_TOO_LARGE];
    assert!(known.contains(&error.reason.as_str()), "{}", error.reason);
    assert_eq!((error.code, error.fault, error.retryable), (Code::InvalidArgument, Fault::Caller, false));
    assert!(!error.message.is_empty() && error.message.len() <= REFUSAL_MAX, "{}", error.message);
    survives(error);
}

/// What a client reads is what was said, but for the middle of long words.
fn survives(error: &WireError) {
    let status = Status::from(error.clone());
    assert!(!status.message().is_empty() && status.message().len() <= MESSAGE_MAX);
    let again = WireError::from_status(&status);
    assert_eq!((again.code, &again.reason, again.fault), (error.code, &error.reason, error.fault));
    assert!(error.message.len() > MESSAGE_MAX || again.message == error.message);
}

/// What clients ask of control.
pub(crate) fn frontend(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let judged = match which % 5 {
        0 => InvokeRequest::decode(bytes).map(|request| invocation(&request)),
        1 => CreateFunctionRequest::decode(bytes).map(deploy),
        2 => FunctionConfig::decode(bytes).map(|config| settings(Some(config))),
        3 => MapHostSnapshotRequest::decode(bytes).map(|request| {
            let keys = [request.key.as_str(), &request.base_key];
            operator::snapshot_keys(&keys)?;
            assert!(keys.iter().all(|key| SnapshotKey::from_hex(key).is_some()), "no key to a worker");
            Ok(())
        }),
        _ => LogsRequest::decode(bytes).map(|request| {
            let lines = operator::logs(&request)?;
            assert!((1..=10_000).contains(&lines) && !request.function.is_empty());
            Ok(())
        }),
    };
    if let Ok(Err(error)) = judged {
        refused(&error);
    }
}

fn invocation(request: &InvokeRequest) -> Result<(), WireError> {
    invoke::invocation(request)?;
    assert!(request.payload.len() <= MAX_PAYLOAD_BYTES && request.request_id.len() <= HEX);
    // A worker takes it as it is, under an id of Warren's if it has none.
    let id = if request.request_id.is_empty() { "r".to_owned() } else { request.request_id.clone() };
    let (request_id, payload) = (id, request.payload.clone());
    let passed = InvokeSandboxRequest { request_id, payload, ..InvokeSandboxRequest::default() };
    assert!(Invocation::check(passed, 1).is_ok(), "control lets it through and a worker does not");
    Ok(())
}

fn deploy(request: CreateFunctionRequest) -> Result<(), WireError> {
    function::name(&request.name)?;
    assert!(is_name(&request.name));
    function::code(&request.code, &request.task)?;
    assert!(!request.code.is_empty());
    function::files(&request.code)?;
    settings(request.config)
}

/// Settings that control lets through are such as every host takes.
fn settings(config: Option<FunctionConfig>) -> Result<(), WireError> {
    let settled = function::config(config)?;
    assert_eq!(function::config(Some(settled.clone())), Ok(settled.clone()), "judged again");
    let linux = settled.kind() == Kind::Linux;
    assert!(linux || settled.snap_start() != SnapStart::Unspecified);
    assert!(settled.env.len() <= 512 && settled.args.len() <= 512);
    let limits = settled.limits.expect("filled in");
    let version = FunctionVersion {
        name: "f".into(),
        version: 1,
        code_digest: if linux { String::new() } else { "0".repeat(HEX) },
        limits: Some(limits),
        kind: settled.kind,
        snap_start: settled.snap_start,
        network: settled.network,
        json_response: settled.json_response,
        runtime: settled.runtime,
        handler: settled.handler,
        env: settled.env,
        args: settled.args,
        ..FunctionVersion::default()
    };
    let spec = VersionSpec::check(Some(&version)).expect("a host takes what control lets through");
    let told = (spec.memory_mib, spec.timeout_ms, spec.tmp_mib);
    assert_eq!(told, (limits.memory_mib, limits.timeout_ms, limits.tmp_mib), "no other default there");
    Ok(())
}

/// What a worker of the fleet says of itself, which need not be true.
pub(crate) fn fleet(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let judged = if which % 2 == 0 {
        RegisterWorkerRequest::decode(bytes).map(|request| {
            let judged = fleet_worker::registration(request)?;
            assert_eq!(fleet_worker::registration(judged.clone()), Ok(judged.clone()), "judged again");
            registered(&judged);
            Ok(())
        })
    } else {
        HeartbeatRequest::decode(bytes).map(|request| {
            let judged = fleet_worker::heartbeat(request)?;
            assert_eq!(fleet_worker::heartbeat(judged.clone()), Ok(judged.clone()), "judged again");
            told(&judged.changed, &judged.runtimes);
            assert!(judged.grants.len() <= fleet_worker::SANDBOXES && judged.ends.len() <= 32);
            assert!(judged.ends.keys().all(|reason| (1..=64).contains(&reason.len())));
            Ok(())
        })
    };
    if let Ok(Err(error)) = judged {
        refused(&error);
    }
}

fn registered(judged: &RegisterWorkerRequest) {
    assert!((1..=260).contains(&judged.address.len()) && judged.builder_key.len() == 32);
    told(&judged.sandboxes, &judged.runtimes);
    let Some(found) = &judged.resources else { return };
    let words = [&found.zone, &found.cpu_template, &found.cpu_digest];
    assert!(words.iter().all(|word| word.len() <= HEX && !word.contains(char::is_control)));
    assert!(found.guests.len() <= 8 && found.guests.iter().all(|guest| guest.len() <= HEX));
    let words = [&found.kernel, &found.no_linux_because, &found.no_network_because];
    assert!(words.iter().all(|words| words.len() <= 512));
}

fn told(sandboxes: &[Sandbox], runtimes: &[Runtime]) {
    assert!(sandboxes.len() <= fleet_worker::SANDBOXES && runtimes.len() <= 256);
    assert!(sandboxes.iter().all(|one| is_name(&one.id) && is_name(&one.function)));
    assert!(runtimes.iter().all(|one| one.name.len() <= HEX && is_digest(&one.digest)));
}

/// What control asks of a worker, whose agent believes it no more than it must.
pub(crate) fn worker(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 3 {
        0 => {
            if let Ok(request) = CreateSandboxRequest::decode(bytes) {
                created(&request);
            }
        }
        1 => {
            let Some((&longest, bytes)) = bytes.split_first() else { return };
            if let Ok(request) = InvokeSandboxRequest::decode(bytes) {
                invoked(request, longest.into());
            }
        }
        _ => fenced(bytes),
    }
}

fn created(request: &CreateSandboxRequest) {
    if let Ok(name) = SandboxName::new(request.sandbox_id.as_str()) {
        assert!(is_name(name.as_str()) && name.as_str().len() <= 40);
    }
    match VersionSpec::check(request.version.as_ref()) {
        Ok(spec) => {
            assert!(is_name(&spec.name) && (128..=10_240).contains(&spec.memory_mib));
            assert!((1..=900_000).contains(&spec.timeout_ms));
            let linux = matches!(spec.what, What::Linux { .. });
            assert!(if linux {
                (512..=10_240).contains(&spec.tmp_mib)
            } else {
                spec.tmp_mib <= spec.memory_mib / 2
            });
            if let What::Linux { build: Some(build), handler, .. } = &spec.what {
                assert!(is_digest(build) && !handler.contains('\0'));
            }
        }
        Err(bad) => {
            let error = WireError::from(PrepareError::from(bad));
            assert_eq!((error.code, error.fault), (Code::InvalidArgument, Fault::Caller));
            survives(&error);
        }
    }
}

fn invoked(request: InvokeSandboxRequest, longest_ms: u32) {
    let (id, grant) = (request.request_id.clone(), request.grant_id);
    match Invocation::check(request, longest_ms) {
        Ok(invocation) => {
            assert!(invocation.timeout_ms() <= longest_ms, "longer than its function may run");
            let running = invocation.running_id();
            assert!(running.len() <= 128 && running.is_ascii());
            let (known, under) = parse_running_id(&running);
            assert_eq!((known, under.id), (id, grant), "an agent that adopts it knows it by another name");
        }
        Err(error) => {
            assert!(!matches!(error, InvokeError::Gone(_)));
            survives(&WireError::from(error));
        }
    }
}

/// Commands of any epochs for any partitions: none is let in below one that was, and what is kept has an end.
fn fenced(bytes: &[u8]) {
    let mut input = crate::Input(bytes);
    let mut fence = EpochFence::default();
    while !input.is_empty() {
        let (what, partition, epoch) = (input.byte(), u32::from(input.byte()), input.long());
        let before = fence.current(partition);
        match what % 3 {
            0 => fence.raise_floor(epoch),
            1 => fence.raise_grants(epoch),
            _ => assert_eq!(fence.admit(partition, epoch).is_ok(), epoch >= before),
        }
        assert!(fence.current(partition) >= before && fence.grants() >= fence.floor());
    }
    let kept = postcard::to_allocvec(&fence).expect("numbers");
    assert!(kept.len() <= 32 + 96 * 15, "{} bytes", kept.len());
}
