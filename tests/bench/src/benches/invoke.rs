//! `invoke-warm`, `invoke-cold`, `throughput`: client to client over gRPC, through every process.

use crate::{
    Places,
    floors::{
        kvm::{self, ExitFloor},
        rpc::EchoServer,
    },
    report::Report,
    stats::Samples,
    system::{Invoker, System},
};
use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::{sync::mpsc, task::JoinSet};
use warren_proto::v1::{InvokeRequest, InvokeResponse, Timing};

const EVENT: &[u8] = br#"{"name":"bench"}"#;

fn event(function: &str) -> InvokeRequest {
    InvokeRequest {
        function: function.to_owned(),
        payload: Bytes::from_static(EVENT),
        ..InvokeRequest::default()
    }
}

pub(super) async fn timed(client: &mut Invoker, function: &str) -> Result<(Duration, InvokeResponse)> {
    let request = event(function);
    let began = Instant::now();
    let response = client.invoke(request).await?.into_inner();
    let took = began.elapsed();
    ensure!(!response.payload.is_empty(), "{function} answered nothing");
    Ok((took, response))
}

/// One client, one call at a time, each beside one bare echo; then the tail at half of peak load.
pub(crate) async fn warm(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let (system, echo) = (System::start(&places.bin).await?, EchoServer::start().await?);
    system.deploy(&places.functions, "hello", "hello").await?;
    let (mut client, mut bare) = (system.invoker().await?, echo.client().await?);
    let mut exit_floor = ExitFloor::new()?;
    let (mut warm, mut floor, mut exits) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..runs + runs / 10 {
        let (took, _) = timed(&mut client, "hello").await?;
        let began = Instant::now();
        bare.invoke(event("hello")).await?;
        let echoed = began.elapsed();
        let exit = exit_floor.round_trip()?;
        // The first tenth warms caches and connections.
        if run >= runs / 10 {
            warm.push(took);
            floor.push(echoed);
            exits.push(exit);
        }
    }
    let sum = floor.p50_us() + exits.p50_us();
    report.floor("invoke-warm", "rpc-floor", &floor);
    report.floor("invoke-warm", "exit-floor", &exits);
    report.times("invoke-warm", "p50", &warm, ("sum-floor", sum), "<= 2.5x");

    let peak = closed_loop(&system, 8, Duration::from_secs(2)).await?;
    let Open { warm: half, cold } = open_loop(&system, 8, peak / 2.0, Duration::from_secs(4)).await?;
    report.times("invoke-warm", "half-load", &half, ("sum-floor", sum), "");
    let tail = (half.p99_us(), half.p99_us());
    report.value(
        "invoke-warm",
        "half-load-p99",
        "us",
        tail,
        half.len(),
        ("half-load-p50", half.p99_us() / half.p50_us()),
        "<= 3x",
    );
    let cold = f64::from(cold);
    report.value("invoke-warm", "half-load-cold", "calls", (cold, cold), half.len(), ("", 0.0), "");
    system.stop().await
}

/// As many functions as runs, each called once, so that no call finds a sandbox: without snapshots, without zygotes, with both.
pub(crate) async fn cold(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let mut floors = Floors::default();
    let (booted, _) = starts(places, &["--snapshots-mib=0"], runs, &mut floors).await?;
    let (restored, in_jail) = starts(places, &["--zygotes-mib=0"], runs, &mut floors).await?;
    let (adopted, in_zygote) = starts(places, &[], runs, &mut floors).await?;
    let Floors { rpc, create } = floors;
    report.floor("invoke-cold", "rpc-floor", &rpc);
    report.floor("invoke-cold", "kvm-floor", &create);
    let sum = ("5x kvm-floor + rpc-floor", 5.0f64.mul_add(create.p50_us(), rpc.p50_us()));
    report.times("invoke-cold", "booted", &booted, sum, "");
    report.times("invoke-cold", "restored", &restored, sum, "");
    report.times("invoke-cold", "p50", &adopted, sum, "<= 1x");
    report.times("invoke-cold", "restored", &restored, ("booted", booted.p50_us()), "");
    report.times("invoke-cold", "p50", &adopted, ("booted", booted.p50_us()), "");
    for (of, stages, all) in [("restored", in_jail, &restored), ("zygote", in_zygote, &adopted)] {
        for (stage, samples) in STAGES.iter().zip(&stages.0) {
            let metric = format!("{of}-{stage}");
            report.times("invoke-cold", &metric, samples, ("all of it", all.p50_us()), "");
        }
    }
    Ok(())
}

/// Where the time of a cold start goes; the rest is the client's and the wire's.
const STAGES: [&str; 7] = ["admission", "assignment", "placement", "jail", "vm", "restore", "handler"];

/// Samples of each of [`STAGES`].
#[derive(Default)]
struct Stages([Samples; STAGES.len()]);

impl Stages {
    fn push(&mut self, timing: &Timing) {
        let Timing {
            admission_us, assignment_us, placement_us, jail_us, vm_us, restore_us, handler_us, ..
        } = *timing;
        let took = [admission_us, assignment_us, placement_us, jail_us, vm_us, restore_us, handler_us];
        for (samples, us) in self.0.iter_mut().zip(took) {
            samples.push(Duration::from_micros(us));
        }
    }
}

/// Measured between cold starts.
#[derive(Default)]
struct Floors {
    rpc: Samples,
    create: Samples,
}

/// First calls of as many functions as runs.
async fn starts(
    places: &Places,
    arguments: &[&str],
    runs: usize,
    floors: &mut Floors,
) -> Result<(Samples, Stages)> {
    let (system, echo) = (System::start_with(&places.bin, arguments).await?, EchoServer::start().await?);
    for run in 0..runs {
        system.deploy(&places.functions, "hello", &format!("cold-{run}")).await?;
    }
    let restored = !arguments.contains(&"--snapshots-mib=0");
    if restored {
        system.snapshots(runs).await?;
    }
    let (mut client, mut bare) = (system.invoker().await?, echo.client().await?);
    let (mut cold, mut stages) = (Samples::default(), Stages::default());
    for run in 0..runs {
        let (took, response) = timed(&mut client, &format!("cold-{run}")).await?;
        let timing = response.timing.unwrap_or_default();
        ensure!(timing.cold && (timing.restore_us > 0) == restored, "run {run}: {timing:?}");
        cold.push(took);
        stages.push(&timing);
        let began = Instant::now();
        bare.invoke(event("hello")).await?;
        floors.rpc.push(began.elapsed());
        floors.create.push(kvm::create_to_first_exit()?.0);
    }
    system.stop().await?;
    Ok((cold, stages))
}

/// Closed loops of 1 to 64 clients, each size beside the bare echo.
pub(crate) async fn throughput(places: &Places, report: &mut Report, seconds: u64) -> Result<()> {
    let (system, echo) = (System::start(&places.bin).await?, EchoServer::start().await?);
    system.deploy(&places.functions, "hello", "hello").await?;
    let span = Duration::from_secs(seconds);
    let (mut exit_floor, mut exits) = (ExitFloor::new()?, Samples::default());
    for _ in 0..200 {
        exits.push(exit_floor.round_trip()?);
    }
    for clients in [1, 2, 4, 8, 16, 32, 64] {
        let rate = closed_loop(&system, clients, span).await?;
        let floor = echo_loop(&echo, clients, span).await?;
        // Two cores share what an exit and an echo cost; this is the rate those two alone would allow.
        let cores = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?);
        let allowed = 1.0 / (1.0 / floor + exits.p50_us() / 1e6 / cores);
        let (baseline, reach) =
            if exits.p50_us() < 5.0 { (floor, ">= 0.40x rpc-floor") } else { (allowed, ">= 0.60x exit+rpc") };
        let name = if exits.p50_us() < 5.0 { "rpc-floor" } else { "exit-floor + rpc-floor" };
        report.value("throughput", &format!("rpc-floor-{clients}"), "1/s", (floor, floor), 1, ("", 0.0), "");
        report.value(
            "throughput",
            &format!("rps-{clients}"),
            "1/s",
            (rate, rate),
            1,
            (name, rate / baseline),
            reach,
        );
    }
    system.stop().await
}

/// Calls a second of so many clients that each wait for their answer; one unmeasured round first.
async fn closed_loop(system: &System, clients: usize, span: Duration) -> Result<f64> {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut client = system.invoker().await?;
        timed(&mut client, "hello").await?;
        tasks.spawn(async move {
            let began = Instant::now();
            let mut calls = 0_u32;
            while began.elapsed() < span {
                timed(&mut client, "hello").await?;
                calls += 1;
            }
            anyhow::Ok(f64::from(calls) / began.elapsed().as_secs_f64())
        });
    }
    sum(tasks).await
}

async fn echo_loop(echo: &EchoServer, clients: usize, span: Duration) -> Result<f64> {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut client = echo.client().await?;
        tasks.spawn(async move {
            let began = Instant::now();
            let mut calls = 0_u32;
            while began.elapsed() < span {
                client.invoke(event("hello")).await?;
                calls += 1;
            }
            anyhow::Ok(f64::from(calls) / began.elapsed().as_secs_f64())
        });
    }
    sum(tasks).await
}

async fn sum(mut tasks: JoinSet<Result<f64>>) -> Result<f64> {
    let mut total = 0.0;
    while let Some(rate) = tasks.join_next().await {
        total += rate??;
    }
    Ok(total)
}

/// What an open loop saw.
struct Open {
    /// Latencies of warm calls, each measured from when it was due.
    warm: Samples,
    /// Calls that found no idle sandbox and started one.
    cold: u32,
}

/// Calls sent at a fixed rate over so many connections, whatever the answers do. The first second, in which the sandboxes that
/// this rate needs are started, is not counted.
async fn open_loop(system: &System, clients: usize, rate: f64, span: Duration) -> Result<Open> {
    let settle = Duration::from_secs(1);
    let mut invokers = Vec::new();
    for _ in 0..clients {
        invokers.push(system.invoker().await?);
    }
    let (send, mut due) = mpsc::unbounded_channel();
    let began = Instant::now();
    let pace = std::thread::spawn(move || pace(began, rate, settle + span, &send));
    let (mut tasks, mut invokers) = (JoinSet::new(), invokers.into_iter().cycle());
    while let (Some(at), Some(mut client)) = (due.recv().await, invokers.next()) {
        tasks.spawn(async move {
            let (_, response) = timed(&mut client, "hello").await?;
            let cold = response.timing.is_some_and(|timing| timing.cold);
            anyhow::Ok((at, at.elapsed(), cold))
        });
    }
    pace.join().map_err(|_| anyhow!("the pacing thread ended early"))?;
    let mut seen = Open { warm: Samples::default(), cold: 0 };
    while let Some(call) = tasks.join_next().await {
        let (at, took, cold) = call??;
        match (at >= began + settle, cold) {
            (true, true) => seen.cold += 1,
            (true, false) => seen.warm.push(took),
            (false, _) => {}
        }
    }
    Ok(seen)
}

/// Says when each call is due. A thread of its own: the runtime's timer has ticks of a millisecond, in which several calls
/// would leave as one burst.
fn pace(began: Instant, rate: f64, span: Duration, send: &mpsc::UnboundedSender<Instant>) {
    let gap = Duration::from_secs_f64(1.0 / rate.max(1.0));
    let mut at = began;
    while at < began + span {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if send.send(at).is_err() {
            return;
        }
        at += gap;
    }
}
