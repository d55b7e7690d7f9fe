//! Log lines of all workers, merged.

use crate::{Frontend, validate};
use futures::stream::{SelectAll, select_all};
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::Status;
use warren_placement::HostState;
use warren_proto::{
    error::WireError,
    v1::{LogLine, LogsRequest},
};

type Lines = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

const DEFAULT_TAIL: u32 = 100;

/// The last lines of a function, and with `follow` those to come, from every worker that is there.
///
/// The past is sorted by time; what comes later is passed on as it comes, each line with its host and number.
pub(crate) async fn merged(frontend: &Frontend, request: &LogsRequest) -> Result<Lines, WireError> {
    if frontend.catalog.get(&request.function).is_none() {
        return Err(validate::no_such_function(&request.function));
    }
    let there = |worker: &std::sync::Arc<warren_placement::Worker>| worker.status().state != HostState::Lost;
    let mut past = Vec::new();
    let mut live: Vec<Lines> = Vec::new();
    for worker in frontend.fleet.all().into_iter().filter(there) {
        let tail = LogsRequest { follow: false, ..request.clone() };
        match worker.client().worker_logs(tail).await {
            Ok(lines) => collect(&mut past, lines.into_inner()).await,
            Err(status) => tracing::warn!(host = %worker.id(), %status, "no logs from this worker"),
        }
        if request.follow {
            let last =
                past.iter().filter(|line| *line.host_id == **worker.id()).map(|line| line.sequence).max();
            // Asked again from the same point: lines already given are known by their number.
            if let Ok(lines) = worker.client().worker_logs(request.clone()).await {
                live.push(Box::pin(newer_than(lines.into_inner(), last)));
            }
        }
    }
    past.sort_by_key(|line| (line.unix_ms, line.sequence));
    let tail = if request.tail == 0 { DEFAULT_TAIL } else { request.tail } as usize;
    let from = past.len().saturating_sub(tail);
    let past = tokio_stream::iter(past.split_off(from).into_iter().map(Ok));
    let live: SelectAll<Lines> = select_all(live);
    Ok(Box::pin(tokio_stream::StreamExt::chain(past, live)))
}

async fn collect(past: &mut Vec<LogLine>, mut lines: tonic::Streaming<LogLine>) {
    while let Ok(Some(line)) = lines.message().await {
        past.push(line);
    }
}

fn newer_than(
    lines: tonic::Streaming<LogLine>,
    last: Option<u64>,
) -> impl Stream<Item = Result<LogLine, Status>> + Send {
    let newer = move |line: &Result<LogLine, Status>| match (line, last) {
        (Ok(line), Some(last)) => line.sequence > last,
        _ => true,
    };
    tokio_stream::StreamExt::filter(lines, newer)
}
