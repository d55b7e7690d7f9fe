//! Unmodified clients of Lambda's APIs against the supervisor: each runtime through the same cases.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

mod support;

use std::path::Path;
use support::Sandbox;
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

fn functions() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/functions"))
}

#[expect(clippy::unnecessary_wraps, reason = "as the others are made")]
fn shell() -> Option<Sandbox> {
    Some(Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap"))
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
fn a_bootstrap_that_is_not_there_is_said() {
    let mut sandbox = Sandbox::new();
    sandbox.config.function = Text::cut("nothing");
    let running = sandbox.start();
    let error = running.init.clone().unwrap_err();
    assert_eq!(error.error_type.as_str(), "Runtime.InvalidEntrypoint");
    assert!(error.message.as_str().starts_with("Couldn't find valid bootstrap(s): ["), "{error:?}");
}
