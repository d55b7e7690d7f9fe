//! Compiles function and policy modules, itself jailed.
fn main() {}
