//! What the world around a function provides, and how a call can end an instance.

use crate::Errno;

/// The response outgrew its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseTooLarge;

/// The outside, as a function sees it.
pub trait Host {
    /// Nanoseconds since the Unix epoch; never goes backwards.
    fn wall_ns(&mut self) -> u64;
    /// Monotonic nanoseconds.
    fn monotonic_ns(&mut self) -> u64;
    /// Called in the loop that waits for a clock.
    fn pause(&mut self);
    /// Fills `out` with random bytes.
    fn fill_random(&mut self, out: &mut [u8]);
    /// The whole event.
    fn stdin(&self) -> &[u8];
    /// Appends to the response.
    fn write_response(&mut self, bytes: &[u8]) -> Result<(), ResponseTooLarge>;
    /// Appends to the log.
    fn write_log(&mut self, bytes: &[u8]);
}

/// Why an instance must stop now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// `proc_exit` with this code.
    Exit(u32),
    /// More on stdout than a response may hold.
    ResponseTooLarge,
}

/// How a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Answered to the function.
    Errno(Errno),
    /// Ends the instance.
    Halt(Halt),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}
