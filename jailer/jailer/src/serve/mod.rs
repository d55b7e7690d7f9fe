//! `warren-jailer serve`: one thread, one loop.
//!
//! ```text
//!   open everything -> own cgroup parents -> bind -> confine itself -> adopt -> listen, say `ready`
//!        .------------------------------------------------------------------------'
//!        v
//!   epoll: a connection   -> accept if the peer is the agent's user
//!          a packet       -> answer, or close a connection that breaks the protocol
//!          a pidfd        -> bury the dead, answer who waited for it
//!          SIGTERM, SIGINT-> end every jail, remove everything, exit 0
//!          SIGHUP         -> exit 0 and leave the jails to the next jailer
//! ```

mod connection;
mod server;
pub(crate) mod start;
mod trust;

pub(crate) use start::{Options, serve};
