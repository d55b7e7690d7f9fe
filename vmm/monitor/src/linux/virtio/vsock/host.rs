//! The host's end of one stream: a socket that never blocks, and what it has not taken yet.

use super::Token;
use crate::ram::Ram;
use crate::sys::vectored::Direction;
use rustix::fd::AsFd;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use warren_devices::virtio::chain::slice;
use warren_devices::virtio::{Memory, Range};
use warren_vmm_protocol::frame;
use warren_vmm_protocol::linux::{VsockRefusal, VsockReply};

/// A socket of the host.
#[derive(Debug)]
pub struct Host {
    token: Token,
    stream: UnixStream,
    /// Bytes of the guest's that the socket did not take: never more than credit allows.
    backlog: VecDeque<u8>,
    /// `Connected` was said.
    pub opened: bool,
    /// Nobody reads what is written.
    hung_up: bool,
    /// What was shut down here: writing, reading.
    followed: (bool, bool),
}

/// Why bytes of the guest's were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeError {
    /// They are not memory: the driver's fault.
    Memory,
    /// The host's end is gone.
    Gone,
}

/// The host's end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Host {
    pub(super) fn new(token: Token, stream: UnixStream) -> Self {
        Self {
            token,
            stream,
            backlog: VecDeque::new(),
            opened: false,
            hung_up: false,
            followed: (false, false),
        }
    }

    /// For the event loop.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Bytes that the socket did not take.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.backlog.len()
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// One message before the stream's bytes. It fits: the socket's buffer holds nothing else yet.
    pub(super) fn say(&self, reply: VsockReply) -> bool {
        let bytes = frame::encode(&reply).unwrap_or_default();
        matches!((&self.stream).write(&bytes), Ok(count) if count == bytes.len())
    }

    pub(super) fn refuse(&self, why: VsockRefusal) {
        let _ = self.say(VsockReply::Refused { why });
    }

    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        self.backlog.clear();
    }

    /// Takes bytes of the guest's: how many went on at once. The rest is kept.
    pub(super) fn take(&mut self, ranges: &[Range], ram: &Ram) -> Result<u32, TakeError> {
        let len: u32 = ranges.iter().map(|range| range.len).sum();
        if self.hung_up {
            return Ok(len);
        }
        let mut taken = 0;
        if self.backlog.is_empty() {
            taken = loop {
                match ram.transfer_stream(self.stream.as_fd(), ranges, Direction::Write) {
                    Ok(bytes) => break u32::try_from(bytes).unwrap_or(len),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(TakeError::Gone),
                }
            };
        }
        for range in slice(ranges, taken, len) {
            let mut bytes = vec![0; range.len as usize];
            Memory::read(ram, range.gpa, &mut bytes).map_err(|_| TakeError::Memory)?;
            self.backlog.extend(bytes);
        }
        Ok(taken)
    }

    /// Passes on what was kept: how many bytes went.
    pub(super) fn flush(&mut self) -> Result<u32, Gone> {
        let mut taken = 0;
        while !self.backlog.is_empty() {
            let (first, _) = self.backlog.as_slices();
            match (&self.stream).write(first) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    taken += u32::try_from(count).unwrap_or(u32::MAX);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(taken)
    }

    /// Shuts down what the guest is over with: it sends nothing more, it reads nothing more.
    pub(super) fn follow(&mut self, sends: bool, reads: bool) {
        let follow = |done: &mut bool, over: bool, how| {
            if over && !std::mem::replace(done, true) {
                let _ = self.stream.shutdown(how);
            }
        };
        follow(&mut self.followed.0, sends, Shutdown::Write);
        follow(&mut self.followed.1, reads, Shutdown::Read);
    }
}
