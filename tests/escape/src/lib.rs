//! A hostile program in the VMM's place (`warren-escape`): it has taken over the process, and tries to leave.
//!
//! ```text
//!  suite ── spawn ──▶ jailer ── the real jail ──▶ warren-escape
//!    ╰──── "stage attempt" over its control socket ──▶ seals itself as the VMM does, narrows itself as one of its threads, tries
//!    ◀──── an error's number, or nothing: it was killed ──╯
//! ```
//! One process an attempt. [`attempts::ALL`] is the table of what is tried, [`stage::Stage`] with which of the VMM's filters; what is
//! refused by the jail alone is also tried with none. An attempt that works is an escape.

pub mod attempts;
pub mod stage;
