//! Sandboxes: one jailed VM each, one owner task each, one invocation at a time.
//!
//! - [`machine`] is the drawing of a sandbox's life, pure.
//! - [`live`] is one sandbox: the machine and its invoke connection behind one short lock.
//! - [`door`] is what any jailed VMM starts with.
//! - [`birth`] creates it, [`owner`] watches and reclaims it, [`adopt`] takes over those of an earlier agent.
//! - [`invoke`] runs one invocation. It is polled by the caller's own task (no hop), and goes on as a task of its own if
//!   the caller leaves: see [`detach`].
//! - [`mark`] says which event a Linux sandbox runs, for the agent that adopts it.
//! - [`ends`] names how each ended and counts.
//! - [`table`] finds sandboxes by id and tells control what changed.

pub mod adopt;
pub mod birth;
pub mod detach;
pub mod door;
pub mod ends;
pub mod epoch;
pub mod error;
pub mod grants;
pub mod invoke;
pub mod kept;
pub mod live;
pub mod machine;
pub mod mark;
pub mod owner;
pub mod record;
pub mod table;

pub use error::{CreateError, InvokeError};
pub use live::{About, Sandbox};
pub use table::SandboxTable;
