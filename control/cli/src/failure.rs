//! Why a command failed, what is printed, and the exit code.

use crate::screen;
use std::process::ExitCode;
use tonic::Code;
use warren_proto::error::{Fault, WireError};

/// The exit codes, as `warren --help` prints them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the function failed: trap, timeout, exit code, bad answer
  2    the command or the request is wrong
  3    throttled: a limit was reached, try again later
  4    not found, exists already, or changed meanwhile
  5    Warren or this machine failed, or cannot be reached
  6    an answer was not what it had to be (demo)
  130  interrupted";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
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
    /// The demo got a wrong answer.
    #[error("{0}")]
    Wrong(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// What a command gives.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of this machine without a cause of its own.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::Local { message: message.into(), source: None }
    }

    /// A failure of this machine.
    pub(crate) fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::Local { message: message.into(), source: Some(source) }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Local { .. } => 5,
            Self::Wrong(_) => 6,
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

    /// Prints it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Interrupted => {}
            Self::Wire(error) => {
                eprintln!("{} {}", screen::red("error:"), error.message);
                eprintln!("  reason  {} ({:?})", error.reason, error.code);
                eprintln!("  fault   {}", error.fault.name());
                eprintln!("  retry   {}", retry(error));
            }
            Self::Local { message, source: Some(source) } => {
                eprintln!("{} {message}: {source}", screen::red("error:"));
            }
            other => eprintln!("{} {other}", screen::red("error:")),
        }
        ExitCode::from(self.code())
    }
}

fn retry(error: &WireError) -> String {
    match (error.retryable, error.retry_after) {
        (false, _) => "no use: the same call would fail again".into(),
        (true, Some(after)) => format!("yes, after {} ms", after.as_millis()),
        (true, None) => "yes, the same call may succeed".into(),
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
