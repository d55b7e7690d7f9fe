//! The worker's agent: gRPC worker service and sandbox state machine.
fn main() {}
