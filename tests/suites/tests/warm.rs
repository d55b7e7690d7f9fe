//! Many warm invocations at once: all answers right, no sandbox runs two at once, memory of agent and control flat.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::task::JoinSet;
use warren_client::Client;
use warren_proto::v1::InvokeRequest;
use warren_suites::{Deploy, Installation, Options, Suite, cases, full};

const FUNCTIONS: usize = 8;
const CLIENTS: usize = 32;

fn main() -> ExitCode {
    let cases = cases![thirty_two_clients_over_eight_functions];
    Suite { name: "warm", options: Options { number: 3, ..Options::default() }, cases }.main()
}

/// Calls in all.
fn total() -> u64 {
    if full() { 10_000 } else { 1_000 }
}

async fn thirty_two_clients_over_eight_functions(warren: &Installation) -> Result<()> {
    let mut names = Vec::new();
    for _ in 0..FUNCTIONS {
        names.push(warren.deploy_built("hello", Deploy::default()).await?);
    }
    let names = Arc::new(names);
    // As many sandboxes as will ever run, and every allocator as warm as it gets.
    load(warren, &names, total() / 4).await?;
    let before = memory(warren).await?;
    let counted = load(warren, &names, total()).await?;
    let after = memory(warren).await?;

    ensure!(counted.values().sum::<u64>() == total(), "{counted:?}");
    for (service, begin) in &before {
        let end = after.get(service).copied().unwrap_or_default();
        // Flat: no more than a page or two a hundred calls, over what measuring itself shifts.
        ensure!(end < begin + begin / 10 + (4 << 20), "{service} grew from {begin} to {end} bytes");
        println!("    {service}: {} -> {} KiB resident", begin >> 10, end >> 10);
    }
    // The worker's own count: every call ran in exactly one sandbox, none was lost, none counted twice.
    let sandboxes = warren.settled().await?;
    let ran: u64 = sandboxes.iter().map(|sandbox| sandbox.invocations).sum();
    ensure!(ran == total() + total() / 4, "the sandboxes ran {ran} invocations");
    println!("    {} calls over {} sandboxes", total(), sandboxes.len());
    Ok(())
}

/// Calls every function from every client, checks every answer.
async fn load(warren: &Installation, names: &Arc<Vec<String>>, count: u64) -> Result<BTreeMap<String, u64>> {
    let left = Arc::new(AtomicU64::new(count));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(warren.client.clone(), Arc::clone(names), Arc::clone(&left), number));
    }
    let mut counted = BTreeMap::new();
    while let Some(done) = clients.join_next().await {
        for (name, calls) in done?? {
            *counted.entry(name).or_insert(0) += calls;
        }
    }
    Ok(counted)
}

async fn client(
    client: Client,
    names: Arc<Vec<String>>,
    left: Arc<AtomicU64>,
    number: usize,
) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    let take = |left: u64| left.checked_sub(1);
    while let Ok(ticket) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        let index = (number + usize::try_from(ticket)?) % FUNCTIONS;
        let name = names.get(index).context("name")?;
        let marker = format!("c{number}t{ticket}f{index}");
        let request = InvokeRequest {
            function: name.clone(),
            payload: format!(r#"{{"name":"{marker}"}}"#).into_bytes().into(),
            request_id: format!("{marker}-{count}", count = counted.len()),
            ..InvokeRequest::default()
        };
        let answer = client.invoke().invoke(request).await.with_context(|| marker.clone())?.into_inner();
        let text = String::from_utf8_lossy(&answer.payload);
        ensure!(text == format!(r#"{{"message":"Hello, {marker}!"}}"#), "{marker} got {text}");
        *counted.entry(name.clone()).or_insert(0) += 1;
    }
    Ok(counted)
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
