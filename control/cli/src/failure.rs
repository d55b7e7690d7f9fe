//! Why a call or a command failed, and the exit code that says it.

use tonic::Code;
use warren_proto::error::{Fault, WireError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments contradict each other or a file named by them cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Warren answered with an error.
    #[error("{}", .0.message)]
    Wire(Box<WireError>),
    /// Something on this machine.
    #[error("{message}")]
    Local {
        /// What was tried.
        message: String,
        /// Why it failed.
        source: Option<std::io::Error>,
    },
    /// This machine is not prepared for this user; the message names the command that does it.
    #[error("{0}")]
    Unprepared(String),
    /// The demo got a wrong answer.
    #[error("{0}")]
    Wrong(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// What a command gives.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of this machine without a cause of its own.
    pub fn local(message: impl Into<String>) -> Self {
        Self::Local { message: message.into(), source: None }
    }

    /// A failure of this machine.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::Local { message: message.into(), source: Some(source) }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Local { .. } => 5,
            Self::Wrong(_) => 6,
            Self::Unprepared(_) => 7,
            Self::Interrupted => 130,
            Self::Wire(error) => match (error.fault, error.code) {
                (Fault::Function, _) => 1,
                (Fault::Throttle, _) => 3,
                (_, Code::NotFound | Code::AlreadyExists | Code::Aborted) => 4,
                (Fault::Caller, _) => 2,
                (Fault::System, _) => 5,
            },
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Wire(Box::new(WireError::from_status(&status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for (code, fault, exit) in [
            (Code::Internal, Fault::Function, 1),
            (Code::InvalidArgument, Fault::Caller, 2),
            (Code::ResourceExhausted, Fault::Throttle, 3),
            (Code::NotFound, Fault::Caller, 4),
            (Code::Aborted, Fault::Caller, 4),
            (Code::AlreadyExists, Fault::Caller, 4),
            (Code::Unavailable, Fault::System, 5),
        ] {
            let failure = Failure::Wire(Box::new(WireError::new(code, "R", fault, "m")));
            assert_eq!(failure.code(), exit, "{code:?} {fault:?}");
        }
    }
}
