//! An event, its answer, and what can go wrong.

use super::{Micros, Status};
use bytes::Bytes;
use warren_vmm_protocol::guest::InitFailure;

/// An event in the sandbox.
#[derive(Debug)]
pub(crate) struct Event {
    /// What the runtime knows it by.
    pub(crate) id: String,
    pub(super) began: Micros,
    pub(super) deadline: Micros,
    /// What the runtime answered.
    pub(super) answer: Option<Answer>,
    /// The record of it was made.
    pub(super) runtime_done: bool,
}

impl Event {
    pub(super) fn new(id: String, began: Micros, deadline: Micros) -> Self {
        Self { id, began, deadline, answer: None, runtime_done: false }
    }
}

/// How an event ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The runtime's response.
    Response(Bytes),
    /// The runtime's own report of an error.
    Error {
        /// Its type, as a header said it.
        error_type: String,
        /// Its document.
        body: Bytes,
    },
    /// A response that is larger than may be.
    TooLarge {
        /// Bytes that may be.
        most: usize,
    },
    /// A program failed.
    Failed(Fault),
    /// The deadline passed.
    TimedOut,
    /// The sandbox was ending already.
    Stopped,
}

impl Answer {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Response(body) | Self::Error { body, .. } => body.len(),
            _ => 0,
        }
    }

    pub(super) fn status(&self) -> Status {
        match self {
            Self::Response(_) => Status::Success,
            Self::Error { error_type, .. } => Status::Error(error_type.clone()),
            Self::TooLarge { .. } => Status::Error("Function.ResponseSizeTooLarge".to_owned()),
            Self::Failed(fault) => Status::Failure(fault.error_type.clone()),
            Self::TimedOut => Status::Timeout,
            Self::Stopped => Status::Failure("Sandbox.Stopped".to_owned()),
        }
    }
}

/// A failure, named as Lambda names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whose.
    pub(crate) failure: InitFailure,
    /// `Runtime.ExitError` and the like.
    pub(crate) error_type: String,
    /// For people.
    pub(crate) message: String,
    /// The exit status, if a program ended with one.
    pub(crate) exit_code: Option<i32>,
    /// It was killed because memory ran out.
    pub(crate) out_of_memory: bool,
    /// The document the runtime posted.
    pub(crate) body: Bytes,
}

impl Fault {
    /// A failure without more.
    pub(crate) fn new(failure: InitFailure, error_type: &str, message: String) -> Self {
        let error_type = error_type.to_owned();
        Self { failure, error_type, message, exit_code: None, out_of_memory: false, body: Bytes::new() }
    }

    pub(super) fn init_timed_out(message: String) -> Self {
        Self::new(InitFailure::TimedOut, "Sandbox.Timedout", message)
    }

    pub(super) fn timed_out(&self) -> bool {
        self.failure == InitFailure::TimedOut
    }
}
