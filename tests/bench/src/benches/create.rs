//! `create-rate`: sandboxes a second, jailed, from snapshots, client to client: one after the other, and several at once.

use super::invoke::timed;
use crate::{Places, report::Report, system::System};
use anyhow::{Result, ensure};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;

/// Clients that call at once.
const CLIENTS: usize = 8;

/// First calls of functions, half of them one by one and half at once; in jails made then, and in zygotes where there are any.
pub(crate) async fn rate(places: &Places, report: &mut Report, functions: usize) -> Result<()> {
    let jailed = created(places, &["--zygotes-mib=0"], functions).await?;
    let adopted = created(places, &[], functions).await?;
    let half = functions / 2;
    for (metric, rate, before) in [
        ("sequential", adopted.sequential, jailed.sequential),
        ("parallel", adopted.parallel, jailed.parallel),
    ] {
        let without = format!("{metric}-jailed");
        report.value("create-rate", &without, "1/s", (before, before), half, ("", 0.0), "");
        report.value("create-rate", metric, "1/s", (rate, rate), half, (&without, rate / before), ">= 500/s");
    }
    let (share, all) = (f64::from(adopted.zygotes), functions);
    report.value("create-rate", "zygotes", "each", (share, share), all, ("", 0.0), "");
    Ok(())
}

/// What one system did.
struct Created {
    sequential: f64,
    parallel: f64,
    /// How many cold starts found one.
    zygotes: u32,
}

async fn created(places: &Places, arguments: &[&str], functions: usize) -> Result<Created> {
    let system = System::start_with(&places.bin, arguments).await?;
    let name = |number: usize| format!("rate-{number}");
    for number in 0..functions {
        system.deploy(&places.functions, "hello", &name(number)).await?;
    }
    system.snapshots(functions).await?;
    let half = functions / 2;
    let mut client = system.invoker().await?;
    let began = Instant::now();
    for number in 0..half {
        let (_, response) = timed(&mut client, &name(number)).await?;
        ensure!(response.timing.is_some_and(|timing| timing.restore_us > 0), "not restored");
    }
    let sequential = began.elapsed().as_secs_f64();
    let next = Arc::new(AtomicUsize::new(half));
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let (mut client, next) = (system.invoker().await?, Arc::clone(&next));
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= functions {
                    return anyhow::Ok(());
                }
                let (_, response) = timed(&mut client, &format!("rate-{number}")).await?;
                ensure!(response.timing.is_some_and(|timing| timing.restore_us > 0), "not restored");
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let parallel = began.elapsed().as_secs_f64();
    let zygotes = system.zygotes_adopted().await?;
    system.stop().await?;
    let rate = |count: usize, seconds: f64| -> Result<f64> { Ok(f64::from(u32::try_from(count)?) / seconds) };
    Ok(Created { sequential: rate(half, sequential)?, parallel: rate(functions - half, parallel)?, zygotes })
}
