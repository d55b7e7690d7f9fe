//! Unmodified clients of Lambda's APIs against the supervisor: each runtime through the same cases.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

mod support;

use support::Sandbox;
use support::fetched::{self, functions};
use warren_vmm_protocol::guest::{InitFailure, Text};

/// A runtime, and how it names things.
#[derive(Clone, Copy)]
struct Client {
    name: &'static str,
    make: fn() -> Option<Sandbox>,
    /// Of an error that the function raises.
    error: &'static str,
    /// Of one that its init raises, if it has such a thing.
    init_error: Option<&'static str>,
    /// It goes on after a response was refused as too large.
    survives_refusal: bool,
}

const SHELL: Client = Client {
    name: "shell",
    make: shell,
    error: "handler 0: ValueError: as you wish",
    init_error: Some("Runtime.NoInit"),
    survives_refusal: true,
};

const PYTHON: Client = Client {
    name: "python",
    make: python,
    error: "handler 0: ValueError: as you wish",
    init_error: Some("ValueError"),
    survives_refusal: false,
};

const NODE: Client = Client {
    name: "node",
    make: node,
    error: "handler 0: TypeError: as you wish",
    init_error: Some("TypeError"),
    survives_refusal: true,
};

const RUST: Client = Client {
    name: "rust",
    make: rust,
    error: "handler 0: &alloc::boxed::Box<dyn core::error::Error + core::marker::Send + core::marker::Sync>: as you wish",
    init_error: None,
    survives_refusal: true,
};

#[expect(clippy::unnecessary_wraps, reason = "as the others are made")]
fn shell() -> Option<Sandbox> {
    Some(Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap"))
}

fn python() -> Option<Sandbox> {
    let words = fetched::python_words("app.handler")?;
    let mut sandbox = Sandbox::new().copy(&functions().join("python/app.py"), "var/task/app.py");
    sandbox.config.entrypoint = words.each_ref().map(|word| Text::cut(word)).to_vec();
    Some(sandbox)
}

fn node() -> Option<Sandbox> {
    let words = fetched::node_words("app.handler")?;
    let mut sandbox = Sandbox::new().copy(&functions().join("node/app.mjs"), "var/task/app.mjs");
    sandbox.config.entrypoint = words.each_ref().map(|word| Text::cut(word)).to_vec();
    Some(sandbox)
}

fn rust() -> Option<Sandbox> {
    Some(Sandbox::new().copy(&fetched::rust()?.join("bootstrap"), "var/task/bootstrap"))
}

fn echo(client: &Client, running: &mut support::Running, value: usize, count: usize) {
    let answer = running.invoke(&format!(r#"{{"do":"echo","value":{value}}}"#));
    let said: serde_json::Value =
        serde_json::from_slice(&answer.payload).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!((&said["echo"], &said["count"]), (&value.into(), &count.into()), "{} {said}", client.name);
    let id = said["id"].as_str().unwrap();
    assert_eq!(said["trace"], format!("Root=1-{}", id.trim_start_matches("request-")), "{said}");
    assert_eq!((&said["function"], &said["memory"]), (&"function".into(), &128.into()), "{said}");
    assert_eq!(said["arn"], "arn:aws:lambda:local:000000000000:function:function", "{said}");
    // Its lines come with the event, before its end.
    assert!(answer.log.contains(&format!("{}: {id} ", client.name)), "{:?}", answer.log);
    assert!(answer.done.memory_peak_bytes > 100_000, "{:?}", answer.done);
}

fn cold_and_warm(client: &Client) {
    let Some(sandbox) = (client.make)() else { return };
    let mut running = sandbox.up();
    assert!(running.log.contains(&format!("{}: cold", client.name)), "{:?}", running.log);
    for number in 1..=101 {
        echo(client, &mut running, number, number);
    }
    let (log, status) = running.shutdown();
    assert!(status.success(), "{status} {log}");
}

fn errors(client: &Client) {
    let Some(sandbox) = (client.make)() else { return };
    let mut running = sandbox.up();
    let failed = running.invoke(r#"{"do":"fail"}"#);
    assert_eq!(failed.error(), client.error);
    assert!(failed.text().contains("as you wish"), "{failed:?}");
    echo(client, &mut running, 1, 2);
    // A runtime that ends is named, and the next event finds a new one.
    let exited = running.invoke(r#"{"do":"exit"}"#);
    let detail =
        "exit 3: Runtime.ExitError: RequestId: request-3 Error: Runtime exited with error: exit status 3";
    assert_eq!(exited.error(), detail);
    assert!(exited.text().contains(r#""errorType":"Runtime.ExitError""#), "{exited:?}");
    echo(client, &mut running, 2, 1);
    let (_, status) = running.shutdown();
    assert!(status.success());
}

fn too_large(client: &Client) {
    let Some(sandbox) = (client.make)() else { return };
    let mut running = sandbox.up();
    let most = 6 << 20;
    let answer = running.invoke(&format!(r#"{{"do":"large","bytes":{}}}"#, most - 2));
    assert!(answer.payload.len() >= most - 2, "{}", answer.error());
    let answer = running.invoke(&format!(r#"{{"do":"large","bytes":{}}}"#, most + 100));
    assert!(
        answer.error().starts_with("response-too-large 0: Function.ResponseSizeTooLarge: "),
        "{}",
        answer.error()
    );
    echo(client, &mut running, 1, if client.survives_refusal { 3 } else { 1 });
}

fn timeout(client: &Client) {
    let Some(sandbox) = (client.make)() else { return };
    let mut running = sandbox.up();
    let answer = running.invoke_within(r#"{"do":"sleep"}"#, 300);
    assert_eq!(answer.error(), "TimedOut");
    assert!(answer.log.contains(&format!("{}: request-1 ", client.name)), "{answer:?}");
    let (log, status) = running.end();
    assert!(status.success(), "{log}");
}

fn init_failures(client: &Client) {
    let Some(sandbox) = (client.make)() else { return };
    let mut running = sandbox.variable("INIT", "exit").start();
    let error = running.init.clone().unwrap_err();
    assert_eq!((error.failure, error.error_type.as_str()), (InitFailure::Exited, "Runtime.ExitError"));
    assert!(running.log.contains(&format!("{}: cold", client.name)), "{:?}", running.log);
    assert!(running.log.contains("Status: error\tError Type: Runtime.ExitError"), "{:?}", running.log);
    // The event that comes nevertheless tries again, and is told the same.
    let answer = running.invoke("{}");
    assert!(answer.error().starts_with("exit 7: Runtime.ExitError: "), "{}", answer.error());
    if let (Some(kind), Some(sandbox)) = (client.init_error, (client.make)()) {
        let mut running = sandbox.variable("INIT", "raise").start();
        let error = running.init.clone().unwrap_err();
        assert_eq!((error.failure, error.error_type.as_str()), (InitFailure::Runtime, kind));
        let answer = running.invoke("{}");
        assert!(answer.error().starts_with(&format!("init 0: {kind}: ")), "{}", answer.error());
    }
}

fn init_that_takes_too_long(client: &Client) {
    let Some(mut sandbox) = (client.make)() else { return };
    sandbox.config.init_timeout = 400.try_into().unwrap();
    let mut running = sandbox.variable("INIT", "sleep").start();
    let error = running.init.clone().unwrap_err();
    assert_eq!((error.failure, error.error_type.as_str()), (InitFailure::TimedOut, "Sandbox.Timedout"));
    let answer = running.invoke_within("{}", 400);
    assert_eq!(answer.error(), "TimedOut");
}

fn every_case(client: &Client) {
    cold_and_warm(client);
    errors(client);
    too_large(client);
    timeout(client);
    init_failures(client);
    init_that_takes_too_long(client);
}

#[test]
fn shell_with_curl() {
    every_case(&SHELL);
}

#[test]
fn python_under_awslambdaric() {
    every_case(&PYTHON);
}

#[test]
fn rust_under_lambda_runtime() {
    every_case(&RUST);
}

/// Built from source on installation, so only in the full form; `WARREN_SOAK=1`.
#[test]
fn node_under_aws_lambda_ric() {
    if std::env::var_os("WARREN_SOAK").is_some() {
        every_case(&NODE);
    }
}

#[test]
fn a_bootstrap_that_is_not_there_is_said() {
    let mut sandbox = Sandbox::new();
    sandbox.config.function = Text::cut("nothing");
    let running = sandbox.start();
    let error = running.init.clone().unwrap_err();
    assert_eq!(error.error_type.as_str(), "Runtime.InvalidEntrypoint");
    assert!(error.message.as_str().starts_with("Couldn't find valid bootstrap(s): ["), "{error:?}");
}

/// What only the shell function can do: break rules of the Runtime API one at a time.
#[test]
fn rules_of_the_runtime_api() {
    let mut running = shell().unwrap().up();
    let twice = running.invoke(r#"{"do":"twice"}"#);
    assert_eq!(twice.text(), "1");
    assert!(twice.log.contains("shell: status 202\nshell: status 403"), "{twice:?}");
    let stranger = running.invoke(r#"{"do":"stranger"}"#);
    assert_eq!(stranger.text(), r#""mine""#);
    assert!(stranger.log.contains("shell: status 400\nshell: status 202"), "{stranger:?}");
    let stream = running.invoke(r#"{"do":"stream"}"#);
    assert_eq!(stream.text(), "one two");
    let broken = running.invoke(r#"{"do":"broken"}"#);
    assert_eq!(broken.error(), "handler 0: Stream.Broke: half way");
    assert_eq!(broken.text(), r#"{"errorType": "Stream.Broke", "errorMessage": "half way"}"#);
    let mode = running.invoke(r#"{"do":"mode"}"#);
    assert_eq!(mode.text(), r#""whole""#);
    assert!(mode.log.contains("shell: status 400\nshell: status 202"), "{mode:?}");
    let large = running.invoke(&format!(r#"{{"do":"large","bytes":{}}}"#, (6 << 20) + 100));
    assert!(large.log.contains("shell: status 413"), "{large:?}");
    // Every line arrives, in order, with the event that wrote it.
    let flood = running.invoke(r#"{"do":"flood"}"#);
    assert_eq!(flood.log.matches('y').count(), 3_000_000);
    assert_eq!(flood.text(), r#""flooded""#);
}

/// A host that goes away in the middle: the next connection gets what this one did not.
#[test]
fn a_connection_takes_the_place_of_another() {
    let mut running = shell().unwrap().up();
    echo(&SHELL, &mut running, 1, 1);
    running.connect_again();
    echo(&SHELL, &mut running, 2, 2);
}

/// What a runtime left behind ends with it, and is reaped.
#[test]
fn orphans_end_with_their_program() {
    let mut running = shell().unwrap().up();
    assert_eq!(running.invoke(r#"{"do":"orphan"}"#).text(), r#""left""#);
    let pid = running.pid();
    let (_, status) = running.shutdown();
    assert!(status.success());
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        status.contains(&format!("\nPPid:\t{pid}\n"))
    });
    assert_eq!(left.count(), 0);
}
