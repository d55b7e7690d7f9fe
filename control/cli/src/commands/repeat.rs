//! `warren invoke --repeat`: many calls, one distribution.

use super::invoke;
use crate::{charts, screen};
use hdrhistogram::Histogram;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;
use warren_client::{Client, Failure, Outcome};
use warren_proto::v1::InvokeRequest;

/// What the callers saw.
struct Tally {
    latencies: Histogram<u64>,
    cold: u64,
    errors: BTreeMap<String, u64>,
    first_error: Option<Failure>,
}

/// Calls `count` times with `concurrency` callers, then prints what they saw. Fails with the first error, if any.
pub(crate) async fn run(
    client: &Client,
    request: &InvokeRequest,
    count: u64,
    concurrency: u32,
    json: bool,
) -> Outcome {
    let left = Arc::new(AtomicU64::new(count));
    let progress = Arc::new(screen::bar(count, format!("invoking {}", request.function)));
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..u64::from(concurrency.max(1)).min(count) {
        callers.spawn(caller(client.clone(), request.clone(), Arc::clone(&left), Arc::clone(&progress)));
    }
    let mut total = Tally::new()?;
    loop {
        tokio::select! {
            done = callers.join_next() => match done {
                Some(Ok(tally)) => total.merge(tally?),
                Some(Err(error)) => return Err(Failure::local(format!("a caller died: {error}"))),
                None => break,
            },
            // Callers finish what they began, so that the distribution stays honest.
            _ = tokio::signal::ctrl_c() => left.store(0, Ordering::Relaxed),
        }
    }
    drop(progress);
    total.print(begin.elapsed().as_secs_f64(), json);
    total.first_error.map_or(Ok(()), Err)
}

async fn caller(
    client: Client,
    request: InvokeRequest,
    left: Arc<AtomicU64>,
    progress: Arc<screen::Progress>,
) -> Outcome<Tally> {
    let mut tally = Tally::new()?;
    let take = |left: u64| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        let begin = Instant::now();
        let answer = invoke::call(&client, request.clone()).await;
        let us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        match answer {
            Ok(answer) => {
                tally.latencies.saturating_record(us);
                tally.cold += u64::from(answer.timing.is_some_and(|timing| timing.cold));
            }
            Err(failure) => {
                let reason = match &failure {
                    Failure::Wire(error) => error.reason.clone(),
                    other => other.to_string(),
                };
                *tally.errors.entry(reason).or_default() += 1;
                tally.first_error.get_or_insert(failure);
            }
        }
        progress.inc();
    }
    Ok(tally)
}

impl Tally {
    fn new() -> Outcome<Self> {
        // 1 us to 20 minutes, three digits: longer than any invocation may take.
        let latencies = Histogram::new_with_bounds(1, 1_200_000_000, 3)
            .map_err(|error| Failure::local(format!("histogram: {error}")))?;
        Ok(Self { latencies, cold: 0, errors: BTreeMap::new(), first_error: None })
    }

    fn merge(&mut self, other: Self) {
        // Same bounds on both sides: adding cannot fail.
        let _same_bounds = self.latencies.add(&other.latencies);
        self.cold += other.cold;
        for (reason, count) in other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn print(&self, seconds: f64, json: bool) {
        let good = self.latencies.len();
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = good as f64 / seconds.max(1e-9);
        if json {
            let at = |quantile| self.latencies.value_at_quantile(quantile);
            return screen::print_json(&json!({
                "ok": good, "cold": self.cold, "errors": self.errors, "seconds": seconds, "rate": rate,
                "us": { "min": self.latencies.min(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
                        "p999": at(0.999), "max": self.latencies.max() },
            }));
        }
        screen::print(&format!("{good} answers in {seconds:.2} s, {rate:.0} a second, {} cold", self.cold));
        if good > 0 {
            screen::print(&charts::latencies(&self.latencies));
        }
        for (reason, count) in &self.errors {
            screen::print(&format!("  {count} x {reason}"));
        }
    }
}
