//! The 46 functions, by theme; each takes its parameters in the interface's order.

mod descriptor;
pub(crate) mod path;
mod poll;
mod process;
mod stream;
