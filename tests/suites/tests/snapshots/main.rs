//! Cold starts begin from snapshots: the answers of a start from nothing, no two the same draw, and never from one that is not
//! what it should be.

mod people;
mod published;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use people::{one_that_is_not_there_is_said_by_name, people_see_verify_and_remove_them};
use published::{
    a_version_is_there_when_its_snapshot_is, an_agent_killed_while_one_is_made,
    an_init_that_fails_is_no_version, off_boots_every_time,
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use warren_proto::{
    error::WireError,
    reason,
    v1::{InvokeRequest, InvokeResponse, Sandbox, Timing},
};
use warren_suites::{Deploy, Installation, Options, Suite, cases, full, modules};

/// Bounds what hangs.
const WITHIN: Duration = Duration::from_mins(1);
/// Most calls of one case whose sandbox may end before their event is there.
const LOST_MOST: u32 = 20;

fn main() -> ExitCode {
    let cases = cases![
        cold_starts_are_restores,
        cold_starts_adopt_zygotes,
        a_zygote_that_is_killed_is_replaced,
        clones_draw_differently_and_know_the_time,
        who_drew_in_init_boots,
        spoiled_ones_are_removed,
        a_version_is_there_when_its_snapshot_is,
        an_init_that_fails_is_no_version,
        off_boots_every_time,
        people_see_verify_and_remove_them,
        one_that_is_not_there_is_said_by_name,
        an_agent_killed_while_one_is_made,
        they_go_with_their_function,
    ];
    // So that a cold start can be had by waiting.
    let arguments = &["--idle-ms=300", "--collect-seconds=2"];
    Suite { name: "snapshots", options: Options { number: 8, arguments, ..Options::default() }, cases }.main()
}

async fn cold_starts_are_restores(warren: &Installation) -> Result<()> {
    for (module, event, answer) in [
        ("hello", r#"{"name":"Ada"}"#, r#"{"message":"Hello, Ada!"}"#),
        ("hello-component", "Ada", r#"{"message":"Hello, Ada!","seen":1}"#),
    ] {
        let name = warren.deploy_built(module, Deploy::default()).await?;
        made(warren, &name).await?;
        for round in 0..3 {
            let request = InvokeRequest {
                function: name.clone(),
                payload: Bytes::from_static(event.as_bytes()),
                want_log: true,
                ..InvokeRequest::default()
            };
            let given = warren.client.invoke().invoke(request).await?.into_inner();
            ensure!(given.payload == answer, "round {round}: {given:?}");
            ensure!(is_restore(&given)?, "round {round}: {:?}", given.timing);
            let report = given.report.clone().context("no report")?;
            ensure!(report.restore_us > 0 && report.init_us == 0, "{report:?}");
            let log = given.log_tail.join("\n");
            for part in ["START", "END", "REPORT", "\tRestore Duration: ", "\tBilled Restore Duration: 0 ms"]
            {
                ensure!(log.contains(part), "{part:?} is not in:\n{log}");
            }
            warren.gone(&name).await?;
        }
        shown(warren, &name, event).await?;
    }
    Ok(())
}

/// In `warren ps`, and where the time of a call went.
async fn shown(warren: &Installation, name: &str, event: &str) -> Result<()> {
    let look = async || -> Result<bool> {
        warren.invoke(name, event.to_owned()).await?;
        let sandboxes = warren.cli_json(&["ps", "--function", name]).await?;
        Ok(sandboxes[0]["restored"] == true)
    };
    until("warren ps tells of no restored one", async || look().await.ok().filter(|seen| *seen)).await?;
    warren.gone(name).await?;
    let answer = warren.cli_json(&["invoke", name, "--payload", event]).await?;
    ensure!(answer["timing"]["restore_us"].as_u64() > Some(0), "{answer}");
    Ok(())
}

/// A process that waited becomes the sandbox, once; nothing else of it is new but what it runs.
async fn cold_starts_adopt_zygotes(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    made(warren, &name).await?;
    let mut adopted = BTreeSet::new();
    for round in 0..if full() { 50 } else { 5 } {
        let waiting: Vec<_> = some_zygotes(warren).await?.iter().map(|zygote| zygote.pid).collect();
        let before = warren.zygotes_so_far().await?.adopted;
        let answer = answered(warren, &name).await?;
        ensure!(is_restore(&answer)?, "round {round}: {:?}", answer.timing);
        let sandboxes = warren.sandboxes().await?;
        let pid = sandboxes.iter().find(|sandbox| sandbox.function == name).context("no sandbox")?.pid;
        ensure!(waiting.contains(&pid), "round {round}: {pid} is none of {waiting:?}");
        ensure!(adopted.insert(pid), "{pid} was adopted twice");
        let left = warren.zygotes().await?;
        ensure!(left.iter().all(|zygote| zygote.pid != pid), "it still waits");
        let counted =
            async || warren.zygotes_so_far().await.ok().filter(|so_far| so_far.adopted == before + 1);
        until("it is not counted", counted).await?;
        warren.gone(&name).await?;
    }
    warren.no_strays().await
}

async fn a_zygote_that_is_killed_is_replaced(warren: &Installation) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    made(warren, &name).await?;
    let waiting = some_zygotes(warren).await?;
    let died = warren.zygotes_so_far().await?.died;
    for zygote in &waiting {
        kill(zygote.pid)?;
    }
    // At once: whoever is quicker than the agent's notice starts all the same.
    let answer = answered(warren, &name).await?;
    ensure!(is_restore(&answer)?, "{:?}", answer.timing);
    let others = async || {
        let now = warren.zygotes().await.ok()?;
        let is_other = |pid| waiting.iter().all(|zygote| zygote.pid != pid);
        (!now.is_empty() && now.iter().all(|zygote| is_other(zygote.pid))).then_some(())
    };
    until("they are not replaced", others).await?;
    let counted = async || warren.zygotes_so_far().await.ok().filter(|so_far| so_far.died > died);
    until("no death is counted", counted).await?;
    warren.gone(&name).await?;
    ensure!(is_restore(&answered(warren, &name).await?)?, "it does not restore");
    warren.no_strays().await
}

/// Those that wait, once some do.
async fn some_zygotes(warren: &Installation) -> Result<Vec<Sandbox>> {
    until("no zygote waits", async || warren.zygotes().await.ok().filter(|all| !all.is_empty())).await
}

async fn clones_draw_differently_and_know_the_time(warren: &Installation) -> Result<()> {
    let name = warren.name("draws");
    warren.deploy(&name, modules::assemble(modules::DRAWS)?, Deploy::default()).await?;
    made(warren, &name).await?;
    let wanted = if full() { 1000 } else { 50 };
    let (mut clones, mut drawn, mut lost) = (0, BTreeSet::new(), 0);
    while clones < wanted {
        let before = wall_ns()?;
        let mut calls = JoinSet::new();
        for _ in 0..16 {
            let (client, function) = (warren.client.clone(), name.clone());
            calls.spawn(async move {
                let request = InvokeRequest { function, ..InvokeRequest::default() };
                client.invoke().invoke(request).await
            });
        }
        while let Some(answer) = calls.join_next().await {
            let answer = match answer? {
                Ok(answer) => answer.into_inner(),
                // On a busy machine a sandbox's keep-alive here may end before its event is there.
                Err(status)
                    if WireError::from_status(&status).reason == reason::SANDBOX_LOST_BEFORE_START =>
                {
                    lost += 1;
                    ensure!(
                        lost <= LOST_MOST,
                        "{lost} calls lost their sandbox before they began; the last says: {status}"
                    );
                    continue;
                }
                Err(status) => return Err(status.into()),
            };
            let (random, clock) = answer.payload.split_at_checked(16).context("too few bytes")?;
            let clock = u64::from_le_bytes(clock.try_into()?);
            ensure!((before..=wall_ns()?).contains(&clock), "{clock} is not between {before} and now");
            ensure!(drawn.insert(random.to_vec()), "drawn twice: {random:?}");
            let timing = answer.timing.context("no timing")?;
            ensure!(!timing.cold || timing.restore_us > 0, "booted: {timing:?}");
            clones += usize::from(timing.cold);
        }
        warren.gone(&name).await?;
    }
    Ok(())
}

/// What it drew, all its sandboxes would share.
async fn who_drew_in_init_boots(warren: &Installation) -> Result<()> {
    let name = warren.name("drew");
    warren.deploy(&name, modules::assemble(&modules::drawn_in_init())?, Deploy::default()).await?;
    told(warren, &name, "drew random bytes in init").await?;
    let mut drawn = BTreeSet::new();
    for _ in 0..2 {
        let answer = warren.invoke(&name, "").await?;
        ensure!(!is_restore(&answer)?, "{:?}", answer.timing);
        ensure!(drawn.insert(answer.payload.to_vec()), "two sandboxes drew the same");
        warren.gone(&name).await?;
    }
    ensure!(kept(warren, &name)?.is_none(), "there is a snapshot of it");
    Ok(())
}

/// How a file is spoiled.
type Spoil = fn(&Path) -> Result<()>;

/// Each is noticed, removed and told; the cold start boots, and the next one is a restore again.
async fn spoiled_ones_are_removed(warren: &Installation) -> Result<()> {
    let cases: [(&str, Spoil); 4] = [
        ("a bit of what is signed", |path| flip(path, 50)),
        ("a bit of the memory", |path| flip(path, 40_000)),
        ("cut short", |path| {
            let file = File::options().write(true).open(path)?;
            Ok(file.set_len(file.metadata()?.len() / 2)?)
        }),
        ("something behind", |path| Ok(File::options().append(true).open(path)?.write_all(b"x")?)),
    ];
    let mut spoiled = Vec::new();
    for (what, spoil) in cases {
        let name = warren.deploy_built("hello", Deploy::default()).await?;
        spoiled.push((what, spoil, made(warren, &name).await?, name));
    }
    // Another function's, good and signed, under this one's name.
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    let path = made(warren, &name).await?;
    let others = spoiled.first().map(|(_, _, path, _)| path.clone()).context("no other")?;
    // What is in memory was judged already: only a new agent looks at the files.
    killed(warren).await?;
    fs::copy(others, path)?;
    for (what, spoil, path, _) in &spoiled {
        spoil(path).context(*what)?;
    }
    for (what, _, _, name) in &spoiled {
        booted_then_restored(warren, name).await.context(*what)?;
    }
    booted_then_restored(warren, &name).await.context("another's")
}

async fn booted_then_restored(warren: &Installation, name: &str) -> Result<()> {
    let first = answered(warren, name).await?;
    ensure!(!is_restore(&first)?, "served: {:?}", first.timing);
    told(warren, name, "is not served and is removed").await?;
    made(warren, name).await?;
    warren.gone(name).await?;
    let second = answered(warren, name).await?;
    ensure!(is_restore(&second)? && second.payload == first.payload, "{second:?}");
    warren.gone(name).await
}

async fn they_go_with_their_function(warren: &Installation) -> Result<()> {
    let (stays, goes) = (
        warren.deploy_built("hello", Deploy::default()).await?,
        warren.deploy_built("hello", Deploy::default()).await?,
    );
    made(warren, &stays).await?;
    let path = made(warren, &goes).await?;
    warren.remove(&goes).await?;
    until("it stays", async || (!path.exists()).then_some(())).await?;
    ensure!(kept(warren, &stays)?.is_some(), "the other function's went, too");
    Ok(())
}

fn is_restore(answer: &InvokeResponse) -> Result<bool> {
    let Timing { cold, restore_us, init_us, .. } = answer.timing.context("no timing")?;
    ensure!(cold, "no cold start");
    ensure!(restore_us == 0 || init_us == 0, "both: {restore_us} and {init_us}");
    Ok(restore_us > 0)
}

fn place(warren: &Installation) -> PathBuf {
    warren.data().join("agent/snapshots")
}

/// The file of a function's snapshot.
fn kept(warren: &Installation, name: &str) -> Result<Option<PathBuf>> {
    let end = format!(".{name}.snapshot");
    let mut files = fs::read_dir(place(warren))?.flatten().map(|entry| entry.path());
    Ok(files.find(|path| path.to_str().is_some_and(|path| path.ends_with(&end))))
}

/// Waits for it.
async fn made(warren: &Installation, name: &str) -> Result<PathBuf> {
    let seen = until("no snapshot is made", async || kept(warren, name).ok().flatten()).await;
    seen.with_context(|| format!("of {name}"))
}

/// Waits until the agent's log has a line of this function with these words.
async fn told(warren: &Installation, name: &str, words: &str) -> Result<()> {
    let path = warren.data().join("log/agent.log");
    let seen = until("it is not told", async || {
        let log = fs::read_to_string(&path).ok()?;
        log.lines().any(|line| line.contains(words) && line.contains(&format!("\"{name}\""))).then_some(())
    });
    seen.await.with_context(|| format!("{words:?} of {name}"))
}

/// Kills the agent and waits until it is gone; `warren up` starts it again.
async fn killed(warren: &Installation) -> Result<()> {
    let pid = warren.service("warren-agent").await?;
    kill(pid)?;
    let another = async || warren.service("warren-agent").await.ok().filter(|now| *now != pid);
    until("the agent does not come back", another).await.map(drop)
}

fn kill(pid: i32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("pid")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}

/// Calls until there is an answer: the agent may be on its way back.
async fn answered(warren: &Installation, name: &str) -> Result<InvokeResponse> {
    until("no answer", async || warren.invoke(name, r#"{"name":"Ada"}"#).await.ok()).await
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    match bytes.get_mut(at) {
        Some(byte) => *byte ^= 0x10,
        None => bail!("only {} bytes", bytes.len()),
    }
    Ok(fs::write(path, bytes)?)
}

fn wall_ns() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Looks until it is so; the bound only ends what hangs.
async fn until<T>(otherwise: &'static str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(30)).await;
        }
    };
    timeout(WITHIN, found).await.context(otherwise)
}
