use super::*;
use std::collections::HashMap;
use tonic::Code;
use warren_proto::{reason, v1::GrantUse};

fn good() -> RegisterWorkerRequest {
    RegisterWorkerRequest {
        host_id: "h".into(),
        address: "[::1]:7000".into(),
        resources: Some(HostResources { zone: "rack 1".into(), ..HostResources::default() }),
        sandboxes: vec![sandbox("sb-1-1", "f")],
        builder_key: vec![0; 32].into(),
        runtimes: vec![runtime("python3.11", &"a".repeat(64))],
    }
}

fn sandbox(id: &str, function: &str) -> Sandbox {
    Sandbox { id: id.into(), function: function.into(), ..Sandbox::default() }
}

fn runtime(name: &str, digest: &str) -> Runtime {
    Runtime { name: name.into(), digest: digest.into() }
}

type Change = fn(&mut RegisterWorkerRequest);
type Found = fn(&mut HostResources);

#[test]
fn registrations_are_refused_by_name() {
    assert_eq!(registration(good()), Ok(good()));
    let check = |what: &str, request| {
        let error = registration(request).expect_err(what);
        assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, reason::BAD_REQUEST));
        assert!(error.message.contains(what) && error.message.len() < 400, "{}", error.message);
    };
    let cases: [(&str, Change); 6] = [
        ("address", |request| request.address = String::new()),
        ("address", |request| request.address = "h:1\n".into()),
        ("address", |request| request.address = "h".repeat(1 << 20)),
        ("builder's key", |request| request.builder_key = vec![0; 31].into()),
        ("sandboxes", |request| request.sandboxes = vec![Sandbox::default(); SANDBOXES + 1]),
        ("by its names", |request| request.sandboxes.push(sandbox("sb-1-2", &"../".repeat(1 << 18)))),
    ];
    for (what, change) in cases {
        let mut request = good();
        change(&mut request);
        check(what, request);
    }
    let found: [(&str, Found); 5] = [
        ("zone", |found| found.zone = "z".repeat(65)),
        ("guests", |found| found.guests = vec!["linux".into(); 9]),
        ("guest", |found| found.guests = vec!["l".repeat(1 << 20)]),
        ("template", |found| found.cpu_template = "two words".into()),
        ("cpu_digest", |found| found.cpu_digest = "0".repeat(63)),
    ];
    for (what, change) in found {
        let mut request = good();
        change(request.resources.get_or_insert_default());
        check(what, request);
    }
}

#[test]
fn words_are_cut_and_what_is_no_runtime_is_left_out() {
    let mut request = good();
    request.runtimes.extend([runtime("", &"a".repeat(64)), runtime("short", "ab")]);
    request.runtimes.extend(vec![runtime("r", &"b".repeat(64)); 300]);
    let resources = request.resources.get_or_insert_default();
    resources.no_linux_because = "\u{e9}".repeat(1 << 20);
    let judged = registration(request).expect("it is let in");
    assert_eq!(judged.runtimes.len(), RUNTIMES);
    assert_eq!(judged.resources.expect("as given").no_linux_because, "\u{e9}".repeat(WORDS / 2));
}

#[test]
fn heartbeats_have_an_end() {
    let many =
        || HeartbeatRequest { grants: vec![GrantUse::default(); GRANTS + 1], ..HeartbeatRequest::default() };
    assert!(heartbeat(many()).is_err_and(|error| error.message.contains("grants")));
    let changed = vec![Sandbox::default()];
    assert!(heartbeat(HeartbeatRequest { changed, ..HeartbeatRequest::default() }).is_err());
    let ends: HashMap<_, _> = (0..100).map(|n| (format!("r{n}"), n)).chain([("x".repeat(99), 1)]).collect();
    let judged = heartbeat(HeartbeatRequest { ends, ..HeartbeatRequest::default() }).expect("it is let in");
    assert!(judged.ends.len() == ENDS && judged.ends.keys().all(|reason| reason.len() <= WORD));
}
