//! A worker's errors, as clients are told.

use crate::NoPlace;
use std::time::Duration;
use tonic::{Code, Status};
use warren_proto::{
    error::{Fault, WireError},
    reason,
};

/// No host can run the function, and trying again changes nothing.
#[must_use]
pub fn cannot_run(none: &NoPlace) -> WireError {
    let reason = match none {
        NoPlace::NoLinux(_) => reason::NO_LINUX_HOST,
        NoPlace::NoNetwork(_) => reason::NO_NETWORK,
        NoPlace::NoRuntime { .. } => reason::NO_SUCH_RUNTIME,
        NoPlace::NoWorker => reason::NO_WORKER_READY,
        NoPlace::NoRoom { .. } => reason::NO_CAPACITY,
    };
    WireError::new(Code::FailedPrecondition, reason, Fault::System, none.to_string())
}

/// A worker's typed error goes through as it is; one without details is a connection that broke, which is told with
/// `broke`.
#[must_use]
pub fn worker_error(status: &Status, broke: &str) -> WireError {
    let error = WireError::from_status(status);
    if error.reason != "UNSPECIFIED" {
        return error;
    }
    tracing::warn!(%status, "a call to a worker broke");
    WireError::new(Code::Unavailable, reason::WORKER_LOST, Fault::System, broke)
        .retryable(Some(Duration::from_millis(500)))
}
