//! `fairness`: what sandboxes take of each other.
//!
//! `shares`: on a host where all of them spin, each has processor time in proportion to its memory. `beside`: what an event of a function
//! takes whose neighbours do their worst, beside the same while they are idle. Every answer is what it must be, the agent that serves
//! them in the end is the one that did at first, and every neighbour answers again.

use crate::{
    Places,
    host_memory::Fields,
    report::Report,
    stats::Samples,
    system::{System, Worker},
};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};
use warren_proto::v1::FunctionLimits;

/// Memories of those that spin, MiB.
const SIZES: [u32; 3] = [128, 256, 512];
const SPIN: &str = r#"{"mode":"spin"}"#;
/// The good event after a bad one, and its answer.
const OK: (&str, &str) = (r#"{"mode":"ok"}"#, r#"{"ok":true}"#);
/// What the bystander is asked, and answers.
const HELLO: (&str, &str) = (r#"{"name":"bench"}"#, "Hello, bench");
/// Until all of them spin, and how long they are watched then.
const WARM: Duration = Duration::from_secs(2);
const WATCHED: Duration = Duration::from_secs(10);
/// Longer than they are watched, also where an emulator is the host: each is ended by its process.
const SPIN_MS: u32 = 900_000;

/// The worst that `hostile` can do, each by its own event.
const WORST: [&str; 8] = [
    SPIN,
    r#"{"mode":"allocate"}"#,
    r#"{"mode":"recurse"}"#,
    r#"{"mode":"flood-stdout"}"#,
    r#"{"mode":"flood-stderr","mib":8}"#,
    r#"{"mode":"unreachable"}"#,
    r#"{"mode":"answer","bytes":6000000}"#,
    r#"{"mode":"half-then-trap"}"#,
];
const WORST_MS: u32 = 1000;
/// A neighbour that serves no more is made again.
const AGAIN: Duration = Duration::from_millis(50);
/// Tries until one serves again.
const TRIES: usize = 100;

pub(crate) async fn fairness(places: &Places, report: &mut Report, neighbours: usize) -> Result<()> {
    let system =
        System::start_with(&places.bin, &["--zygotes-mib=0", "--memory-mib=4000000", "--idle-ms=36000000"])
            .await?;
    shares(places, &system, report).await?;
    if neighbours > 0 {
        beside(places, &system, report, neighbours).await?;
    }
    system.stop().await
}

async fn shares(places: &Places, system: &System, report: &mut Report) -> Result<()> {
    let of_each = std::thread::available_parallelism()?.get();
    let mut spinning = JoinSet::new();
    let mut all = Vec::new();
    for mib in SIZES {
        let name = format!("spin-{mib}");
        let limits = FunctionLimits { memory_mib: mib, timeout_ms: SPIN_MS, ..FunctionLimits::default() };
        system.deploy_with(&places.functions, "hostile", &name, limits).await?;
        let worker = Arc::new(system.worker(&name).await?);
        for number in 0..of_each {
            let (worker, sandbox) = (Arc::clone(&worker), format!("{name}-{number}"));
            worker.create(&sandbox).await?;
            let pid = worker.pid(&sandbox).await?;
            all.push((mib, sandbox.clone(), pid));
            // Ends with its process.
            spinning.spawn(async move { worker.invoke_with(&sandbox, SPIN, SPIN_MS).await.map(drop) });
        }
    }
    eprintln!("fairness: {} sandboxes spin for {} s", all.len(), (WARM + WATCHED).as_secs());
    sleep(WARM).await;
    let ran = |pid: i32| ran_ns(pid).with_context(|| format!("process {pid}"));
    let before = all.iter().map(|(_, _, pid)| ran(*pid)).collect::<Result<Vec<_>>>()?;
    sleep(WATCHED).await;
    let after = all.iter().map(|(_, _, pid)| ran(*pid)).collect::<Result<Vec<_>>>()?;
    ensure!(spinning.try_join_next().is_none(), "one of them ended while it was watched");
    let took: Vec<f64> = before.iter().zip(&after).map(|(before, after)| whole(after - before)).collect();
    let (time, memory): (f64, f64) = (took.iter().sum(), all.iter().map(|(mib, ..)| f64::from(*mib)).sum());
    for mib in SIZES {
        let of_size = || all.iter().zip(&took).filter(|((size, ..), _)| *size == mib);
        let due = f64::from(mib) / memory;
        let error = |had: f64| (had / time / due - 1.0).abs() * 100.0;
        let mean = of_size().map(|(_, had)| had).sum::<f64>() / whole(of_each);
        let most = of_size().map(|(_, had)| error(*had)).fold(0.0, f64::max);
        let metric = format!("share-error-{mib}-mib");
        report.value("fairness", &metric, "%", (error(mean), most), of_each, ("", 0.0), "<= 5 %");
    }
    // A destroy lets an event that runs come to its end, and these have a quarter of an hour.
    for (_, sandbox, pid) in &all {
        end(*pid).with_context(|| format!("{sandbox} does not end"))?;
    }
    while let Some(ended) = spinning.join_next().await {
        ensure!(ended?.is_err(), "an event without end was answered");
    }
    let worker = system.worker("spin-128").await?;
    for (_, sandbox, _) in &all {
        worker.destroy(sandbox).await?;
    }
    Ok(())
}

async fn beside(places: &Places, system: &System, report: &mut Report, neighbours: usize) -> Result<()> {
    system.deploy(&places.functions, "hello", "bystander").await?;
    system.deploy(&places.functions, "hostile", "worst").await?;
    let bystander = system.worker("bystander").await?;
    bystander.create("bystander").await?;
    let worst = Arc::new(system.worker("worst").await?);
    eprintln!("fairness: {neighbours} neighbours are made");
    for number in 0..neighbours {
        worst.create(&format!("worst-{number}")).await?;
    }
    let watched = WATCHED.as_secs();
    eprintln!(
        "fairness: an event beside them for {watched} s while they are idle, and for {watched} s while they do their worst"
    );
    let agent = system.agent()?;
    let memory = || Fields::of_process(agent).map(|fields| fields.get("VmRSS")).context("the agent is gone");
    let held = memory()?;
    let idle = latencies(&bystander, WATCHED).await?;
    let (stop, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut raging = JoinSet::new();
    for number in 0..neighbours {
        raging.spawn(rage(Arc::clone(&worst), number, Arc::clone(&stop), Arc::clone(&ends)));
    }
    sleep(WARM).await;
    let during = latencies(&bystander, WATCHED).await?;
    stop.store(true, Ordering::Relaxed);
    eprintln!(
        "fairness: after {} of their events, until all of them serve again",
        ends.load(Ordering::Relaxed)
    );
    while let Some(ended) = raging.join_next().await {
        ended?;
    }
    let after = latencies(&bystander, WARM).await?;
    for number in 0..neighbours {
        serves_again(&worst, &format!("worst-{number}")).await?;
    }
    ensure!(system.agent()? == agent, "the agent is another one than at first");
    let holds = memory()?;
    report.floor("fairness", "beside-idle", &idle);
    let least = ("beside-idle", idle.p50_us());
    report.times("fairness", "beside-worst", &during, least, "");
    report.times("fairness", "beside-after", &after, least, "");
    let events = ends.load(Ordering::Relaxed);
    report.value(
        "fairness",
        "worst-events",
        "each",
        (whole(events), whole(events)),
        neighbours,
        ("", 0.0),
        ">= 200 sandboxes",
    );
    let mib = |kib: i64| f64::from(i32::try_from(kib).unwrap_or(i32::MAX)) / 1024.0;
    let beside = ("itself before", mib(holds) / mib(held));
    report.value("fairness", "agent-memory", "MiB", (mib(holds), mib(holds)), 1, beside, "");
    Ok(())
}

/// One neighbour: event after event, each another of the worst; made again whenever one has ended it.
async fn rage(worker: Arc<Worker>, number: usize, stop: Arc<AtomicBool>, ends: Arc<AtomicUsize>) {
    let name = format!("worst-{number}");
    for turn in number.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let event = WORST.get(turn % WORST.len()).copied().unwrap_or(SPIN);
        if worker.invoke_with(&name, event, WORST_MS).await.is_err() && worker.create(&name).await.is_err() {
            sleep(AGAIN).await;
        }
        ends.fetch_add(1, Ordering::Relaxed);
    }
}

/// It answers a good event, or one that is made in its place does.
async fn serves_again(worker: &Worker, name: &str) -> Result<()> {
    for _ in 0..TRIES {
        match worker.invoke_with(name, OK.0, WORST_MS).await {
            Ok(answer) if &answer.payload[..] == OK.1.as_bytes() => return Ok(()),
            Ok(answer) => bail!("{name} answers {:?}", answer.payload),
            Err(_) if worker.create(name).await.is_err() => sleep(AGAIN).await,
            Err(_) => {}
        }
    }
    bail!("{name} does not serve again")
}

/// Events one after the other for a while, and their answers as they should be.
async fn latencies(worker: &Worker, time: Duration) -> Result<Samples> {
    let (mut all, until) = (Samples::new(), Instant::now() + time);
    while Instant::now() < until {
        let began = Instant::now();
        let answer = worker.invoke_with("bystander", HELLO.0, 10_000).await?;
        all.push(began.elapsed());
        let text = String::from_utf8_lossy(&answer.payload);
        ensure!(text.contains(HELLO.1), "the bystander answers {text:?}");
    }
    Ok(all)
}

/// Ends the process of one sandbox.
fn end(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("no process")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// Processor time that a process has had, ns.
fn ran_ns(pid: i32) -> Result<usize> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += stat.split_whitespace().next().context("no time")?.parse::<usize>()?;
    }
    Ok(sum)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a minute are far below 2^52")]
const fn whole(number: usize) -> f64 {
    number as f64
}
