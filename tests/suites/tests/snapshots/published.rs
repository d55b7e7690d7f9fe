//! A version is there once its snapshot is, or says why not.

use crate::{answered, is_restore, kept, killed, made, people, place, until};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use std::fs;
use tokio::sync::mpsc;
use tonic::Status;
use warren_proto::{
    error::{Fault, WireError},
    v1::{
        CreateFunctionRequest, DeployPhase, Function, FunctionConfig, FunctionLimits, Optimization,
        SnapStart, deploy_event::Event,
    },
};
use warren_suites::{Deploy, Installation, full, modules};

/// The first cold start is a restore, with nobody waiting in between; what cannot be written down says so and boots.
pub(crate) async fn a_version_is_there_when_its_snapshot_is(warren: &Installation) -> Result<()> {
    for module in ["hello", "hello-component"] {
        let name = warren.name(module);
        let (phases, made) = deploying(warren, &name, warren_suites::function(module)?).await;
        let latest = made?.latest.context("no version")?;
        ensure!(latest.optimization() == Optimization::On, "{latest:?}");
        ensure!(
            phases == [DeployPhase::Preparing, DeployPhase::Snapshotting, DeployPhase::Verifying],
            "{phases:?}"
        );
        ensure!(kept(warren, &name)?.is_some(), "there is none");
        let event = if module == "hello" { r#"{"name":"Ada"}"# } else { "Ada" };
        ensure!(is_restore(&warren.invoke(&name, event).await?)?, "the first one booted");
        warren.gone(&name).await?;
    }
    let drew = warren.name("drew");
    let (_, made) = deploying(warren, &drew, modules::assemble(&modules::drawn_in_init())?).await;
    let latest = made?.latest.context("no version")?;
    ensure!(latest.optimization() == Optimization::Off, "{latest:?}");
    ensure!(latest.optimization_reason.contains("drew random bytes in init"), "{latest:?}");
    let shown = String::from_utf8(warren.cli(&["fn", "show", &drew]).await?.stdout)?;
    ensure!(shown.contains("drew random bytes in init"), "{shown}");
    ensure!(warren.cli_json(&["fn", "show", &drew]).await?["optimization"] == "off");
    ensure!(!is_restore(&answered(warren, &drew).await?)?, "restored");
    warren.gone(&drew).await
}

/// As little as one that does not compile; with SnapStart off nobody looks before the first event.
pub(crate) async fn an_init_that_fails_is_no_version(warren: &Installation) -> Result<()> {
    let mut cases = vec![(modules::traps_in_init(), "FUNCTION_INIT_FAILED")];
    if full() {
        cases.push((modules::endless_in_init(), "FUNCTION_INIT_TIMED_OUT"));
    }
    for (text, reason) in cases {
        let name = warren.name("init");
        let code = modules::assemble(&text)?;
        let (_, made) = deploying(warren, &name, code.clone()).await;
        let error = WireError::from_status(&made.err().context("deployed")?);
        ensure!(error.reason == reason && error.fault == Fault::Function, "{error:?}");
        ensure!(error.message.contains("--snap-start off"), "no next step: {}", error.message);
        let seen = people::seen(warren, &name).await?;
        ensure!(seen["state"] == "failed" && seen["reason"] != "", "{seen}");
        let absent = WireError::from_status(&warren.invoke(&name, "").await.err().context("it is there")?);
        ensure!(absent.reason == "NO_SUCH_FUNCTION", "{absent:?}");
        // A version that works is not replaced by one that does not.
        warren.deploy(&name, warren_suites::function("hello")?, Deploy::default()).await?;
        let file = warren.data().join(format!("{name}.wasm"));
        fs::write(&file, &code)?;
        let file = file.to_str().context("path")?;
        let update = warren.cli(&["fn", "update", &name, file]).await?;
        ensure!(update.status.code() == Some(1), "{}", String::from_utf8_lossy(&update.stderr));
        ensure!(warren.cli_json(&["fn", "show", &name]).await?["version"] == 1);
        answered(warren, &name).await?;
        let off = warren.cli(&["fn", "update", &name, file, "--snap-start", "off"]).await?;
        ensure!(off.status.success(), "{}", String::from_utf8_lossy(&off.stderr));
        ensure!(warren.cli_json(&["fn", "show", &name]).await?["snap_start"] == "off");
        ensure!(warren.invoke(&name, "").await.is_err(), "its init fails no more");
    }
    Ok(())
}

pub(crate) async fn off_boots_every_time(warren: &Installation) -> Result<()> {
    let name =
        warren.deploy_built("hello", Deploy { snap_start: SnapStart::Off, ..Deploy::default() }).await?;
    for _ in 0..2 {
        ensure!(!is_restore(&answered(warren, &name).await?)?, "restored");
        warren.gone(&name).await?;
    }
    // Whatever is wanted is in the list before an answer is.
    ensure!(people::all_of(warren, &name).await?.is_empty(), "one was made");
    let on = warren.cli(&["fn", "update", &name, "--snap-start", "published"]).await?;
    ensure!(on.status.success(), "{}", String::from_utf8_lossy(&on.stderr));
    ensure!(is_restore(&answered(warren, &name).await?)?, "booted");
    warren.gone(&name).await
}

/// A deploy as its watcher sees it.
async fn deploying(
    warren: &Installation,
    name: &str,
    code: impl Into<Bytes>,
) -> (Vec<DeployPhase>, Result<Function, Status>) {
    let mut phases = Vec::new();
    let ended = watch(warren, name, code.into(), |phase| phases.push(phase)).await;
    (phases, ended)
}

async fn watch(
    warren: &Installation,
    name: &str,
    code: Bytes,
    mut enter: impl FnMut(DeployPhase),
) -> Result<Function, Status> {
    let limits = FunctionLimits { timeout_ms: 20_000, ..FunctionLimits::default() };
    let config = FunctionConfig { limits: Some(limits), ..FunctionConfig::default() };
    let request =
        CreateFunctionRequest { name: name.to_owned(), code, config: Some(config), ..Default::default() };
    let mut events = warren.client.functions().create_function_stream(request).await?.into_inner();
    loop {
        match events.message().await?.and_then(|event| event.event) {
            Some(Event::Progress(progress)) => enter(progress.phase()),
            Some(Event::Done(function)) => return Ok(function),
            None => return Err(Status::unknown("it ended without an answer")),
        }
    }
}

pub(crate) async fn an_agent_killed_while_one_is_made(warren: &Installation) -> Result<()> {
    let name = warren.name("slow");
    warren.settled().await?;
    until("sandboxes stay", async || warren.jailed_for_somebody().await.ok().filter(Vec::is_empty)).await?;
    let code: Bytes = modules::assemble(&modules::slow_in_init())?.into();
    // Once it is being written down, the agent is killed; the version is there all the same.
    let (entered, mut phases) = mpsc::unbounded_channel();
    let deployed = watch(warren, &name, code, move |phase| _ = entered.send(phase));
    let kills = async {
        while phases.recv().await.context("it is not written down")? != DeployPhase::Snapshotting {}
        let jailed = async || warren.jailed_for_somebody().await.ok().filter(|all| !all.is_empty());
        until("nothing is made", jailed).await?;
        killed(warren).await
    };
    let (deployed, killed) = tokio::join!(deployed, kills);
    killed?;
    let latest = deployed?.latest.context("no version")?;
    ensure!(latest.optimization() == Optimization::Off, "{latest:?}");
    ensure!(latest.optimization_reason.contains("lost"), "{latest:?}");
    let good = warren.deploy_built("hello", Deploy::default()).await;
    let good = match good {
        Ok(name) => name,
        Err(_) => {
            // The agent was not back yet.
            until("no deploy", async || warren.deploy_built("hello", Deploy::default()).await.ok()).await?
        }
    };
    answered(warren, &good).await?;
    made(warren, &good).await?;
    warren.no_strays().await?;
    ensure!(kept(warren, &name)?.is_none(), "a snapshot of it is there");
    let half = fs::read_dir(place(warren).join("tmp"))?.count();
    ensure!(half == 0, "{half} half-made ones are left");
    let first = answered(warren, &name).await?;
    ensure!(first.payload == "warrened" && !is_restore(&first)?, "{first:?}");
    made(warren, &name).await?;
    warren.gone(&name).await?;
    let second = answered(warren, &name).await?;
    ensure!(second.payload == "warrened" && is_restore(&second)?, "{second:?}");
    warren.gone(&name).await
}
