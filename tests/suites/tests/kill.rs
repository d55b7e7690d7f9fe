//! `kill -9` of each part in the middle of load: documented errors only, then recovery without a person.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep},
};
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    v1::{InvokeRequest, SandboxState},
};
use warren_suites::{Deploy, Installation, Options, Suite, cases, full, function, modules};

/// Load before and after a kill, in answers.
const STEADY: u64 = 30;
const RECOVERED_WITHIN: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    let cases = cases![
        a_sandbox,
        the_agent,
        the_jailer,
        the_control_process,
        an_agent_in_the_middle_of_a_call,
        an_agent_whose_zygotes_wait,
    ];
    Suite { name: "kill", options: Options { number: 4, ..Options::default() }, cases }.main()
}

fn rounds() -> usize {
    if full() { 10 } else { 1 }
}

async fn a_sandbox(warren: &Installation) -> Result<()> {
    if out_of_reach("a_sandbox", "a sandbox has a user of its own, whom only root can kill") {
        return Ok(());
    }
    under_load(warren, Front::Stays, async || {
        let sandboxes = warren.sandboxes().await?;
        let alive = |state| matches!(state, SandboxState::Idle | SandboxState::Busy);
        let sandbox = sandboxes.iter().find(|s| s.pid > 0 && alive(s.state())).context("no sandbox")?;
        kill(sandbox.pid)
    })
    .await
}

async fn the_agent(warren: &Installation) -> Result<()> {
    under_load(warren, Front::Stays, async || kill_service(warren, "warren-agent").await).await
}

async fn the_jailer(warren: &Installation) -> Result<()> {
    if out_of_reach("the_jailer", "a prepared jailer is root's to kill") {
        return Ok(());
    }
    under_load(warren, Front::Stays, async || kill_service(warren, "warren-jailer").await).await
}

async fn the_control_process(warren: &Installation) -> Result<()> {
    under_load(warren, Front::Dies, async || kill_service(warren, "warren-control").await).await
}

async fn an_agent_in_the_middle_of_a_call(warren: &Installation) -> Result<()> {
    let name = warren.name("middle");
    let how = Deploy { timeout_ms: 8_000, ..Deploy::default() };
    warren.deploy(&name, modules::assemble(&modules::obedient())?, how).await?;
    warren.invoke(&name, "good").await?;
    let client = warren.client.clone();
    let request = InvokeRequest { function: name.clone(), payload: "s".into(), ..InvokeRequest::default() };
    let call = tokio::spawn(async move { client.invoke().invoke(request).await });
    while !warren.sandboxes().await?.iter().any(|s| s.function == name && s.state() == SandboxState::Busy) {
        sleep(Duration::from_millis(20)).await;
    }
    kill(warren.service("warren-agent").await?)?;
    let status = call.await?.err().context("the call was answered")?;
    let error = WireError::from_status(&status);
    ensure!(error.code == Code::Unavailable && error.fault == Fault::System && error.retryable, "{error:?}");
    recovered(warren, &name, "good").await?;
    warren.no_strays().await
}

/// What waited is ended by the next agent; what was adopted before goes on, under the name its jail had from the beginning.
async fn an_agent_whose_zygotes_wait(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    let event = r#"{"name":"x"}"#;
    let mut waiting = zygotes_wait(warren).await?;
    let adopted = loop {
        warren.invoke(&name, event).await?;
        let all = warren.sandboxes().await?;
        let sandbox = all.into_iter().find(|sandbox| sandbox.function == name).context("no sandbox")?;
        if waiting.contains(&sandbox.pid) {
            break sandbox;
        }
        // It came before its snapshot, or its zygote.
        kill(sandbox.pid)?;
        warren.gone(&name).await?;
        waiting = zygotes_wait(warren).await?;
    };
    let left = zygotes_wait(warren).await?;
    kill_service(warren, "warren-agent").await?;
    recovered(warren, &name, event).await?;
    let same = warren.sandboxes().await?.into_iter().find(|sandbox| sandbox.id == adopted.id);
    let same = same.context("the adopted one is gone")?;
    ensure!(same.pid == adopted.pid && same.restored && same.invocations >= 2, "{adopted:?}, then {same:?}");
    warren.no_strays().await?;
    let still: Vec<_> = warren.jailed()?.into_iter().filter(|pid| left.contains(pid)).collect();
    ensure!(still.is_empty(), "{still:?} wait for an agent that is gone");
    Ok(())
}

/// Pids of those that wait, once some do.
async fn zygotes_wait(warren: &Installation) -> Result<Vec<i32>> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        let waiting: Vec<_> = warren.zygotes().await?.iter().map(|zygote| zygote.pid).collect();
        if !waiting.is_empty() {
            return Ok(waiting);
        }
        ensure!(Instant::now() < deadline, "no zygote waits");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether clients keep somebody to talk to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Stays,
    Dies,
}

/// Keeps eight clients busy, kills in the middle, demands that every error is a documented one and that answers come
/// again, from everybody.
async fn under_load(warren: &Installation, front: Front, strike: impl AsyncFn() -> Result<()>) -> Result<()> {
    let name = deployed(warren).await?;
    recovered(warren, &name, r#"{"name":"x"}"#).await?;
    for round in 0..rounds() {
        let answers = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            clients.spawn(caller(
                warren.client.clone(),
                name.clone(),
                front,
                Arc::clone(&answers),
                Arc::clone(&stop),
            ));
        }
        more_answers(&answers, STEADY).await.context("before the kill")?;
        strike().await?;
        more_answers(&answers, STEADY).await.with_context(|| format!("no recovery, round {round}"))?;
        stop.store(true, Ordering::Relaxed);
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(done) = clients.join_next().await {
            for (reason, count) in done?? {
                *errors.entry(reason).or_default() += count;
            }
        }
        println!("    round {round}: {} answers, errors {errors:?}", answers.load(Ordering::Relaxed));
    }
    recovered(warren, &name, r#"{"name":"x"}"#).await?;
    warren.no_strays().await
}

/// Deploys as a patient person would: what is said to be worth trying again is tried again.
async fn deployed(warren: &Installation) -> Result<String> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        let name = warren.name("hello");
        let Err(status) = warren.deploy(&name, function("hello")?, Deploy::default()).await else {
            return Ok(name);
        };
        let error = WireError::from_status(&status);
        ensure!(error.retryable && Instant::now() < deadline, "{error:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Calls until told to stop; gives what errors it saw, fails on one that no client should see.
async fn caller(
    client: warren_client::Client,
    name: String,
    front: Front,
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<BTreeMap<String, u64>> {
    let mut errors = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let request = InvokeRequest {
            function: name.clone(),
            payload: r#"{"name":"load"}"#.into(),
            ..InvokeRequest::default()
        };
        match client.invoke().invoke(request).await {
            Ok(answer) => {
                let payload = answer.into_inner().payload;
                ensure!(payload == br#"{"message":"Hello, load!"}"#[..], "wrong answer {payload:?}");
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => {
                let error = WireError::from_status(&status);
                // A dead control process cannot speak; everybody else's death is told by a living one, with a reason.
                let told = error.reason != "UNSPECIFIED" || front == Front::Dies;
                let documented = told && error.retryable && error.fault == Fault::System;
                if !documented {
                    bail!("an undocumented error under load: {error:?}");
                }
                let what = if error.reason == "UNSPECIFIED" {
                    format!("{:?} of the transport: {}", error.code, error.message)
                } else {
                    error.reason
                };
                *errors.entry(what).or_default() += 1;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(errors)
}

async fn more_answers(answers: &AtomicU64, count: u64) -> Result<()> {
    let goal = answers.load(Ordering::Relaxed) + count;
    let deadline = Instant::now() + RECOVERED_WITHIN;
    while answers.load(Ordering::Relaxed) < goal {
        ensure!(Instant::now() < deadline, "no answers any more");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A call succeeds without anybody's help.
async fn recovered(warren: &Installation, name: &str, event: &'static str) -> Result<()> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        match warren.invoke(name, event).await {
            Ok(_) => return Ok(()),
            Err(status) => ensure!(Instant::now() < deadline, "no recovery: {status:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// On a prepared machine, without root, not everything can be killed; said, so that nobody takes it for a run.
fn out_of_reach(case: &str, why: &str) -> bool {
    let without = !rustix::process::geteuid().is_root();
    if without {
        println!("warren-skipped: kill::{case}: {why}");
    }
    without
}

/// One that is just being started again is waited for: after a few kills its supervisor takes its time.
async fn kill_service(warren: &Installation, name: &str) -> Result<()> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        match warren.service(name).await {
            Ok(pid) => return kill(pid),
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn kill(pid: i32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(())
}
