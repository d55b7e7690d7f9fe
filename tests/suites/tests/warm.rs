//! Many warm invocations at once over eight different functions: all answers right, no sandbox runs two at once, limits
//! never exceeded, memory of agent and control flat.
//!
//! Three witnesses: the answers; the functions themselves (a file and a flag inside the sandbox, and how many events it has
//! seen); and the worker's own records of START and END, from which overlaps and concurrency are computed exactly.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;
use warren_client::Client;
use warren_proto::{
    error::{Fault, WireError},
    v1::{InvokeRequest, ListAllSandboxesRequest, SandboxState, StatusRequest},
};
use warren_suites::{
    Installation, Options, Suite, cases, full,
    intervals::{self, Interval},
    work::{self, Told, Work},
};

const CLIENTS: u64 = 32;
/// Fewer than there are clients, so that the limit is reached all the time.
const ACCOUNT: usize = 24;
/// Of the account's, for the probe alone.
const RESERVED: usize = 3;

fn main() -> ExitCode {
    let cases = cases![thirty_two_clients_over_eight_functions];
    let options = Options { number: 3, arguments: &["--account-concurrency=24"], ..Options::default() };
    Suite { name: "warm", options, cases }.main()
}

/// Calls in all.
fn total() -> u64 {
    if full() { 10_000 } else { 1_000 }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    calls: BTreeMap<Work, u64>,
    /// Answers that said "my sandbox's k-th event", by k.
    nth: BTreeMap<(Work, u64), usize>,
    throttled: u64,
}

/// Most at once, as looked at from outside while the load runs.
#[derive(Clone, Copy, Debug, Default)]
struct Sampled {
    looks: u64,
    running: usize,
    busy: usize,
    busy_probes: usize,
}

async fn thirty_two_clients_over_eight_functions(warren: &Installation) -> Result<()> {
    let mut names = BTreeMap::new();
    for work in work::ALL {
        let name = warren.name(work.module());
        let reserved = (work == Work::Probe).then(|| u32::try_from(RESERVED)).transpose()?;
        let how = warren_suites::Deploy { reserved, ..work.deploy() };
        warren.deploy(&name, work.code()?, how).await.with_context(|| name.clone())?;
        names.insert(work, name);
    }
    let names = Arc::new(names);
    // As many sandboxes as will ever run, and every allocator as warm as it gets: large answers meet by chance, some of a thousand do.
    let warm_up = (total() / 4).max(1_000);
    let mut seen = load(warren, &names, 0..warm_up).await?;
    let before = memory(warren).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(warren.client.clone(), names[&Work::Probe].clone(), Arc::clone(&stop)));
    let counted = load(warren, &names, warm_up..warm_up + total()).await?;
    stop.store(true, Ordering::Relaxed);
    let sampled = watching.await??;
    let after = memory(warren).await?;

    ensure!(counted.calls.values().sum::<u64>() == total(), "{:?}", counted.calls);
    println!("    {} calls: {:?}; {} told to come again", total(), counted.calls, counted.throttled);
    for (service, begin) in &before {
        let end = after.get(service).copied().unwrap_or_default();
        println!("    {service}: {} -> {} KiB resident", begin >> 10, end >> 10);
        // Flat: no more than a page or two a hundred calls, over what measuring itself shifts.
        ensure!(end < begin + begin / 10 + (4 << 20), "{service} grew from {begin} to {end} bytes");
    }
    println!("    from outside: {sampled:?}, limits {ACCOUNT} and {RESERVED}");
    ensure!(sampled.looks > 0 && sampled.running <= ACCOUNT, "{sampled:?}");
    ensure!(sampled.busy <= ACCOUNT && sampled.busy_probes <= RESERVED, "{sampled:?}");
    for (nth, count) in counted.nth {
        *seen.nth.entry(nth).or_default() += count;
    }
    warren.settled().await?;
    records(warren, &names, &seen, usize::try_from(warm_up + total())?).await
}

/// What the worker wrote down agrees with what the clients saw, and with the limits.
async fn records(
    warren: &Installation,
    names: &BTreeMap<Work, String>,
    seen: &Seen,
    calls: usize,
) -> Result<()> {
    // Reading any log brings every line to its file.
    warren.cli(&["logs", &names[&Work::Hello]]).await?;
    let all = intervals::read(&warren.data().join("agent/logs"))?;
    ensure!(all.len() == calls, "{} invocations are recorded, {calls} were answered", all.len());
    if let Some((first, second)) = intervals::overlap(&all) {
        anyhow::bail!("two at once in one sandbox: {first:?} and {second:?}");
    }
    let of = |work: Work| all.iter().filter(move |one| Some(&one.function) == names.get(&work));
    let (most, probes) = (intervals::most_at_once(all.iter()), intervals::most_at_once(of(Work::Probe)));
    println!("    by the records: at most {most} at once of {ACCOUNT}, {probes} of {RESERVED} reserved ones");
    ensure!(most <= ACCOUNT && probes <= RESERVED, "above the limits");
    ensure!(most <= ACCOUNT - RESERVED + probes, "above what the account has beyond reservations");
    let others = intervals::most_at_once(all.iter().filter(|one| one.function != names[&Work::Probe]));
    ensure!(others <= ACCOUNT - RESERVED, "{others} at once beside the reserved ones");
    for work in [Work::Component, Work::Probe] {
        nth(work, seen, of(work))?;
    }
    Ok(())
}

/// The k-th event of a sandbox was answered as the k-th, once in each sandbox that had so many: no event was lost, none ran
/// twice, and none was in another's place.
fn nth<'a>(work: Work, seen: &Seen, recorded: impl Iterator<Item = &'a Interval>) -> Result<()> {
    let mut ran: BTreeMap<&str, u64> = BTreeMap::new();
    for one in recorded {
        *ran.entry(&one.sandbox).or_default() += 1;
    }
    let mut expected: BTreeMap<u64, usize> = BTreeMap::new();
    for count in ran.values() {
        (1..=*count).for_each(|k| *expected.entry(k).or_default() += 1);
    }
    let told: BTreeMap<u64, usize> =
        seen.nth.iter().filter(|((of, _), _)| *of == work).map(|((_, k), count)| (*k, *count)).collect();
    ensure!(told == expected, "{work:?}: told {told:?}, recorded {expected:?}");
    println!("    {work:?}: {} sandboxes, every event was its own", ran.len());
    Ok(())
}

/// Calls every function from every client, checks every answer.
async fn load(
    warren: &Installation,
    names: &Arc<BTreeMap<Work, String>>,
    numbers: std::ops::Range<u64>,
) -> Result<Seen> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(warren.client.clone(), Arc::clone(names), Arc::clone(&next), numbers.end));
    }
    let mut all = Seen::default();
    while let Some(done) = clients.join_next().await {
        let Seen { calls, nth, throttled } = done??;
        for (work, count) in calls {
            *all.calls.entry(work).or_default() += count;
        }
        for (key, count) in nth {
            *all.nth.entry(key).or_default() += count;
        }
        all.throttled += throttled;
    }
    Ok(all)
}

async fn client(
    client: Client,
    names: Arc<BTreeMap<Work, String>>,
    next: Arc<AtomicU64>,
    end: u64,
) -> Result<Seen> {
    let mut seen = Seen::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok(seen);
        }
        let work = work::ALL[usize::try_from(number)? % work::ALL.len()];
        let mut tries = 0_u64;
        let answer = loop {
            let request = InvokeRequest {
                function: names.get(&work).context("name")?.clone(),
                payload: work.event(number)?,
                request_id: format!("n{number}-{tries}"),
                ..InvokeRequest::default()
            };
            match client.invoke().invoke(request).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => {
                    let error = WireError::from_status(&status);
                    // Whoever is over a limit is told when to come again. Anything else is wrong here.
                    ensure!(error.fault == Fault::Throttle, "{work:?} {number}: {error:?}");
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        seen.throttled += tries;
        let told = work.check(number, &answer.payload).with_context(|| format!("{work:?} {number}"))?;
        if let Told::Seen(k) = told {
            *seen.nth.entry((work, k)).or_default() += 1;
        }
        *seen.calls.entry(work).or_default() += 1;
    }
}

/// Looks from outside for as long as the load runs.
async fn watch(client: Client, probe: String, stop: Arc<AtomicBool>) -> Result<Sampled> {
    let mut sampled = Sampled::default();
    while !stop.load(Ordering::Relaxed) {
        let status = client.admin().status(StatusRequest {}).await?.into_inner();
        sampled.running = sampled.running.max(usize::try_from(status.running)?);
        let listed = client.admin().list_all_sandboxes(ListAllSandboxesRequest::default()).await?;
        let busy: Vec<_> = listed
            .into_inner()
            .sandboxes
            .into_iter()
            .filter(|sandbox| sandbox.state() == SandboxState::Busy)
            .collect();
        sampled.busy = sampled.busy.max(busy.len());
        let probes = busy.iter().filter(|sandbox| sandbox.function == probe).count();
        sampled.busy_probes = sampled.busy_probes.max(probes);
        sampled.looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(sampled)
}

/// Resident bytes of the services.
async fn memory(warren: &Installation) -> Result<BTreeMap<&'static str, u64>> {
    let mut all = BTreeMap::new();
    for service in ["warren-agent", "warren-control"] {
        let pid = warren.service(service).await?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        all.insert(service, kib << 10);
    }
    Ok(all)
}
