//! `warren-pager` of this host: it brings the memory of VMs that are restored from chunks, page by page.
//!
//! ```text
//!            a start that is paged        ┌──────────────────────── one thread (`client`) ─────────────────────┐
//!  birth ───────── serve ───────────────▶ │ absent ──connect──▶ up ──exited, silent, broken──▶ absent          │
//!  follow ──────── report ──────────────▶ │    │  nobody there: jailed (`process`)  ▲             │ not before │
//!                                         │    ╰────────────────────────────────────╯             ╰ a pause ───│
//!                                         └─────────────────────────────────────────────────────────────────────┘
//! ```
//! - The jailer starts it, and it outlives the agent, as VMMs do: its socket is in the run directory, and the next agent finds it
//!   there and in the jailer's list. It ends by itself when no agent is connected and no VM is served.
//! - A VM is served an image at a time: its memory, and the disk of a Linux guest, each with a ticket of its own.
//! - A pager that ends takes its VMs with it, by name (`pager-lost`): their memory cannot be had any more. Another is started
//!   at once, for those that come.
//! - One that does not answer is as good as dead, and made so: VMs that wait for it would wait for ever.
//! - A snapshot whose chunks cannot be had is not paged again for a while: the same start would end the same. Once nobody is served,
//!   another pager takes its place, with the origin's folders opened anew: they may be others by then.
//! - It has no network: what it cannot reach it asks for by a second socket, and the agent looks in all its tiers (`upstream`).
//! - It only reads the origin. What it read that garbage collection had taken out of service it names, and the agent puts that back.
//!
//! Modules: `process` starting, finding and ending one; `log` what it says; `client` the thread that talks to it; `figures` what control is told of it; `manner` how a start is served and what
//! is learned of it; `follow` what is done about a VM that it serves; `upstream` what it asks for.

mod client;
mod figures;
mod follow;
mod log;
mod manner;
mod process;
mod upstream;

pub use client::PagerClient;
pub use follow::follow;
pub use manner::{Manners, Touched};
pub use process::Program;
pub use upstream::answer;

use crate::jailer::JailerError;
use std::{io, os::fd::OwnedFd, sync::Arc};
use warren_chunks::Name;

/// A VM that is to be served.
#[derive(Debug)]
pub struct Served {
    /// The VMM's end of the socket by which it and the pager know each other.
    pub socket: OwnedFd,
    /// What it is called.
    pub ticket: Ticket,
}

/// What a VM is called at a certain pager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which pager of this agent's: the first, the second, ...
    pub(super) pager: u64,
    /// Which VM of that one.
    pub(super) id: u64,
    /// The image it gets.
    pub(super) manifest: Name,
}

/// Why nothing is paged. Always the system's fault, and no reason not to start: there are other ways.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PagerError {
    /// This host has none.
    #[error("this host has no pager")]
    None,
    /// It cannot be started or reached.
    #[error("the pager cannot be reached: {0}")]
    Unreachable(Arc<io::Error>),
    /// The jailer does not start or end it.
    #[error(transparent)]
    Jailer(#[from] JailerError),
    /// It refuses.
    #[error("the pager refuses: {0}")]
    Refused(String),
    /// It broke its protocol.
    #[error("the pager answered something else than what was asked")]
    Protocol,
    /// It is another one meanwhile.
    #[error("the pager that served this VM is gone")]
    Another,
    /// More requests wait than are allowed.
    #[error("too many requests wait for the pager")]
    Overloaded,
    /// This image's chunks could not be had a short while ago.
    #[error("chunks of this image could not be had: {0}")]
    Spoiled(String),
}

impl From<io::Error> for PagerError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(Arc::new(error))
    }
}
