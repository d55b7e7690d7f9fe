//! The monitor: one microVM, KVM, its vCPU and its control socket.
fn main() {}
