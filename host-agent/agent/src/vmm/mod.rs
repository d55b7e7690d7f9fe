//! Talking to one `warren-vmm` over its listening socket: a control and an invoke connection; to a Linux guest, a
//! stream through it.
//!
//! Nothing a VMM says is trusted: every length is checked before memory is taken for it.

mod channel;
mod control;
mod guest;
mod invoke;
mod log_tail;

pub use channel::ChannelError;
pub use control::{ControlChannel, LoadFailure, Loaded, SnapshotFailure};
pub use guest::{GuestFailure, GuestUp, Nobodys, bring_back, bring_up, guest_error, reconnect};
pub use invoke::{InvokeChannel, Progress};
pub use log_tail::LogTail;
