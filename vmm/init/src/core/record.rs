//! What subscribers to platform records are told.

use super::{Micros, Subscription};

/// A platform record's content, without what only the shell knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Init begins: on its own, or inside an invocation.
    InitStart { inside: bool },
    /// The runtime's part of it is done.
    InitRuntimeDone { inside: bool, error_type: Option<String> },
    /// All of it is done.
    InitReport { inside: bool, took: Micros },
    /// An extension registered.
    Extension { name: String, subscription: Subscription },
    /// An event begins.
    Start,
    /// The runtime is done with it.
    RuntimeDone { status: Status, took: Micros, produced: usize },
    /// Everybody is.
    Report { status: Status, took: Micros, init: Option<Micros> },
}

/// How an event went, in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// A response came.
    Success,
    /// The function said that it failed.
    Error(String),
    /// A program ended.
    Failure(String),
    /// It ran past its time.
    Timeout,
}
