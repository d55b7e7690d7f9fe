//! Extensions: under unmodified lambda-extension, and by hand where a rule needs a program that breaks it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

mod support;

use support::Sandbox;
use support::fetched::{self, functions};
use warren_vmm_protocol::guest::InitFailure;

/// The shell function with extensions of this name.
fn with(names: &[&str]) -> Option<Sandbox> {
    let program = fetched::rust()?.join("extension");
    let sandbox = Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap");
    Some(
        names.iter().fold(sandbox, |sandbox, name| sandbox.copy(&program, &format!("opt/extensions/{name}"))),
    )
}

/// Waits until the log has a text; what is written between events comes with the next.
fn until(running: &mut support::Running, text: &str) {
    for _ in 0..200 {
        if running.log.contains(text) {
            return;
        }
        running.invoke(r#"{"value":1}"#);
    }
    panic!("{text:?} is not in {}", running.log);
}

#[test]
fn two_extensions_see_every_event_and_the_end() {
    let Some(sandbox) = with(&["one", "two"]) else { return };
    let mut running = sandbox.up();
    for name in ["one", "two"] {
        let line = format!("EXTENSION\tName: {name}\tState: Registered\tEvents: [INVOKE, SHUTDOWN]");
        assert!(running.log.contains(&line), "{}", running.log);
    }
    for number in 1..=3 {
        let answer = running.invoke(r#"{"value":1}"#);
        for name in ["one", "two"] {
            let line = format!("{name}: invoke request-{number} Root=1-{number}\n");
            assert!(answer.log.contains(&line), "{answer:?}");
        }
    }
    let (log, status) = running.shutdown();
    assert!(
        status.success() && log.contains("one: shutdown spindown") && log.contains("two: shutdown spindown"),
        "{log}"
    );
}

#[test]
fn a_timeout_and_a_failure_are_told_to_extensions() {
    let Some(sandbox) = with(&["one"]) else { return };
    let mut running = sandbox.up();
    let answer = running.invoke(r#"{"do":"exit"}"#);
    assert!(answer.error().starts_with("exit 3"), "{answer:?}");
    // Everything starts over, the extension too.
    let answer = running.invoke(r#"{"value":1}"#);
    assert!(answer.text().contains(r#""count":1"#), "{answer:?}");
    assert!(running.log.contains("one: shutdown failure"), "{}", running.log);
    assert_eq!(running.invoke_within(r#"{"do":"sleep"}"#, 300).error(), "TimedOut");
    let (log, _) = running.end();
    assert!(log.contains("one: shutdown timeout"), "{log}");
}

#[test]
fn extensions_that_end_or_fail_are_named() {
    for (how, kind) in [("exit", "Extension.Crash"), ("fail", "Extension.InitError")] {
        let Some(sandbox) = with(&["one"]) else { return };
        let mut running = sandbox.variable("EXTENSION", how).start();
        let name = if let Err(error) = running.init.clone() {
            assert_eq!(error.failure, InitFailure::Extension);
            error.error_type.as_str().to_owned()
        } else {
            running.invoke(r#"{"value":1}"#).error()
        };
        assert!(name.contains(kind), "{how}: {name}");
    }
}

#[test]
fn telemetry_comes() {
    let Some(sandbox) = with(&["one"]) else { return };
    let mut running = sandbox.variable("TELEMETRY", "1").up();
    running.invoke(r#"{"value":1}"#);
    running.invoke(r#"{"do":"fail"}"#);
    for record in [
        r#"{"type":"platform.initRuntimeDone","record":{"initializationType":"on-demand","phase":"init","status":"success""#,
        r#"{"type":"platform.start","record":{"requestId":"request-1","version":"$LATEST""#,
        r#"{"type":"function","record":"shell: request-1 "}"#,
        r#"{"type":"platform.runtimeDone","record":{"requestId":"request-1","status":"success""#,
        r#"{"type":"platform.report","record":{"requestId":"request-2","status":"error","errorType":"ValueError""#,
        r#""type":"platform.telemetrySubscription","record":{"name":"one","state":"Subscribed""#,
    ] {
        until(&mut running, record);
    }
    // A subscription is for init; the runtime registers no extension once it waits.
    let (log, status) = running.shutdown();
    assert!(status.success(), "{log}");
}

/// An extension in a few lines of shell, which a test can bend.
const BY_HAND: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension"
say() { curl -sS -o /dev/null -D /dev/stdout "$@" | tr -d '\r' | grep -iE '^(HTTP|lambda-extension-identifier)' ; }
name=$(basename "$0")
ask() { say -X POST -H "Lambda-Extension-Name: $1" -d "$2" "$api/register" | sed "s/^/$1: /"; }
ask "$name" '{"events":["NONSENSE"]}'
ask "$name" 'no json'
ask "" '{}'
ask stranger '{"events":["INVOKE"]}'
id=$(say -X POST -H "Lambda-Extension-Name: $name" -d '{"events":["INVOKE","SHUTDOWN"]}' "$api/register" | sed -n 's/^[Ll]ambda.*: //p')
ask "$name" '{"events":[]}'
next() { curl -sS -H "Lambda-Extension-Identifier: $1" "$api/event/next"; }
next nobody; echo
next ''; echo
telemetry() { curl -sS -X PUT -H "Lambda-Extension-Identifier: $id" -d "$1" "http://$AWS_LAMBDA_RUNTIME_API/2022-07-01/telemetry"; echo; }
telemetry '{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"HTTP","URI":"http://example.com:80"}}'
trap '' TERM
# Once nobody serves any more, as when a test is over, there is nothing to wait for.
while next "$id" > /dev/null; do [ -z "${DEAF-}" ] || sleep 3600; done
"#;

#[test]
fn what_breaks_a_rule_is_refused_as_lambda_does() {
    let sandbox = Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap");
    let mut running = sandbox.program("opt/extensions/hand", BY_HAND).up();
    running.invoke(r#"{"value":1}"#);
    for said in [
        "hand: HTTP/1.1 403 Forbidden",
        "stranger: HTTP/1.1 403 Forbidden",
        r#"{"errorMessage":"Unknown extension","errorType":"Extension.UnknownExtensionIdentifier"}"#,
        "Extension.MissingExtensionIdentifier",
        r#"is not http://sandbox.localdomain:PORT","errorType":"ValidationError"}"#,
    ] {
        assert!(running.log.contains(said), "{said:?} is not in {}", running.log);
    }
    assert_eq!(running.log.matches("hand: HTTP/1.1 403").count(), 3, "{}", running.log);
}

#[test]
fn one_that_never_ends_is_ended() {
    let sandbox = Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap");
    let running = sandbox.program("opt/extensions/hand", BY_HAND).variable("DEAF", "1").up();
    let (log, status) = running.shutdown();
    assert!(status.success(), "{log}");
}

#[test]
fn one_that_is_no_program_fails_init() {
    let sandbox = Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap");
    let running = sandbox.program("opt/extensions/hand", "no program").start();
    let error = running.init.clone().unwrap_err();
    assert_eq!(error.failure, InitFailure::Extension);
    assert_eq!(error.error_type.as_str(), "Extension.LaunchError", "{error:?}");
}
