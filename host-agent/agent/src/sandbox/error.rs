//! Why a sandbox was not created or an invocation gave no answer, and whose fault that is.

use super::{grants::StaleGrant, kept::FenceError, machine::Refused};
use crate::{
    jailer::JailerError,
    pager::PagerError,
    resources::HostFull,
    version::{PrepareError, from_jailer, is_full},
    vmm::LoadFailure,
};
use std::{io, time::Duration};
use tonic::Code;
use warren_proto::{
    error::{Fault, Said, WireError},
    reason,
};
use warren_vmm_protocol::{FunctionError, LoadError};

/// Why a sandbox was not created. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Its id is no sandbox name.
    #[error("sandbox id {0:?} is not 1 to 40 characters of a-z, 0-9 and -")]
    Id(String),
    /// Its id is in use.
    #[error("there is a sandbox {0} already")]
    Exists(String),
    /// Its code or files.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// An older leader's command, or a newer one's that could not be kept.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// No memory left.
    #[error(transparent)]
    Full(#[from] HostFull),
    /// The jail was not built.
    #[error(transparent)]
    Jailer(#[from] JailerError),
    /// Its memory is not paged: what is started so starts another way.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// The function did not come up in its VM.
    #[error("sandbox did not come up: {failure}; {last_words}")]
    Load {
        /// How.
        #[source]
        failure: LoadFailure,
        /// How the VMM ended, and what it logged last.
        last_words: String,
    },
    /// A socket or pipe of this host.
    #[error("cannot set up the sandbox's socket: {0}")]
    Io(#[from] io::Error),
    /// Destroyed while it was being created.
    #[error("the sandbox was destroyed while it was being created: {0}")]
    Destroyed(String),
    /// The agent stops.
    #[error("this host takes no new sandboxes: it stops")]
    Stopping,
}

/// Why an invocation gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// No such sandbox here.
    #[error("there is no sandbox {0:?} on this host (any more)")]
    Gone(String),
    /// It is not idle.
    #[error("the sandbox is {}", .0.0.on_wire().as_str_name())]
    Busy(#[from] Refused),
    /// Its grant is of an epoch that is over.
    #[error(transparent)]
    StaleGrant(#[from] StaleGrant),
    /// Its grant's newer epoch could not be kept.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The request's words.
    #[error("{0}")]
    Request(&'static str),
    /// Too large.
    #[error("the payload is {0} bytes, at most {max} are allowed", max = warren_proto::MAX_PAYLOAD_BYTES)]
    PayloadTooLarge(usize),
    /// The client's deadline had passed before the function could start.
    #[error("the client's deadline passed before the function started")]
    TooLate,
    /// The function's code failed.
    #[error("{}", function_message(*.error, *.exit_code, .detail))]
    Function {
        /// How.
        error: FunctionError,
        /// With which code, for an exit.
        exit_code: u32,
        /// Its words.
        detail: String,
        /// Its document, if it has one.
        said: Option<Said>,
    },
    /// It ran past its timeout.
    #[error("the function did not answer within {0} ms and was stopped; raise its timeout or make it faster")]
    TimedOut(u32),
    /// The response is no JSON although the function promises that.
    #[error(
        "the response is not UTF-8 JSON ({0}), which this function promises; fix it or clear json_response"
    )]
    NotJson(String),
    /// The sandbox died before it had the event.
    #[error("the sandbox died before the function started: {0}")]
    LostBeforeStart(String),
    /// The sandbox died, and the function with it.
    #[error("the sandbox died while the function ran: {0}")]
    Lost(String),
    /// The guest broke its contract: no function should be able to do that.
    #[error("the sandbox was stopped because its guest faulted: {0}")]
    GuestFault(String),
    /// The sandbox was shut down under it.
    #[error("the sandbox was shut down while the function ran")]
    Stopped,
}

pub(crate) fn function_message(error: FunctionError, exit_code: u32, detail: &str) -> String {
    let what = match error {
        FunctionError::Trap => "the function trapped".to_owned(),
        FunctionError::OutOfMemory => {
            "the function ran out of memory; raise its memory or use less".to_owned()
        }
        FunctionError::StackOverflow => "the function recursed until its stack was full".to_owned(),
        FunctionError::Exit => format!("the function exited with code {exit_code}"),
        FunctionError::ResponseTooLarge => {
            format!("the response is larger than {} bytes", warren_proto::MAX_PAYLOAD_BYTES)
        }
        FunctionError::Handler => "the function answered with an error".to_owned(),
        FunctionError::MissingImport => "the module imports what is not offered".to_owned(),
        FunctionError::MissingExport => "the module lacks an export its world demands".to_owned(),
        FunctionError::Init => "the function's initialisation failed".to_owned(),
    };
    if detail.is_empty() { what } else { format!("{what}: {detail}") }
}

/// Code and reason of a function's own failure. UNKNOWN is gRPC's code for an error an application raised.
const fn function_reason(error: FunctionError) -> (Code, &'static str) {
    match error {
        FunctionError::Trap => (Code::Unknown, reason::FUNCTION_TRAPPED),
        FunctionError::OutOfMemory => (Code::Unknown, reason::FUNCTION_OUT_OF_MEMORY),
        FunctionError::StackOverflow => (Code::Unknown, reason::FUNCTION_STACK_OVERFLOW),
        FunctionError::Exit => (Code::Unknown, reason::FUNCTION_EXITED),
        FunctionError::ResponseTooLarge => (Code::OutOfRange, reason::RESPONSE_TOO_LARGE),
        FunctionError::Handler => (Code::Unknown, reason::FUNCTION_FAILED),
        FunctionError::MissingImport => (Code::InvalidArgument, reason::MISSING_IMPORT),
        FunctionError::MissingExport => (Code::InvalidArgument, reason::MISSING_EXPORT),
        FunctionError::Init => (Code::Unknown, reason::FUNCTION_INIT_FAILED),
    }
}

fn from_load(reason: &LoadError, message: String) -> WireError {
    match reason {
        LoadError::Function { error, detail, .. } => {
            let (code, reason) = function_reason(*error);
            WireError::new(code, reason, Fault::Function, function_message(*error, 0, detail))
        }
        LoadError::TimedOut => {
            WireError::new(Code::DeadlineExceeded, reason::FUNCTION_INIT_TIMED_OUT, Fault::Function, message)
        }
        LoadError::Refused(_) => WireError::new(Code::Internal, "LOAD_REFUSED", Fault::System, message),
        LoadError::Guest(_) => {
            WireError::new(Code::Internal, "GUEST_FAULT", Fault::System, message).retryable(None)
        }
        LoadError::Host(_) | LoadError::Pager(_) => {
            WireError::new(Code::Unavailable, "HOST_FAULT", Fault::System, message).retryable(None)
        }
    }
}

/// Retryable: whoever speaks for the newer epoch takes the call.
impl From<FenceError> for WireError {
    fn from(error: FenceError) -> Self {
        let message = error.to_string();
        let (code, reason) = match &error {
            FenceError::Stale(_) => (Code::FailedPrecondition, reason::STALE_EPOCH),
            FenceError::NotKept(_) => (Code::Unavailable, "HOST_FAULT"),
        };
        Self::new(code, reason, Fault::System, message).retryable(None)
    }
}

impl From<CreateError> for WireError {
    fn from(error: CreateError) -> Self {
        use CreateError as E;
        let message = error.to_string();
        let soon = Some(Duration::from_millis(200));
        match error {
            E::Id(_) => Self::new(Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller, message),
            E::Exists(_) => Self::new(Code::AlreadyExists, "SANDBOX_EXISTS", Fault::System, message),
            E::Prepare(prepare) => prepare.into(),
            E::Fence(fence) => fence.into(),
            E::Full(_) => {
                Self::new(Code::ResourceExhausted, reason::HOST_FULL, Fault::System, message).retryable(soon)
            }
            E::Jailer(jailer) => from_jailer(&jailer),
            E::Load { failure: LoadFailure::Said { ref reason, .. }, .. } => {
                from_load(reason, format!("{message} ({reason:?})"))
            }
            E::Load { .. } | E::Pager(_) => {
                Self::new(Code::Unavailable, "SANDBOX_FAILED", Fault::System, message).retryable(soon)
            }
            E::Io(io) if is_full(&io) => {
                Self::new(Code::ResourceExhausted, reason::DISK_FULL, Fault::System, message)
                    .retryable(Some(Duration::from_secs(5)))
            }
            E::Io(_) => Self::new(Code::Internal, "HOST_FAULT", Fault::System, message).retryable(soon),
            E::Destroyed(_) => {
                Self::new(Code::Aborted, "SANDBOX_DESTROYED", Fault::System, message).retryable(None)
            }
            E::Stopping => {
                Self::new(Code::Unavailable, reason::HOST_STOPPING, Fault::System, message).retryable(soon)
            }
        }
    }
}

impl From<InvokeError> for WireError {
    fn from(error: InvokeError) -> Self {
        use InvokeError as E;
        let message = error.to_string();
        let system = |code, reason, message| Self::new(code, reason, Fault::System, message).retryable(None);
        match error {
            E::Gone(_) => system(Code::NotFound, reason::SANDBOX_GONE, message),
            E::Busy(_) => system(Code::FailedPrecondition, reason::SANDBOX_BUSY, message),
            E::StaleGrant(_) => system(Code::FailedPrecondition, reason::STALE_EPOCH, message),
            E::Fence(fence) => fence.into(),
            E::Request(_) => Self::new(Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller, message),
            E::PayloadTooLarge(_) => {
                Self::new(Code::InvalidArgument, reason::PAYLOAD_TOO_LARGE, Fault::Caller, message)
            }
            E::TooLate => Self::new(Code::DeadlineExceeded, "CLIENT_DEADLINE_PASSED", Fault::Caller, message),
            E::Function { error, said, .. } => {
                let (code, reason) = function_reason(error);
                let plain = Self::new(code, reason, Fault::Function, message);
                match said {
                    Some(said) => plain.said(&said.error_type, &said.error_message),
                    None => plain,
                }
            }
            E::TimedOut(ms) => {
                let text = format!("Task timed out after {}.{:02} seconds", ms / 1000, ms % 1000 / 10);
                Self::new(Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT, Fault::Function, message)
                    .said("Sandbox.Timedout", &text)
            }
            E::NotJson(_) => {
                Self::new(Code::Unknown, reason::RESPONSE_NOT_UTF8_JSON, Fault::Function, message)
            }
            E::LostBeforeStart(_) => system(Code::Unavailable, reason::SANDBOX_LOST_BEFORE_START, message),
            E::Lost(_) | E::Stopped | E::GuestFault(_) => {
                system(Code::Unavailable, reason::SANDBOX_LOST, message)
            }
        }
    }
}
