//! Function logs: what a function wrote, line by line, with START, END and REPORT lines around each invocation.
//!
//! ```text
//! VMM bytes ─▶ lines (split, bounded, flood limit) ─▶ invocation (adds ids, keeps the tail for the caller)
//!                                                      └─▶ hub ─▶ writer thread ─▶ DATA/logs/<function>.jsonl[.1]
//!                                                            └──▶ followers (a slow one misses lines, and sees it)
//! ```
//! Nothing here can hold an invocation up: the hub's queue is bounded and what does not fit is counted and said.

mod files;
mod hub;
mod invocation;
mod lines;
mod queue;
mod report;

pub use hub::{Line, LogHub};
pub(crate) use hub::{now_ms, now_us};
pub use invocation::{InvocationLog, LineContext};
pub use lines::{LineSplitter, MAX_LINE};
pub use report::{ReportLine, billed_ms};
