//! A full disk: a deploy is refused with a typed error, nothing half-made stays, and the next one succeeds.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{InvokeResponse, ListPoliciesRequest},
};
use warren_suites::{Deploy, Expected, Installation, Options, Suite, cases, expect_error, function, modules};

/// Size of the small file system that holds everything of this Warren.
const SMALL: &str = "size=64m,mode=755";
/// Enough for a small function and its sandbox; a snapshot of what it holds takes more.
const ROOM_WITHOUT_SNAPSHOT: u64 = 900 << 10;

fn main() -> ExitCode {
    // Everything of this suite's Warren lies on a file system of its own, so that filling it hurts nobody else.
    let place = PathBuf::from(format!("/var/tmp/warren-disk-{}", std::process::id()));
    let listing = std::env::args().any(|word| word == "--list");
    if !listing && let Err(error) = mount(&place) {
        let _ = std::fs::remove_dir(&place);
        println!("warren-skipped: disk: no small file system can be mounted here ({error:#})");
        return ExitCode::SUCCESS;
    }
    let cases = cases![
        a_full_disk_refuses_a_deploy,
        invocations_go_on_though_the_disk_is_full,
        policies_that_found_no_room_are_tried_again,
        what_has_no_room_for_a_snapshot_boots,
        services_do_not_live_on_what_they_tell,
    ];
    let options = Options { number: 6, data: Some(place.join("data")), ..Options::default() };
    let code = Suite { name: "disk", options, cases }.main();
    if !listing {
        let unmounted = std::process::Command::new("umount").arg(&place).status();
        let removed = std::fs::remove_dir(&place);
        if !unmounted.is_ok_and(|status| status.success()) || removed.is_err() {
            eprintln!("{} stays mounted", place.display());
        }
    }
    code
}

fn mount(place: &Path) -> Result<()> {
    std::fs::create_dir_all(place)?;
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", SMALL, "warren-disk-suite"])
        .arg(place)
        .status()?;
    ensure!(status.success(), "mount: {status}");
    Ok(())
}

async fn a_full_disk_refuses_a_deploy(warren: &Installation) -> Result<()> {
    let good = modules::assemble(&modules::good())?;
    warren.deploy("before", good.clone(), Deploy::default()).await?;
    // The frontend now holds a slice of the account's concurrency: only asking for more would need the disk.
    warren.invoke("before", "{}").await?;
    let ballast = warren.data().join("ballast");
    fill(&ballast)?;

    let status =
        warren.deploy("full", function("jq")?, Deploy::default()).await.err().context("it fitted")?;
    let error = WireError::from_status(&status);
    ensure!(error.code == Code::ResourceExhausted && error.reason == reason::DISK_FULL, "{error:?}");
    ensure!(error.fault == Fault::System, "{error:?}");
    // What was there before still answers: a warm invocation writes nothing durable.
    let answer = warren.invoke("before", "{}").await.context("an invocation on a full disk")?;
    ensure!(answer.payload == br#"{"ok":true}"#[..], "{answer:?}");
    let gone = Expected::caller(Code::NotFound, reason::NO_SUCH_FUNCTION);
    expect_error(warren.invoke("full", "{}").await, gone)?;

    std::fs::remove_file(&ballast)?;
    warren.deploy("full", good, Deploy::default()).await.context("after room was made")?;
    warren.invoke("full", "{}").await?;
    warren.settled().await?;
    Ok(())
}

/// Neither logs nor grants stand in the way: not under load, not after control was killed and has to begin an epoch.
async fn invocations_go_on_though_the_disk_is_full(warren: &Installation) -> Result<()> {
    let name = warren.name("warm");
    warren.deploy(&name, modules::assemble(&modules::talk())?, Deploy::default()).await?;
    warren.invoke(&name, "{}").await?;
    let ballast = warren.data().join("ballast");
    fill(&ballast)?;
    for round in 0..200 {
        // A line to the log each time, which has nowhere to go.
        let answer =
            warren.invoke(&name, "{}").await.with_context(|| format!("call {round} on a full disk"))?;
        ensure!(answer.payload.starts_with(br#"{"ok":true}"#), "{answer:?}");
    }
    // A new control process holds no slot of any limit: it has to make a grant durable before it admits anything.
    let pid = rustix::process::Pid::from_raw(warren.service("warren-control").await?).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let answer = again(warren, &name, "warren-control").await?;
    ensure!(!answer.timing.is_some_and(|timing| timing.cold), "cold");
    // A cold start needs files of its own; if there is no room for them it says so, and whose fault that is.
    let cold = warren.name("cold");
    if let Err(status) = warren.deploy(&cold, modules::assemble(&modules::exit(0))?, Deploy::default()).await
    {
        let error = WireError::from_status(&status);
        ensure!(
            error.reason == reason::DISK_FULL && error.fault == Fault::System && error.retryable,
            "{error:?}"
        );
    }
    std::fs::remove_file(&ballast)?;
    warren.invoke(&name, "{}").await?;
    warren.settled().await?;
    Ok(())
}

/// Control starts on a full disk and has no compiled policy at hand: the built-in rules decide, what is wrong is said, and once
/// there is room the policies come, by themselves and at once when asked for. Nothing is started again for it.
async fn policies_that_found_no_room_are_tried_again(warren: &Installation) -> Result<()> {
    for ask in [false, true] {
        // What another case left to be tried again would free what it had begun to write.
        warren.cli(&["policy", "retry"]).await?;
        policies_are(warren, "active").await?;
        for kept in ["control/policies", "agent/artefacts"] {
            remove_artefacts(&warren.data().join(kept))?;
        }
        let full = Full::keep(warren.data().join("ballast"), 0)?;
        let pid = rustix::process::Pid::from_raw(warren.service("warren-control").await?).context("pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        policies_are(warren, "failed").await?;
        let said = String::from_utf8(warren.cli(&["policy", "status"]).await?.stdout)?;
        ensure!(said.contains("cannot ") && said.contains("(tried again "), "{said}");
        full.end()?;
        if ask {
            let tried = warren.cli_json(&["policy", "retry"]).await?;
            let active = |tried: &serde_json::Value| tried["state"] == "active" && tried["last_error"] == "";
            ensure!(tried.as_array().is_some_and(|all| all.len() == 3 && all.iter().all(active)), "{tried}");
        }
        policies_are(warren, "active").await?;
    }
    Ok(())
}

/// Waits until all three are in this state.
async fn policies_are(warren: &Installation, state: &str) -> Result<()> {
    let mut states = Vec::new();
    let reached = async {
        loop {
            if let Ok(list) = warren.client.admin().list_policies(ListPoliciesRequest {}).await {
                let policies = list.into_inner().policies;
                states = policies.into_iter().map(|policy| (policy.state, policy.last_error)).collect();
                if states.len() == 3 && states.iter().all(|(is, _)| is == state) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_mins(1), reached).await;
    reached.with_context(|| format!("not {state}: {states:#?}"))
}

fn remove_artefacts(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_artefacts(&path)?;
        } else if path.extension().is_some_and(|end| end == "artefact") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The disk takes a function and not its snapshot: cold starts go on without one.
async fn what_has_no_room_for_a_snapshot_boots(warren: &Installation) -> Result<()> {
    let full = Full::keep(warren.data().join("ballast"), ROOM_WITHOUT_SNAPSHOT)?;
    let name = warren.name("narrow");
    warren.deploy(&name, modules::assemble(&modules::large_after_init())?, Deploy::default()).await?;
    let told = async {
        loop {
            let log = std::fs::read_to_string(warren.data().join("log/agent.log"))?;
            let says = |line: &str| line.contains("no snapshot was made") && line.contains(&name);
            if let Some(line) = log.lines().find(|line| says(line)) {
                return anyhow::Ok(line.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let line = tokio::time::timeout(Duration::from_mins(1), told).await.context("not told")??;
    ensure!(line.contains("No space left"), "{line}");
    let answer = warren.invoke(&name, "{}").await.context("a cold start without a snapshot")?;
    let timing = answer.timing.context("no timing")?;
    ensure!(timing.cold && timing.restore_us == 0, "{timing:?}");
    let half = std::fs::read_dir(warren.data().join("agent/snapshots/tmp"))?.count();
    ensure!(half == 0, "{half} half-made ones stay");
    full.end()?;
    warren.settled().await?;
    Ok(())
}

/// No line of any service can be written, and of `warren up` itself: nothing ends of it, and what is killed comes back.
async fn services_do_not_live_on_what_they_tell(_: &Installation) -> Result<()> {
    let mute = Installation::start("mute", &Options { number: 7, mute: true, ..Options::default() }).await?;
    mute.deploy("mute", modules::assemble(&modules::good())?, Deploy::default()).await?;
    for service in ["warren-control", "warren-agent", "warren-jailer"] {
        mute.invoke("mute", "{}").await.with_context(|| format!("before {service} was killed"))?;
        let pid = rustix::process::Pid::from_raw(mute.service(service).await?).context("pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        again(&mute, "mute", service).await?;
    }
    mute.stop().await
}

/// The answer that comes once what was killed is there again.
async fn again(warren: &Installation, name: &str, killed: &str) -> Result<InvokeResponse> {
    let answered = async {
        loop {
            match warren.invoke(name, "{}").await {
                Ok(answer) => return answer,
                Err(status) => {
                    println!("    after {killed} was killed: {}", WireError::from_status(&status).reason);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_mins(1), answered).await;
    answer.with_context(|| format!("no invocation after {killed} was killed"))
}

/// Writes until nothing more goes in.
fn fill(path: &Path) -> Result<()> {
    fill_up(&std::fs::File::create(path).context("ballast")?, 0);
    Ok(())
}

/// Writes until no more than `room` bytes are left.
fn fill_up(file: &std::fs::File, room: u64) {
    let (left, mut ballast) =
        (|| rustix::fs::fstatvfs(file).map_or(0, |disk| disk.f_bavail * disk.f_frsize), file);
    for size in [1 << 20, 4096, 1] {
        let block = vec![0_u8; size];
        while left() >= room + size as u64 && ballast.write_all(&block).is_ok() {}
    }
}

/// A disk that stays full, but for some room: what services give back (a file half written, a database made smaller) is taken
/// at once, so that nobody finds more by luck.
struct Full {
    ballast: PathBuf,
    end: mpsc::Sender<()>,
    filler: JoinHandle<()>,
}

impl Full {
    fn keep(ballast: PathBuf, room: u64) -> Result<Self> {
        let file = std::fs::File::create(&ballast).context("ballast")?;
        fill_up(&file, room);
        let (end, ended) = mpsc::channel();
        let filler = std::thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(2)) == Err(mpsc::RecvTimeoutError::Timeout) {
                fill_up(&file, room);
            }
        });
        Ok(Self { ballast, end, filler })
    }

    fn end(self) -> Result<()> {
        drop(self.end);
        self.filler.join().map_err(|_| anyhow::anyhow!("the filler panicked"))?;
        std::fs::remove_file(&self.ballast).context("ballast")
    }
}
