//! Every function: cold and warm, new versions, updates, removal, logs, and the same through the CLI.

use anyhow::{Context as _, Result, ensure};
use std::process::ExitCode;
use tonic::Code;
use warren_client::Failure;
use warren_proto::{
    error::WireError,
    reason,
    v1::{FunctionConfig, FunctionLimits, GetFunctionRequest, InvokeRequest, UpdateFunctionRequest},
};
use warren_suites::{
    Deploy, Expected, Installation, Options, Suite, cases, expect_error, function, modules, sample,
};

fn main() -> ExitCode {
    let cases = cases![
        hello_is_cold_then_warm,
        thumbnail_makes_a_png,
        versions_stay_callable,
        a_lost_race_is_told,
        removal_is_complete,
        logs_hold_the_lines_of_an_invocation,
        lists_and_status,
        the_cli_does_the_same,
        a_drained_host_takes_nothing_until_it_is_back,
        what_nothing_names_is_collected,
        a_services_log_does_not_grow_for_ever,
    ];
    let options = Options { number: 1, arguments: &["--collect-seconds=2"], ..Options::default() };
    Suite { name: "functional", options, cases }.main()
}

async fn hello_is_cold_then_warm(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    for (round, cold) in [(0, true), (1, false), (2, false)] {
        let answer = warren.invoke(&name, format!(r#"{{"name":"n{round}"}}"#)).await?;
        let text = String::from_utf8(answer.payload.to_vec())?;
        ensure!(text.contains(&format!("n{round}")), "{text}");
        let timing = answer.timing.context("no timing")?;
        ensure!(timing.cold == cold, "round {round}: cold is {}", timing.cold);
        ensure!(timing.handler_us > 0 && timing.total_us >= timing.handler_us, "{timing:?}");
        let report = answer.report.context("no report")?;
        ensure!(report.memory_mib == 128 && report.billed_ms > 0, "{report:?}");
        ensure!(report.request_id == answer.request_id, "{report:?}");
    }
    Ok(())
}

async fn thumbnail_makes_a_png(warren: &Installation) -> Result<()> {
    let name =
        warren.deploy_built("thumbnail", Deploy { memory_mib: 256, timeout_ms: 30_000, ..Deploy::default() });
    let name = name.await?;
    let photo = sample("photo.jpg")?;
    let first = warren.invoke(&name, photo.clone()).await?.payload;
    ensure!(first.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let second = warren.invoke(&name, photo).await?.payload;
    ensure!(first == second, "the same photograph gave two thumbnails");
    Ok(())
}

async fn versions_stay_callable(warren: &Installation) -> Result<()> {
    let name = warren.name("versions");
    warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    let update = UpdateFunctionRequest {
        name: name.clone(),
        code: Some(function("hello")?),
        ..UpdateFunctionRequest::default()
    };
    let updated = warren.client.functions().update_function(update).await?.into_inner();
    ensure!(updated.versions == [1, 2], "{:?}", updated.versions);
    let call = async |version| -> Result<Vec<u8>> {
        let request = InvokeRequest {
            function: name.clone(),
            version,
            payload: br#"{"name":"two"}"#.to_vec().into(),
            ..InvokeRequest::default()
        };
        let answer = warren.client.invoke().invoke(request).await?.into_inner();
        ensure!(version == 0 || answer.version == version, "asked for {version}, got {}", answer.version);
        Ok(answer.payload.to_vec())
    };
    ensure!(call(1).await? == br#"{"ok":true}"#, "version 1");
    let newest = String::from_utf8(call(2).await?)?;
    ensure!(newest.contains("two") && call(0).await? == newest.as_bytes(), "version 2: {newest}");
    let unknown = call(9).await.err().and_then(|error| error.downcast::<tonic::Status>().ok());
    let unknown = unknown.context("version 9 answered")?;
    expect_error::<()>(Err(unknown), Expected::caller(Code::NotFound, reason::NO_SUCH_VERSION))?;
    Ok(())
}

async fn a_lost_race_is_told(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    let seen = GetFunctionRequest { name: name.clone() };
    let revision = warren.client.functions().get_function(seen).await?.into_inner().revision;
    // Different settings: an update that changes nothing would make no version, and lose to nobody.
    let update = |timeout_ms| UpdateFunctionRequest {
        name: name.clone(),
        config: Some(FunctionConfig {
            limits: Some(FunctionLimits { timeout_ms, ..FunctionLimits::default() }),
            ..FunctionConfig::default()
        }),
        expected_revision: revision,
        ..UpdateFunctionRequest::default()
    };
    let (mut left, mut right) = (warren.client.functions(), warren.client.functions());
    let (left, right) =
        tokio::join!(left.update_function(update(5_000)), right.update_function(update(6_000)));
    let (won, lost) = if left.is_ok() { (left, right) } else { (right, left) };
    ensure!(won.is_ok(), "both lost: {won:?} {lost:?}");
    expect_error(lost, Expected::caller(Code::Aborted, reason::REVISION_CONFLICT))?;
    warren.invoke(&name, "{\"name\":\"x\"}").await?;
    Ok(())
}

async fn removal_is_complete(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    warren.invoke(&name, "{\"name\":\"x\"}").await?;
    warren.remove(&name).await?;
    let gone = Expected::caller(Code::NotFound, reason::NO_SUCH_FUNCTION);
    expect_error(warren.invoke(&name, "{}").await, gone)?;
    expect_error(warren.remove(&name).await, gone)?;
    warren.gone(&name).await?;
    // The name is free again, and starts over.
    let again = warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    ensure!(!again.versions.is_empty(), "{again:?}");
    let answer = warren.invoke(&name, "{}").await?;
    ensure!(answer.payload == br#"{"ok":true}"#[..], "an old version answered");
    Ok(())
}

async fn logs_hold_the_lines_of_an_invocation(warren: &Installation) -> Result<()> {
    let name = warren.name("talk");
    warren.deploy(&name, modules::assemble(&modules::talk())?, Deploy::default()).await?;
    let request = InvokeRequest { function: name.clone(), want_log: true, ..InvokeRequest::default() };
    let answer = warren.client.invoke().invoke(request).await?.into_inner();
    let tail = answer.log_tail.join("\n");
    ensure!(tail.contains(r#"{"ok":true}"#), "{tail}");
    let done = warren.cli(&["logs", &name]).await?;
    let log = String::from_utf8(done.stdout)?;
    for part in ["START", "END", "REPORT", r#"{"ok":true}"#, &answer.request_id] {
        ensure!(log.contains(part), "{part} is not in:\n{log}");
    }
    Ok(())
}

async fn lists_and_status(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    warren.invoke(&name, "{\"name\":\"x\"}").await?;
    let functions = warren.cli_json(&["fn", "ls"]).await?;
    ensure!(
        functions.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == *name)),
        "{functions}"
    );
    let sandboxes = warren.cli_json(&["ps", "--function", &name]).await?;
    ensure!(
        sandboxes.as_array().is_some_and(|all| all.len() == 1 && all[0]["state"] == "idle"),
        "{sandboxes}"
    );
    let hosts = warren.cli_json(&["hosts"]).await?;
    ensure!(hosts.as_array().is_some_and(|all| all.len() == 1 && all[0]["state"] == "ready"), "{hosts}");
    let status = warren.cli_json(&["status"]).await?;
    ensure!(status["hosts_ready"] == 1 && status["invocations"].as_u64() > Some(0), "{status}");
    let policies = warren.cli_json(&["policy", "status"]).await?;
    for kind in ["packing", "placement", "routing"] {
        let all = policies.as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(all.iter().any(|one| one["kind"] == kind), "no {kind} policy in {policies}");
    }
    Ok(())
}

async fn the_cli_does_the_same(warren: &Installation) -> Result<()> {
    let name = warren.name("cli");
    let module = warren_suites::root().join("target/warren/functions/hello.wasm");
    let module = module.to_str().context("path")?;
    let code =
        async |arguments: &[&str]| -> Result<Option<i32>> { Ok(warren.cli(arguments).await?.status.code()) };
    ensure!(code(&["fn", "create", &name, module]).await? == Some(0), "create");
    ensure!(code(&["fn", "create", &name, module]).await? == Some(4), "a second create of one name");
    let answer = warren.cli(&["invoke", &name, "--payload", r#"{"name":"Ada"}"#]).await?;
    ensure!(answer.status.success() && String::from_utf8(answer.stdout)?.contains("Ada"), "invoke");
    let event = "{\"name\":\"x\"}";
    let many = warren
        .cli_json(&["invoke", &name, "--payload", event, "--repeat", "50", "--concurrency", "4"])
        .await?;
    ensure!(many["ok"] == 50 && many["us"]["p99"].as_u64() > Some(0), "{many}");
    ensure!(code(&["fn", "update", &name, "--timeout-ms", "5000"]).await? == Some(0), "update");
    ensure!(warren.cli_json(&["fn", "show", &name]).await?["timeout_ms"] == 5000, "show");
    ensure!(code(&["invoke", "no-such"]).await? == Some(4), "unknown function");
    let done = warren.cli(&["--json", "invoke", "no-such"]).await?;
    let said: serde_json::Value = serde_json::from_slice(&done.stderr).context("an error as JSON")?;
    ensure!(said["error"]["reason"] == reason::NO_SUCH_FUNCTION && said["error"]["exit"] == 4, "{said}");
    ensure!(code(&["invoke", &name, "--repeat", "x"]).await? == Some(2), "nonsense");
    ensure!(code(&["fn", "rm", &name]).await? == Some(0), "rm");
    // The failure type the CLI uses is the one of the library.
    let failure = Failure::from(tonic::Status::from(WireError::new(
        Code::NotFound,
        reason::NO_SUCH_FUNCTION,
        warren_proto::error::Fault::Caller,
        "x",
    )));
    ensure!(failure.code() == 4, "exit code");
    Ok(())
}

async fn a_drained_host_takes_nothing_until_it_is_back(warren: &Installation) -> Result<()> {
    let name = warren.name("drain");
    warren.deploy(&name, modules::assemble(&modules::good())?, Deploy::default()).await?;
    warren.invoke(&name, "{}").await?;
    let hosts = warren.cli_json(&["hosts"]).await?;
    let host = hosts[0]["id"].as_str().context("a host's name")?.to_owned();
    let drained = warren.cli_json(&["hosts", "drain", &host]).await?;
    ensure!(drained[0]["state"] == "draining", "{drained}");
    // What was idle ends, and nothing new begins.
    warren.gone(&name).await?;
    let none = warren.invoke(&name, "{}").await.err().context("a drained host took an invocation")?;
    let error = WireError::from_status(&none);
    ensure!(error.code == Code::Unavailable && error.retryable, "{error:?}");
    // Neither the agent's registration nor control's own restart puts it back.
    for service in ["warren-agent", "warren-control"] {
        let pid = rustix::process::Pid::from_raw(warren.service(service).await?).context("pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        until(async || {
            let hosts = warren.cli_json(&["hosts"]).await.ok()?;
            (hosts[0]["state"] == "draining").then_some(())
        })
        .await
        .with_context(|| format!("after {service} was killed"))?;
        ensure!(warren.invoke(&name, "{}").await.is_err(), "after {service} was killed it takes work");
    }
    let back = warren.cli_json(&["hosts", "undrain", &host]).await?;
    ensure!(back[0]["state"] == "ready", "{back}");
    warren.invoke(&name, "{}").await.context("the host is back")?;
    Ok(())
}

/// Code, files and logs of a function go when it goes; those of others stay.
async fn what_nothing_names_is_collected(warren: &Installation) -> Result<()> {
    let (stays, goes) = (warren.name("stays"), warren.name("goes"));
    warren.deploy(&stays, modules::assemble(&modules::talk())?, Deploy::default()).await?;
    warren.deploy(&goes, modules::assemble(&modules::exit(77))?, Deploy::default()).await?;
    warren.invoke(&stays, "{}").await?;
    ensure!(warren.invoke(&goes, "{}").await.is_err(), "exit 77");
    // Reading a log brings it to its file.
    warren.cli(&["logs", &goes]).await?;
    let count = |place: &str| -> Result<usize> { Ok(files_below(&warren.data().join(place))?.len()) };
    let log = |name: &str| warren.data().join(format!("agent/logs/{name}.jsonl"));
    ensure!(log(&stays).exists() && log(&goes).exists(), "logs");
    let before = (count("control/blobs")?, count("agent/artefacts")?);
    warren.remove(&goes).await?;
    until(async || {
        let after = (count("control/blobs").ok()?, count("agent/artefacts").ok()?);
        (after.0 < before.0 && after.1 < before.1 && !log(&goes).exists()).then_some(())
    })
    .await
    .context("what was removed stays")?;
    ensure!(log(&stays).exists(), "the log of another function went");
    warren.invoke(&stays, "{}").await?;
    // Also after a restart, when nothing is in memory any more.
    let pid = rustix::process::Pid::from_raw(warren.service("warren-agent").await?).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    until(async || warren.invoke(&stays, "{}").await.ok()).await.context("after the agent was killed")?;
    Ok(())
}

/// A log at its bound is put aside once, and the service, which has had it open all along, goes on in an empty one.
async fn a_services_log_does_not_grow_for_ever(warren: &Installation) -> Result<()> {
    const BOUND: u64 = 16 << 20;
    let log = warren.data().join("log/control.log");
    let older = warren.data().join("log/control.log.1");
    // As if that much had been told: no need to tell it.
    std::fs::File::options().append(true).open(&log)?.set_len(BOUND)?;
    let small = async || (log.metadata().ok()?.len() < BOUND).then_some(());
    until(small).await.context("the log stays large")?;
    ensure!(older.metadata()?.len() >= BOUND, "what was told is gone");
    let host = warren.cli_json(&["hosts"]).await?[0]["id"].as_str().context("no host")?.to_owned();
    for words in ["drain", "undrain"] {
        warren.cli_json(&["hosts", words, &host]).await?;
    }
    let said = std::fs::read(&log)?;
    ensure!(
        !said.contains(&0) && said.windows(7).any(|at| at == b"drained"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

fn files_below(place: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(place).with_context(|| place.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// Looks until it is so; the bound only ends what hangs.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), found).await.context("it never was so")
}
