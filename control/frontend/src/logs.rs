//! Log lines of all workers, merged.

use crate::{Frontend, validate};
use futures::stream::{SelectAll, select_all};
use prost::Message;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Status;
use warren_placement::{HostState, Worker};
use warren_proto::{
    error::WireError,
    v1::{LogLine, LogsRequest},
};
use warren_validation::operator;

type Lines = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

/// How long a worker may take to read the past.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Most of it that is taken of one worker.
const PAST_BYTES: usize = 4 << 20;

/// The last lines of a function, and with `follow` those to come, from every worker that is there.
///
/// The past is sorted by time; what comes later is passed on as it comes, each line with its host and number.
pub(crate) async fn merged(frontend: &Frontend, request: &LogsRequest) -> Result<Lines, WireError> {
    let tail = operator::logs(request)?;
    if frontend.catalog.get(&request.function).is_none() {
        return Err(validate::no_such_function(&request.function));
    }
    let there = |worker: &Arc<Worker>| worker.status().state != HostState::Lost;
    let mut past = Vec::new();
    let mut live: Vec<Lines> = Vec::new();
    for worker in frontend.fleet.all().into_iter().filter(there) {
        let asked = LogsRequest { follow: false, ..request.clone() };
        match timeout(ANSWER_TIME, last_lines(&worker, asked, tail)).await {
            Ok(Ok(mut lines)) => past.append(&mut lines),
            Ok(Err(status)) => tracing::warn!(host = %worker.id(), %status, "no logs from this worker"),
            Err(_elapsed) => {
                tracing::warn!(host = %worker.id(), "this worker takes too long to read its logs");
            }
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
    let from = past.len().saturating_sub(tail);
    let past = tokio_stream::iter(past.split_off(from).into_iter().map(Ok));
    let live: SelectAll<Lines> = select_all(live);
    Ok(Box::pin(tokio_stream::StreamExt::chain(past, live)))
}

/// As many as were asked for, and as much as an agent reads back of a function: a worker that goes on is heard no longer.
async fn last_lines(worker: &Worker, asked: LogsRequest, tail: usize) -> Result<Vec<LogLine>, Status> {
    let mut lines = worker.client().worker_logs(asked).await?.into_inner();
    let (mut past, mut bytes) = (Vec::new(), 0_usize);
    while past.len() < tail
        && bytes < PAST_BYTES
        && let Ok(Some(line)) = lines.message().await
    {
        bytes = bytes.saturating_add(line.encoded_len());
        past.push(line);
    }
    Ok(past)
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
