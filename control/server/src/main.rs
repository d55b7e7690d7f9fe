//! Assembles the control roles in one process.
fn main() {}
