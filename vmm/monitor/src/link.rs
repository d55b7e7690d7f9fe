//! The invoke connection, as the vCPU thread uses it: requests and payloads in, logs and results out.
//!
//! The socket never blocks. Waiting for a request is the caller's (`vcpu`), who has other things to wait for too;
//! sending waits here, but not for ever: an agent that does not read for a few seconds loses the connection.

use crate::mailbox::Mailbox;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use warren_abi::mailbox::{CONTEXT_MAX, PAYLOAD_MAX};
use warren_vmm_protocol::frame::{self, FrameError, PREFIX};
use warren_vmm_protocol::{InvokeReply, InvokeRequest};

/// How long a send may make no progress.
const PATIENCE_MS: u64 = 5_000;
/// Bytes taken from the socket at once; small events come whole.
const CHUNK: usize = 16 << 10;
/// Most log bytes in one message.
const LOG_PIECE: usize = 64 << 10;
/// Responses up to here are copied behind their message and leave in one call.
pub const SMALL_RESPONSE: u32 = 16 << 10;

/// One agent's connection.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// Where reads land; kept, for to clear it costs more than most events' bytes.
    chunk: Box<[u8; CHUNK]>,
}

/// Why a connection is given up. Never the guest's fault, and the sandbox goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The agent closed it.
    #[error("closed by the agent")]
    Closed,
    /// The agent broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A length beyond the mailbox.
    #[error("{what} of {len} bytes is too large")]
    TooLarge {
        /// Context or payload.
        what: &'static str,
        /// How large.
        len: u64,
    },
    /// The agent does not read.
    #[error("the agent has not read for {PATIENCE_MS} ms")]
    Stuck,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// How much of a payload is in the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadProgress {
    /// Bytes of context before it.
    pub context_len: u32,
    /// Bytes of it there already.
    pub done: u32,
    /// Bytes of it in all.
    pub len: u32,
}

impl Link {
    /// Over a connection from which `inbox` was read already.
    pub fn new(stream: UnixStream, inbox: Vec<u8>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, inbox, chunk: Box::new([0; CHUNK]) })
    }

    /// The socket, to wait for.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Takes a request out of what has arrived, if it is whole.
    pub fn take_request(&mut self) -> Result<Option<InvokeRequest>, LinkError> {
        let Some((prefix, rest)) = self.inbox.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = frame::read_len(*prefix)?;
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let request: InvokeRequest = frame::decode(body)?;
        self.inbox.drain(..PREFIX + len);
        let sizes = [
            ("context", request.context.len() as u64, CONTEXT_MAX),
            ("payload", u64::from(request.payload_len), PAYLOAD_MAX),
        ];
        match sizes.into_iter().find(|(_, len, max)| len > max) {
            Some((what, len, _)) => Err(LinkError::TooLarge { what, len }),
            None => Ok(Some(request)),
        }
    }

    /// One read of whatever is there.
    pub fn receive(&mut self) -> Result<(), LinkError> {
        match self.stream.read(self.chunk.as_mut_slice()) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                self.inbox.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if transient(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves payload into the mailbox: what has arrived, then one read straight from the socket.
    pub fn take_payload(&mut self, mailbox: &Mailbox, at: &mut PayloadProgress) -> Result<(), LinkError> {
        let here = self.inbox.len().min((at.len - at.done) as usize);
        if here > 0 {
            let bytes = self.inbox.get(..here).unwrap_or_default();
            mailbox.put_payload(at.context_len, at.done, bytes).map_err(io::Error::other)?;
            self.inbox.drain(..here);
            at.done += u32::try_from(here).unwrap_or(0);
        }
        if at.done == at.len {
            return Ok(());
        }
        match mailbox.fill_payload(at.context_len, at.done, at.len, &mut &self.stream) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                at.done += u32::try_from(count).unwrap_or(0);
                Ok(())
            }
            Err(error) if transient(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends bytes, all of them.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let result = (&self.stream).write(rest);
            done += self.sent(result)?;
        }
        Ok(())
    }

    /// Sends a response from guest memory, all of it.
    pub fn send_response(&mut self, mailbox: &Mailbox, len: u32) -> Result<(), LinkError> {
        let mut done = 0;
        while done < len {
            let result = mailbox.send_response(done, len, &mut &self.stream);
            done += u32::try_from(self.sent(result)?).unwrap_or(0);
        }
        Ok(())
    }

    /// How far a write got; waits when the socket is full.
    fn sent(&self, result: io::Result<usize>) -> Result<usize, LinkError> {
        match result {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_for_room().map(|()| 0),
            Err(error) => Err(error.into()),
        }
    }

    fn wait_for_room(&self) -> Result<(), LinkError> {
        let give_up = crate::progress::monotonic_ns() + PATIENCE_MS * 1_000_000;
        loop {
            let left = give_up.saturating_sub(crate::progress::monotonic_ns());
            if left == 0 {
                return Err(LinkError::Stuck);
            }
            let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
            match poll(&mut fds, Some(&timeout(left))) {
                Ok(0) => return Err(LinkError::Stuck),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LinkError::Socket(error.into())),
            }
        }
    }
}

/// Frames log bytes, in pieces that fit a message, onto `out`.
pub fn frame_log(out: &mut Vec<u8>, log: &[u8]) -> Result<(), FrameError> {
    log.chunks(LOG_PIECE).try_for_each(|piece| {
        out.extend(frame::encode(&InvokeReply::Log(piece.to_vec()))?);
        Ok(())
    })
}

fn timeout(ns: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
    }
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
