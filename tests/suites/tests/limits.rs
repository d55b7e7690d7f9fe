//! The table of limits and bad input: each row gives its typed status, then the next good invocation succeeds and
//! nothing is left over.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use std::process::ExitCode;
use tokio::time::{Duration, timeout};
use tonic::Code;
use warren_proto::{
    MAX_PAYLOAD_BYTES,
    error::{Fault, WireError},
    reason,
    v1::{DrainHostRequest, InvokeRequest, SandboxState},
};
use warren_suites::{Deploy, Expected, Installation, Options, Suite, cases, expect_error, modules};

const ACCOUNT: usize = 6;

fn main() -> ExitCode {
    let cases = cases![
        modules_that_cannot_be_deployed,
        a_module_that_takes_forever_to_compile,
        components_that_are_bombs,
        settings_out_of_range,
        functions_that_fail_alone,
        a_function_that_fails_serves_again,
        payloads_over_the_limit,
        unknown_names,
        the_functions_own_limit,
        the_accounts_limit,
        a_client_that_leaves,
        two_deploys_of_one_name,
        a_bad_token_is_refused,
        a_host_that_is_not_there,
    ];
    let options = Options { number: 2, arguments: &["--account-concurrency=6"], ..Options::default() };
    Suite { name: "limits", options, cases }.main()
}

/// A neighbour answers, and nothing is on its way.
async fn nothing_is_disturbed(warren: &Installation) -> Result<()> {
    let name = warren.name("neighbour");
    warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    let answer = warren.invoke(&name, "{}").await.context("the next good invocation")?;
    ensure!(answer.payload == br#"{"ok":true}"#[..], "the neighbour answered {:?}", answer.payload);
    warren.settled().await?;
    warren.remove(&name).await?;
    warren.gone(&name).await
}

async fn modules_that_cannot_be_deployed(warren: &Installation) -> Result<()> {
    let bad = |reason| Expected::function(Code::InvalidArgument, reason);
    let much = Deploy { memory_mib: 128, ..Deploy::default() };
    let rows: [(&str, Vec<u8>, Expected); 6] = [
        ("nothing", Vec::new(), bad("MODULE_MALFORMED")),
        ("no wasm", b"this is a text, no module".to_vec(), bad("MODULE_MALFORMED")),
        ("cut short", modules::assemble(&modules::good())?[..60].to_vec(), bad("MODULE_MALFORMED")),
        ("odd import", modules::assemble(modules::ODD_IMPORT)?, bad("MISSING_IMPORT")),
        ("no handler", modules::assemble(modules::NO_HANDLER)?, bad("MISSING_EXPORT")),
        ("wants much memory", modules::assemble(modules::WANTS_MUCH)?, bad("MODULE_NEEDS_MORE_MEMORY")),
    ];
    for (what, code, expected) in rows {
        let name = warren.name("bad");
        let expected =
            if code.is_empty() { Expected::caller(Code::InvalidArgument, "BAD_REQUEST") } else { expected };
        expect_error(warren.deploy(&name, code, much.clone()).await, expected).context(what)?;
        // It was not kept.
        let gone = Expected::caller(Code::NotFound, reason::NO_SUCH_FUNCTION);
        expect_error(warren.invoke(&name, "{}").await, gone).context(what)?;
        nothing_is_disturbed(warren).await.context(what)?;
    }
    Ok(())
}

async fn a_module_that_takes_forever_to_compile(warren: &Installation) -> Result<()> {
    let name = warren.name("bomb");
    let bomb = modules::assemble(&modules::compile_bomb())?;
    let status =
        warren.deploy(&name, bomb, Deploy::default()).await.err().context("the bomb was compiled")?;
    let error = WireError::from_status(&status);
    // Which limit strikes first depends on the machine: all of them are the module's fault.
    let limits = ["COMPILE_TIMED_OUT", "COMPILE_OUT_OF_MEMORY", "MODULE_TOO_COMPLEX"];
    ensure!(limits.contains(&error.reason.as_str()), "{error:?}");
    ensure!(error.fault == Fault::Function, "{error:?}");
    nothing_is_disturbed(warren).await
}

async fn components_that_are_bombs(warren: &Installation) -> Result<()> {
    let structure = ["MODULE_TOO_COMPLEX"].as_slice();
    // A component that exports no handler may be refused for that before any of it is compiled.
    let work =
        ["COMPILE_TIMED_OUT", "COMPILE_OUT_OF_MEMORY", "MODULE_TOO_COMPLEX", "MISSING_EXPORT"].as_slice();
    let rows = [
        ("components in components", modules::nested_components(), structure),
        ("a thousand modules", modules::many_modules(), structure),
        ("a hundred thousand types", modules::many_types(), structure),
        ("much to compile", modules::component_bomb(), work),
    ];
    for (what, text, reasons) in rows {
        let name = warren.name("bomb");
        let answer = warren.deploy(&name, modules::assemble(&text)?, Deploy::default()).await;
        let error =
            WireError::from_status(&answer.err().with_context(|| format!("{what}: it was deployed"))?);
        ensure!(reasons.contains(&error.reason.as_str()), "{what}: {error:?}");
        ensure!(error.fault == Fault::Function && !error.retryable, "{what}: {error:?}");
        nothing_is_disturbed(warren).await.context(what)?;
    }
    Ok(())
}

async fn settings_out_of_range(warren: &Installation) -> Result<()> {
    let good = modules::assemble(&modules::good())?;
    let rows = [
        ("bad/name", Deploy::default()),
        ("UPPER", Deploy::default()),
        ("", Deploy::default()),
        ("little-memory", Deploy { memory_mib: 5, ..Deploy::default() }),
        ("much-memory", Deploy { memory_mib: 20_000, ..Deploy::default() }),
        ("long", Deploy { timeout_ms: 900_001, ..Deploy::default() }),
    ];
    for (name, how) in rows {
        let expected = Expected::caller(Code::InvalidArgument, reason::BAD_REQUEST);
        expect_error(warren.deploy(name, good.clone(), how).await, expected)
            .with_context(|| format!("{name:?}"))?;
    }
    nothing_is_disturbed(warren).await
}

async fn functions_that_fail_alone(warren: &Installation) -> Result<()> {
    let failed = |reason| Expected::function(Code::Unknown, reason);
    let timed_out = Expected::function(Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT);
    let json = Deploy { json_response: true, ..Deploy::default() };
    let short = Deploy { timeout_ms: 1_000, ..Deploy::default() };
    let rows = [
        ("trap", modules::trap(), Deploy::default(), failed("FUNCTION_TRAPPED")),
        ("spin", modules::spin(), short, timed_out),
        ("hoard", modules::hoard(), Deploy::default(), failed("FUNCTION_OUT_OF_MEMORY")),
        ("recurse", modules::recurse(), Deploy::default(), failed("FUNCTION_STACK_OVERFLOW")),
        (
            "flood",
            modules::flood(),
            Deploy::default(),
            Expected::function(Code::OutOfRange, "RESPONSE_TOO_LARGE"),
        ),
        ("exit", modules::exit(3), Deploy::default(), failed("FUNCTION_EXITED")),
        ("no UTF-8", modules::not_utf8(), json, failed("RESPONSE_NOT_UTF8_JSON")),
    ];
    for (what, text, how, expected) in rows {
        let name = warren.name("fails");
        warren.deploy(&name, modules::assemble(&text)?, how).await.context(what)?;
        for round in 0..2 {
            expect_error(warren.invoke(&name, "{}").await, expected)
                .with_context(|| format!("{what}, round {round}"))?;
        }
        nothing_is_disturbed(warren).await.context(what)?;
        warren.remove(&name).await?;
        warren.gone(&name).await.context(what)?;
    }
    Ok(())
}

async fn a_function_that_fails_serves_again(warren: &Installation) -> Result<()> {
    let name = warren.name("obedient");
    let how = Deploy { timeout_ms: 1_000, ..Deploy::default() };
    warren.deploy(&name, modules::assemble(&modules::obedient())?, how).await?;
    let failed = |reason| Expected::function(Code::Unknown, reason);
    let timed_out = Expected::function(Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT);
    for (event, expected) in
        [("t", failed("FUNCTION_TRAPPED")), ("s", timed_out), ("e", failed("FUNCTION_EXITED"))]
    {
        warren.invoke(&name, "good").await.with_context(|| format!("before {event}"))?;
        expect_error(warren.invoke(&name, event).await, expected)?;
        let answer = warren.invoke(&name, "good").await.with_context(|| format!("after {event}"))?;
        ensure!(answer.payload == br#"{"ok":true}"#[..], "{:?}", answer.payload);
        // A timeout costs the sandbox; nothing may be left of it.
        let sandboxes = warren.settled().await?;
        let own = sandboxes.iter().filter(|sandbox| sandbox.function == name).count();
        ensure!(own == 1, "{own} sandboxes after {event}");
    }
    Ok(())
}

async fn payloads_over_the_limit(warren: &Installation) -> Result<()> {
    let name = warren.name("size");
    warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    let most = Bytes::from(vec![b' '; MAX_PAYLOAD_BYTES]);
    warren.invoke(&name, most).await.context("exactly 6 MiB")?;
    let more = Bytes::from(vec![b' '; MAX_PAYLOAD_BYTES + 1]);
    let expected = Expected::caller(Code::InvalidArgument, reason::PAYLOAD_TOO_LARGE);
    expect_error(warren.invoke(&name, more).await, expected)?;
    nothing_is_disturbed(warren).await
}

async fn unknown_names(warren: &Installation) -> Result<()> {
    let none = Expected::caller(Code::NotFound, reason::NO_SUCH_FUNCTION);
    expect_error(warren.invoke("nobody", "{}").await, none)?;
    expect_error(warren.remove("nobody").await, none)?;
    let name = warren.name("known");
    warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    let request = InvokeRequest { function: name, version: 77, ..InvokeRequest::default() };
    let answer = warren.client.invoke().invoke(request).await;
    expect_error(answer, Expected::caller(Code::NotFound, reason::NO_SUCH_VERSION))?;
    nothing_is_disturbed(warren).await
}

/// Starts calls that spin, and waits until that many sandboxes of the function are busy.
async fn occupy(warren: &Installation, name: &str, count: usize) -> Result<tokio::task::JoinSet<()>> {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let client = warren.client.clone();
        let request = InvokeRequest { function: name.to_owned(), ..InvokeRequest::default() };
        calls.spawn(async move {
            let ended = client.invoke().invoke(request).await.map(drop);
            if let Err(status) = ended
                && status.code() != Code::DeadlineExceeded
            {
                println!("    not spinning: {status:?}");
            }
        });
    }
    timeout(Duration::from_mins(1), async {
        loop {
            let sandboxes = warren.sandboxes().await?;
            let busy = |sandbox: &&warren_proto::v1::Sandbox| {
                sandbox.function == name && sandbox.state() == SandboxState::Busy
            };
            if sandboxes.iter().filter(busy).count() == count {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .with_context(|| format!("{count} sandboxes of {name} do not get busy"))??;
    Ok(calls)
}

async fn the_functions_own_limit(warren: &Installation) -> Result<()> {
    let name = warren.name("reserved");
    let how = Deploy { timeout_ms: 4_000, reserved: Some(2), ..Deploy::default() };
    warren.deploy(&name, modules::assemble(&modules::spin())?, how).await?;
    let calls = occupy(warren, &name, 2).await?;
    expect_error(warren.invoke(&name, "{}").await, Expected::throttle(reason::FUNCTION_CONCURRENCY))?;
    // Others are not disturbed while it is full.
    let other = warren.name("other");
    warren.deploy(&other, modules::assemble(&modules::good())?, Deploy::default()).await?;
    warren.invoke(&other, "{}").await.context("a neighbour of a full function")?;
    calls.join_all().await;
    warren.settled().await?;
    let again = warren.invoke(&name, "{}").await;
    expect_error(again, Expected::function(Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT))?;
    // Its reservation goes with it: the account's own limit is whole again.
    warren.remove(&name).await?;
    nothing_is_disturbed(warren).await
}

async fn the_accounts_limit(warren: &Installation) -> Result<()> {
    let name = warren.name("account");
    let how = Deploy { timeout_ms: 6_000, ..Deploy::default() };
    warren.deploy(&name, modules::assemble(&modules::spin())?, how).await?;
    let other = warren.name("other");
    warren.deploy(&other, modules::assemble(&modules::good())?, Deploy::default()).await?;
    let calls = occupy(warren, &name, ACCOUNT).await?;
    for function in [&name, &other] {
        expect_error(warren.invoke(function, "{}").await, Expected::throttle(reason::ACCOUNT_CONCURRENCY))?;
    }
    calls.join_all().await;
    nothing_is_disturbed(warren).await
}

async fn a_client_that_leaves(warren: &Installation) -> Result<()> {
    let name = warren.name("left");
    let how = Deploy { timeout_ms: 5_000, ..Deploy::default() };
    warren.deploy(&name, modules::assemble(&modules::obedient())?, how).await?;
    warren.invoke(&name, "good").await?;
    let mut calls = tokio::task::JoinSet::new();
    let client = warren.client.clone();
    let request = InvokeRequest { function: name.clone(), payload: "s".into(), ..InvokeRequest::default() };
    calls.spawn(async move { client.invoke().invoke(request).await.map(drop) });
    timeout(Duration::from_mins(1), async {
        while !warren.sandboxes().await?.iter().any(|s| s.function == name && s.state() == SandboxState::Busy)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })
    .await??;
    calls.shutdown().await;
    warren.invoke(&name, "good").await.context("after a client left")?;
    nothing_is_disturbed(warren).await
}

async fn two_deploys_of_one_name(warren: &Installation) -> Result<()> {
    let name = warren.name("twice");
    let code = Bytes::from(modules::assemble(&modules::good())?);
    let (left, right) = tokio::join!(
        warren.deploy(&name, code.clone(), Deploy::default()),
        warren.deploy(&name, code.clone(), Deploy::default())
    );
    let (won, lost) = if left.is_ok() { (left, right) } else { (right, left) };
    ensure!(won.is_ok(), "both lost: {won:?}, {lost:?}");
    // Both wrote at once, or one came after the other had finished.
    let status = lost.err().context("both won")?;
    let expected = if status.code() == Code::Aborted {
        Expected::caller(Code::Aborted, reason::REVISION_CONFLICT)
    } else {
        Expected::caller(Code::AlreadyExists, reason::FUNCTION_EXISTS)
    };
    expect_error::<()>(Err(status), expected)?;
    warren.invoke(&name, "{}").await?;
    nothing_is_disturbed(warren).await
}

async fn a_bad_token_is_refused(warren: &Installation) -> Result<()> {
    let mut config = warren_client::Config::load(&warren.data().join("client.toml"))?;
    for token in ["", "wrong", &"0".repeat(64)] {
        config.token = token.to_owned();
        let stranger = warren_client::Client::connect(&config).await?;
        let answer = stranger.invoke().invoke(InvokeRequest::default()).await;
        expect_error(answer, Expected::caller(Code::Unauthenticated, reason::NO_VALID_TOKEN))?;
    }
    Ok(())
}

/// A host that nobody knows, and one that is known: drained it takes nothing, undrained it does.
async fn a_host_that_is_not_there(warren: &Installation) -> Result<()> {
    let drain = async |host: &str, undrain: bool| {
        let request = DrainHostRequest { host: host.to_owned(), undrain };
        Ok(warren.client.admin().drain_host(request).await?.into_inner().host)
    };
    for (host, undrain) in [("nobody", false), ("nobody", true), ("", false), ("../etc", false)] {
        let none = Expected::caller(Code::NotFound, reason::NO_SUCH_HOST);
        expect_error(drain(host, undrain).await, none).with_context(|| format!("{host:?}"))?;
    }
    ensure!(warren.cli(&["hosts", "drain", "nobody"]).await?.status.code() == Some(4), "exit code");
    nothing_is_disturbed(warren).await
}
