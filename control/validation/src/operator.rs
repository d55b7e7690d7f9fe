//! What people look at: snapshots by their key, logs by their function.

use crate::{bad_request, is_digest};
use warren_proto::{error::WireError, v1::LogsRequest};

/// Lines of a log when nobody says how many.
const DEFAULT_TAIL: usize = 100;
/// Most lines of the past, which are put in order before the first is given.
const MAX_TAIL: usize = 10_000;

/// Keys of snapshots.
pub fn snapshot_keys(keys: &[&str]) -> Result<(), WireError> {
    if keys.iter().all(|key| is_digest(key)) {
        return Ok(());
    }
    Err(bad_request("a snapshot's key is 64 hex digits; `warren snapshot ls --json` has them"))
}

/// Whose logs, and how many lines of the past.
pub fn logs(request: &LogsRequest) -> Result<usize, WireError> {
    if request.function.is_empty() {
        return Err(bad_request("say which function's logs"));
    }
    Ok(match request.tail {
        0 => DEFAULT_TAIL,
        lines => usize::try_from(lines).unwrap_or(usize::MAX).min(MAX_TAIL),
    })
}
