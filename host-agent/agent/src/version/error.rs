//! Why a version cannot be started on this host, and whose fault that is.

use super::{spec::BadVersion, task::TaskError};
use crate::{jailer::JailerError, linux::LinuxError, resources::HostFull};
use std::{io, sync::Arc, time::Duration};
use tonic::Code;
use warren_artefact::{CompileError, Digest, StoreError};
use warren_proto::{
    error::{Fault, WireError},
    reason,
};

/// Clonable, because everybody who waits for the same compilation gets the same answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PrepareError {
    /// The request's words.
    #[error(transparent)]
    Version(#[from] BadVersion),
    /// The bytes are not those the version names.
    #[error("the {what} has digest {found}, the version names {named}")]
    Digest {
        /// Code or files.
        what: &'static str,
        /// Of the bytes.
        found: Digest,
        /// In the version.
        named: Digest,
    },
    /// The function's files.
    #[error("the files of /var/task: {0}")]
    Task(#[from] TaskError),
    /// The compiler refused the module, or failed.
    #[error(transparent)]
    Compile(CompileError),
    /// It took too long.
    #[error("compiling the module took longer than {0:?}; make it smaller or split its largest functions")]
    CompileTimedOut(Duration),
    /// It took too much memory.
    #[error("compiling the module took more than {0} MiB; make it smaller or split its largest functions")]
    CompileOutOfMemory(u64),
    /// The compiler died otherwise.
    #[error("the compiler ended without an answer ({how}): {log}")]
    CompilerDied {
        /// Its exit status.
        how: String,
        /// Its last words.
        log: String,
    },
    /// The module's memories cannot fit.
    #[error(
        "the module needs {needed_mib} MiB of memory from the start, the function has {has_mib}; raise its memory"
    )]
    MemoryDemand {
        /// What its memories begin with.
        needed_mib: u64,
        /// The function's limit.
        has_mib: u32,
    },
    /// A policy where a function was expected, or the reverse.
    #[error("the module is of world {0}, which is not what was asked for")]
    WrongWorld(String),
    /// Control does not have it, or cannot be reached.
    #[error("cannot fetch blob {digest} from control: {message}")]
    Fetch {
        /// Which.
        digest: Digest,
        /// Why not.
        message: String,
    },
    /// The jailer.
    #[error(transparent)]
    Jailer(#[from] JailerError),
    /// The disk.
    #[error("cannot keep or read the artefact: {0}")]
    Store(#[source] Arc<StoreError>),
    /// Files of this host.
    #[error("cannot keep or read the function's files: {0}")]
    Io(#[source] Arc<io::Error>),
    /// More compilations wait than this host works off in time.
    #[error("too many compilations wait on this host")]
    Overloaded,
    /// No memory for a compilation, and no idle sandbox to take it from.
    #[error("the host has no memory for a compilation: {0}")]
    NoRoom(#[from] HostFull),
    /// A Linux function's runtime or kernel.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// A bug.
    #[error("preparing the version stopped unexpectedly")]
    Internal,
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<io::Error> for PrepareError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// A full disk is told apart: it is the operator's to solve.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<PrepareError> for WireError {
    fn from(error: PrepareError) -> Self {
        use PrepareError as E;
        let message = error.to_string();
        let system = |code, reason| Self::new(code, reason, Fault::System, message.clone());
        let function =
            |reason: &str| Self::new(Code::InvalidArgument, reason, Fault::Function, message.clone());
        match &error {
            E::Version(_) => Self::new(Code::InvalidArgument, "BAD_VERSION", Fault::Caller, message),
            E::Digest { .. } => Self::new(Code::InvalidArgument, "DIGEST_MISMATCH", Fault::Caller, message),
            E::Task(_) => {
                Self::new(Code::InvalidArgument, reason::TASK_ARCHIVE_INVALID, Fault::Caller, message)
            }
            E::Compile(refused) if refused.is_modules_fault() => function(&upper_snake(refused.name())),
            E::Compile(_) | E::CompilerDied { .. } => system(Code::Internal, "COMPILER_FAILED"),
            E::CompileTimedOut(_) => function(reason::COMPILE_TIMED_OUT),
            E::CompileOutOfMemory(_) => function(reason::COMPILE_OUT_OF_MEMORY),
            E::MemoryDemand { .. } => function(reason::MODULE_NEEDS_MORE_MEMORY),
            E::WrongWorld(_) => function(reason::WRONG_KIND),
            E::Fetch { .. } => system(Code::Unavailable, "BLOB_UNAVAILABLE").retryable(None),
            E::Jailer(jailer) => from_jailer(jailer),
            E::Store(store) if is_full(&store.source) => {
                system(Code::ResourceExhausted, reason::DISK_FULL).retryable(Some(Duration::from_secs(5)))
            }
            E::Io(io) if is_full(io) => {
                system(Code::ResourceExhausted, reason::DISK_FULL).retryable(Some(Duration::from_secs(5)))
            }
            E::Store(_) | E::Io(_) => system(Code::Internal, "HOST_STORAGE_FAILED").retryable(None),
            E::NoRoom(_) => {
                system(Code::ResourceExhausted, reason::HOST_FULL).retryable(Some(Duration::from_secs(1)))
            }
            E::Overloaded => {
                system(Code::Unavailable, "HOST_OVERLOADED").retryable(Some(Duration::from_secs(1)))
            }
            E::Linux(linux) => from_linux(linux, &message),
            E::Internal => system(Code::Internal, "INTERNAL").retryable(None),
        }
    }
}

fn from_linux(error: &LinuxError, message: &str) -> WireError {
    let system = |code, reason| WireError::new(code, reason, Fault::System, message);
    match error {
        LinuxError::Cannot(_) => system(Code::FailedPrecondition, reason::NO_LINUX_HOST),
        LinuxError::NoNetwork(_) => system(Code::FailedPrecondition, reason::NO_NETWORK),
        LinuxError::NoRuntime { .. } => system(Code::FailedPrecondition, reason::NO_SUCH_RUNTIME),
        LinuxError::NoKernel(_) => system(Code::FailedPrecondition, reason::NO_KERNEL),
        LinuxError::Io { source, .. } if is_full(source) => {
            system(Code::ResourceExhausted, reason::DISK_FULL).retryable(Some(Duration::from_secs(5)))
        }
        LinuxError::Damaged { .. } | LinuxError::Io { .. } => {
            system(Code::Internal, "HOST_STORAGE_FAILED").retryable(None)
        }
    }
}

/// The jailer's failures look the same whatever was asked of it.
pub(crate) fn from_jailer(error: &JailerError) -> WireError {
    let message = error.to_string();
    if error.retryable() {
        WireError::new(Code::Unavailable, reason::JAILER_UNAVAILABLE, Fault::System, message)
            .retryable(Some(Duration::from_millis(200)))
    } else {
        WireError::new(Code::Internal, "JAIL_FAILED", Fault::System, message)
    }
}

fn upper_snake(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether another try can help is what the jailer says; what it did not answer may be tried again.
    #[test]
    fn what_of_a_jailers_failures_may_be_tried_again() {
        let failed = |step: &str, retryable| JailerError::Failed {
            step: step.to_owned(),
            message: "its process was killed before the program was started".to_owned(),
            retryable,
        };
        for (error, code, reason, again) in [
            (failed("exec", true), Code::Unavailable, "JAILER_UNAVAILABLE", true),
            (failed("root", false), Code::Internal, "JAIL_FAILED", false),
            (JailerError::Overloaded, Code::Unavailable, "JAILER_UNAVAILABLE", true),
            (JailerError::Protocol("x"), Code::Internal, "JAIL_FAILED", false),
        ] {
            let wire = from_jailer(&error);
            assert_eq!((wire.code, wire.reason.as_str(), wire.retryable), (code, reason, again), "{error}");
        }
    }
}
