//! What a supervisor and its runtime do that are written down and brought back. Nothing is, here: what a copy is told comes over a
//! second connection, and what it then does is the same. Copies in guests are `guest::copies_*`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

mod support;

use support::fetched::{self, functions};
use support::{Running, Sandbox, restored};
use warren_vmm_protocol::guest::{GuestReply, InitFailure, Text};

/// The shell function, which waits to be restored as `RESTORE` says.
fn shell(restore: &str) -> Sandbox {
    let sandbox = Sandbox::new().copy(&functions().join("shell/bootstrap"), "var/task/bootstrap");
    sandbox.variable("RESTORE", restore).for_a_snapshot()
}

/// The Python function under awslambdaric, with hooks that do as `RESTORE` says.
fn python(restore: &str) -> Option<Sandbox> {
    let words = fetched::python_words("app.handler")?;
    let mut sandbox = Sandbox::new().copy(&functions().join("python/app.py"), "var/task/app.py");
    sandbox.config.entrypoint = words.each_ref().map(|word| Text::cut(word)).to_vec();
    Some(sandbox.variable("RESTORE", restore))
}

/// The Node.js function under aws-lambda-ric, the same way; in the full form only (`clients`).
fn node(restore: &str) -> Option<Sandbox> {
    let words = std::env::var_os("WARREN_SOAK").and_then(|_| fetched::node_words("app.handler"))?;
    let mut sandbox = Sandbox::new().copy(&functions().join("node/app.mjs"), "var/task/app.mjs");
    sandbox.config.entrypoint = words.each_ref().map(|word| Text::cut(word)).to_vec();
    Some(sandbox.variable("RESTORE", restore))
}

/// Written down and brought back: on another connection.
fn second_life(running: &mut Running, generation: u128) {
    assert_eq!(running.hold_still(), Some(false), "no kernel's group holds programs here");
    running.connect_again();
    running.log.clear();
    assert!(running.restore(&restored(generation)), "no acknowledgement came first");
}

fn error(running: &Running) -> (InitFailure, &str, &str) {
    let error = running.init.as_ref().unwrap_err();
    (error.failure, error.error_type.as_str(), error.message.as_str())
}

fn answers(running: &mut Running, count: usize) {
    let answer = running.invoke(r#"{"value":7}"#);
    assert!(answer.text().replace(' ', "").contains(&format!(r#""echo":7,"count":{count},"#)), "{answer:?}");
}

#[test]
fn a_runtime_that_waits_to_be_restored_hears_of_it() {
    let mut running = shell("wait").up();
    assert!(!running.log.contains("restored"), "{}", running.log);
    second_life(&mut running, 1);
    assert_eq!(running.init, Ok(()), "{}", running.log);
    answers(&mut running, 1);
    assert_eq!(running.log.matches("shell: restored, snap-start").count(), 1, "{}", running.log);
    // A copy of the copy: its runtime waits for events by now.
    second_life(&mut running, 2);
    assert_eq!(running.init, Ok(()));
    answers(&mut running, 2);
    assert!(!running.log.contains("restored"), "{}", running.log);
}

#[test]
fn a_runtime_that_knows_nothing_of_it_goes_on() {
    let mut running = shell("").up();
    second_life(&mut running, 1);
    assert_eq!((running.init.clone(), running.init_us), (Ok(()), 0));
    answers(&mut running, 1);
}

/// One that nobody brought back, and one whose programs were started again.
#[test]
fn an_event_does_not_wait_for_a_restore() {
    let mut running = shell("wait").up();
    answers(&mut running, 1);
    assert!(running.log.contains("shell: restored"), "{}", running.log);
    assert!(running.invoke(r#"{"do":"exit"}"#).error().starts_with("exit 3"));
    answers(&mut running, 1);
    assert_eq!(running.log.matches("shell: restored").count(), 2, "{}", running.log);
}

#[test]
fn who_holds_still_runs_no_event_of_another_connection() {
    let mut running = shell("").up();
    answers(&mut running, 1);
    // On its own connection it is who it was.
    assert_eq!(running.hold_still(), Some(false));
    answers(&mut running, 2);
    assert_eq!(running.hold_still(), Some(false));
    for _ in 0..2 {
        running.connect_again();
        assert!(running.refuses_an_event());
        running.connect_again();
        assert_eq!(running.hold_still(), None);
    }
    running.connect_again();
    assert!(running.restore(&restored(5)));
    answers(&mut running, 3);
    running.connect_again();
    answers(&mut running, 4);
}

#[test]
fn one_generation_is_one_restore() {
    let mut running = shell("wait").up();
    let told = restored(9);
    // Who did not hold still is no copy.
    assert_eq!(running.restore_again(&told), None);
    running.connect_again();
    second_life(&mut running, 9);
    assert_eq!(running.restore_again(&told), Some(GuestReply::Acknowledged));
    running.connect_again();
    assert_eq!(running.restore_again(&told), Some(GuestReply::Acknowledged));
    assert_eq!(running.restore_again(&restored(10)), None, "it holds still no more");
    running.connect_again();
    answers(&mut running, 1);
    assert_eq!(running.log.matches("shell: restored").count(), 1, "{}", running.log);
}

/// No function is in it when it is written down: what is brought back becomes one of its own, and only then a function's.
#[test]
fn nobodys_is_its_own_before_it_is_a_functions() {
    let (mut running, config) = shell("wait").unconfigured();
    let told = restored(1);
    assert_eq!(running.restore_again(&told), None, "nobody wrote it down");
    running.connect_again();
    assert!(running.refuses_an_event(), "no function is in it");
    running.connect_again();
    assert_eq!(running.hold_still(), Some(true), "no program is there that could run");
    running.connect_again();
    assert!(running.refuses_to_be_configured(&config), "it may be a copy");
    running.connect_again();
    assert_eq!(running.restore_again(&told), Some(GuestReply::Acknowledged));
    // The answer may have been lost with its connection.
    running.connect_again();
    assert_eq!(running.restore_again(&told), Some(GuestReply::Acknowledged));
    assert_eq!(running.restore_again(&restored(2)), None, "it holds still no more");
    running.connect_again();
    running.configure(config);
    assert_eq!(running.init, Ok(()), "{}", running.log);
    // The function's own is as any.
    second_life(&mut running, 3);
    answers(&mut running, 1);
    assert_eq!(running.log.matches("shell: restored, snap-start").count(), 1, "{}", running.log);
}

/// On its own connection it is who it was; of another version it never is one of its own.
#[test]
fn nobodys_goes_on_or_ends() {
    let (mut running, config) = shell("").unconfigured();
    assert_eq!(running.hold_still(), Some(true));
    running.configure(config);
    answers(&mut running, 1);

    let (mut running, _) = shell("").unconfigured();
    assert_eq!(running.hold_still(), Some(true));
    running.connect_again();
    let told = warren_vmm_protocol::guest::Restored { version: 1, ..restored(1) };
    match running.restore_again(&told) {
        Some(GuestReply::InitFailed { error, .. }) => assert_eq!(error.failure, InitFailure::Guest),
        other => panic!("{other:?}"),
    }
    assert!(running.end().1.success());
}

#[test]
fn nobody_holds_still_in_the_middle_of_an_event() {
    let mut running = shell("").up();
    running.begin(r#"{"do":"sleep"}"#);
    assert_eq!(running.hold_still(), None);
}

#[test]
fn another_version_ends_the_sandbox_before_anything_runs() {
    let mut running = shell("wait").up();
    assert!(running.hold_still().is_some());
    running.connect_again();
    running.log.clear();
    let told = warren_vmm_protocol::guest::Restored { version: 1, ..restored(1) };
    assert!(!running.restore(&told));
    let (failure, kind, message) = error(&running);
    assert_eq!((failure, kind), (InitFailure::Guest, "Sandbox.SetupFailed"));
    assert!(message.contains("the host speaks version 1"), "{message}");
    let (log, status) = running.end();
    assert!(status.success() && !log.contains("restored"), "{log}");
}

#[test]
fn a_hook_that_fails_fails_the_start_by_its_name() {
    for (restore, kind) in [("fail", "Runtime.AfterRestoreError"), ("exit", "Runtime.ExitError")] {
        let mut running = shell(restore).up();
        second_life(&mut running, 1);
        let (failure, said, _) = error(&running);
        assert_eq!((failure, said), (InitFailure::Restore, kind));
        let report = format!("Phase: restore\tStatus: error\tError Type: {kind}");
        assert!(running.log.contains(&report), "{}", running.log);
        assert!(running.end().1.success());
    }
}

#[test]
fn only_who_is_to_be_written_down_may_wait_for_it() {
    let running = Sandbox::new()
        .copy(&functions().join("shell/bootstrap"), "var/task/bootstrap")
        .variable("RESTORE", "wait")
        .start();
    // Its curl is refused, and it says so by ending.
    assert_eq!(error(&running).1, "Runtime.ExitError");
    assert!(running.log.contains("shell: status 403"), "{}", running.log);
}

/// Hooks before and after, in their orders, under a client of a registry that is told of them.
fn hooks(name: &str, sandbox: Option<Sandbox>) {
    let Some(sandbox) = sandbox else { return };
    let mut running = sandbox.for_a_snapshot().up();
    let before = format!("{name}: before snapshot, second\n{name}: before snapshot, first\n");
    assert!(running.log.contains(&before), "{}", running.log);
    second_life(&mut running, 1);
    assert_eq!(running.init, Ok(()), "{}", running.log);
    let after = format!("{name}: after restore, first\n{name}: after restore, second\n");
    assert!(running.log.contains(&after), "{}", running.log);
    answers(&mut running, 1);
}

/// Two that fail, each in a sandbox of its own: after, before.
fn hooks_that_fail([after, before]: [Option<Sandbox>; 2], said: [&str; 2]) {
    let (Some(after), Some(before)) = (after, before) else { return };
    let mut running = after.for_a_snapshot().up();
    second_life(&mut running, 1);
    assert_eq!(error(&running), (InitFailure::Restore, "Runtime.AfterRestoreError", said[0]));
    let running = before.for_a_snapshot().start();
    assert_eq!(error(&running), (InitFailure::Runtime, "Runtime.BeforeSnapshotError", said[1]));
}

#[test]
fn hooks_of_awslambdaric_run_before_and_after() {
    hooks("python", python("hooks"));
}

#[test]
fn hooks_of_awslambdaric_that_fail_are_named() {
    let both = [python("after-fails"), python("before-fails")];
    hooks_that_fail(both, ["ValueError: no restore", "ValueError: no snapshot"]);
}

/// Which it does not have by itself.
#[test]
fn hooks_of_node_run_before_and_after() {
    hooks("node", node("hooks"));
    let both = [node("after-fails"), node("before-fails")];
    hooks_that_fail(both, ["TypeError: no after-fails", "TypeError: no before-fails"]);
}

/// What `random.seed(7)` gives first, for who draws 48 bits.
const SEVENS: &str = "random\":266800464311352,";

/// Seeded in init; whoever is no copy draws what follows from that.
#[test]
fn a_copy_is_seeded_anew_before_it_draws() {
    let draws = |snapshot: bool| {
        let sandbox = python("")?.variable("DRAWS", "7");
        let mut running = if snapshot { sandbox.for_a_snapshot() } else { sandbox }.up();
        if snapshot {
            second_life(&mut running, 1);
        }
        Some(running.invoke(r#"{"do":"draw"}"#).text().replace(' ', ""))
    };
    let (Some(copy), Some(other)) = (draws(true), draws(false)) else { return };
    assert!(other.contains(SEVENS), "{other}");
    assert!(copy.contains("random") && !copy.contains(SEVENS), "{copy}");
}
