//! A guest that breaks every rule of its machine (`warren-hostile-guest`), one microVM a case.
//!
//! ```text
//!  case: steps as data ──▶ kernel: an interpreter of steps ──▶ a microVM of its own ──▶ what was seen ──▶ verdict
//!                                                              beside it a neighbour      (exit, log,
//!                                                              that must go on answering   disks, memory)
//! ```
//! - A case is a list of steps ([`script::Script`]): registers written, rings laid, doorbells rung, in or out of specification. After
//!   what is hostile, [`driver`]s drive every device of the machine by the book: it must still answer.
//! - The guest ([`guest`]) is a kernel of its own without an operating system. It judges what it reads itself, and ends by powering
//!   off (all was as the case says) or by a reset (it was not).
//! - A verdict ([`verdict`]) is PASS, KILLED (the VMM ended by design, by name), WEDGED or BROKE. The last two are defects.
//! - Wasm guests have no steps: their cases are machine code and replies, and stand with the suite (`tests/hostile-guest`).

pub mod cases;
pub mod driver;
pub mod guest;
pub mod script;
pub mod verdict;
