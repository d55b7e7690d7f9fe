//! What an error must look like.

use anyhow::{Result, bail, ensure};
use tonic::{Code, Status};
use warren_proto::error::{Fault, WireError};

/// Code, reason and fault of an error.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// gRPC code.
    pub code: Code,
    /// Stable reason.
    pub reason: &'static str,
    /// Whose fault.
    pub fault: Fault,
    /// Whether the client is told to try again.
    pub retryable: bool,
}

impl Expected {
    /// The request's fault.
    #[must_use]
    pub const fn caller(code: Code, reason: &'static str) -> Self {
        Self { code, reason, fault: Fault::Caller, retryable: false }
    }

    /// The function's fault.
    #[must_use]
    pub const fn function(code: Code, reason: &'static str) -> Self {
        Self { code, reason, fault: Fault::Function, retryable: false }
    }

    /// A limit.
    #[must_use]
    pub const fn throttle(reason: &'static str) -> Self {
        Self { code: Code::ResourceExhausted, reason, fault: Fault::Throttle, retryable: true }
    }
}

/// Demands this very error, with a sentence for a person in it.
pub fn expect_error<T: std::fmt::Debug>(result: Result<T, Status>, expected: Expected) -> Result<WireError> {
    let status = match result {
        Ok(value) => bail!("expected {}, got {value:?}", expected.reason),
        Err(status) => status,
    };
    let error = WireError::from_status(&status);
    let seen = (error.code, error.reason.as_str(), error.fault, error.retryable);
    let wanted = (expected.code, expected.reason, expected.fault, expected.retryable);
    ensure!(seen == wanted, "expected {wanted:?}, got {seen:?}: {}", error.message);
    ensure!(!error.message.trim().is_empty(), "{} comes without a message", expected.reason);
    ensure!(
        expected.fault != Fault::Throttle || error.retry_after.is_some(),
        "{} comes without a retry hint",
        expected.reason
    );
    Ok(error)
}
