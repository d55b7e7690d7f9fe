//! Function logs: the last lines, then whatever comes.

use super::Answers;
use crate::{host::Host, logs::Line, version::is_name};
use futures::{StreamExt as _, future, stream};
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{LogLine, LogsRequest},
};

/// Lines when a request names no number.
const DEFAULT_TAIL: usize = 100;

/// A function's name becomes a file's: anything else reads nothing.
pub(super) fn check(request: &LogsRequest) -> Result<(), WireError> {
    if request.function.is_empty() || is_name(&request.function) {
        return Ok(());
    }
    let message = "logs are a function's, by its name of a-z, 0-9 and -, or everybody's";
    Err(WireError::new(Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller, message))
}

pub(super) async fn read(host: &Arc<Host>, request: LogsRequest) -> Answers<LogLine> {
    let wanted = match request.tail {
        0 => DEFAULT_TAIL,
        lines => usize::try_from(lines).unwrap_or(usize::MAX),
    };
    // Follow first, then read the past: no line falls between; numbers tell which were read already.
    let follower = request.follow.then(|| host.logs.follow());
    let past = host.logs.tail(&request.function, wanted).await;
    let seen = past.last().map_or(0, |line| line.sequence);
    let id = host.id.clone();
    let past = stream::iter(wire(&past, &id));
    let Some(follower) = follower else { return Box::pin(past) };
    let function = request.function;
    let coming = BroadcastStream::new(follower)
        // A follower that was too slow misses batches: the numbers show the gap.
        .filter_map(|batch| future::ready(batch.ok()))
        .flat_map(move |batch| {
            let fresh =
                |line: &&Line| line.sequence > seen && (function.is_empty() || *line.function == *function);
            let lines: Vec<Line> = batch.iter().filter(fresh).cloned().collect();
            stream::iter(wire(&lines, &id))
        });
    Box::pin(past.chain(coming))
}

fn wire(lines: &[Line], host_id: &str) -> Vec<Result<LogLine, tonic::Status>> {
    lines.iter().map(|line| Ok(line.on_wire(host_id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_function_or_of_all() {
        let asked = |function: &str| LogsRequest { function: function.into(), ..LogsRequest::default() };
        for good in ["", "f", "hello-2"] {
            assert_eq!(check(&asked(good)), Ok(()), "{good:?}");
        }
        let long = "f".repeat(1 << 20);
        for bad in ["../secret", "/etc/x", ".", "a/b", "A", "a\0", &long] {
            let error = check(&asked(bad)).unwrap_err();
            assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, reason::BAD_REQUEST));
            assert!(error.message.len() < 200, "{bad:.20?}");
        }
    }
}
