//! The only privileged process: plans jails, applies them, cleans up.
fn main() {}
