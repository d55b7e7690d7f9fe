//! A connection as the main thread uses it: never blocking, bounded both ways, descriptors riding along.

use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use warren_boot::linux::layout::VIRTIO_MAX;
use warren_vmm_protocol::frame::{self, FrameError, PREFIX};

/// Most descriptors a connection may hold that no message has taken yet: a function's code and files.
pub const DESCRIPTORS_MAX: usize = 3;
/// The same for Linux guests: kernel, initrd, and two for each device at most. Linux takes 253 in one message.
pub const LINUX_DESCRIPTORS_MAX: usize = 2 + 2 * VIRTIO_MAX;
/// Most bytes that wait for a peer to read them.
const OUTBOX_MAX: usize = 1 << 20;
/// Most bytes kept that are not decoded yet. Reading pauses here, so the socket pushes back.
const INBOX_MAX: usize = PREFIX + warren_vmm_protocol::MAX_MESSAGE;
const CHUNK: usize = 16 << 10;

/// One peer.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    descriptors_max: usize,
}

/// Why a connection is closed: always the peer's doing.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// More descriptors than any message takes.
    #[error("too many descriptors")]
    Descriptors,
    /// The peer sends requests and does not read replies.
    #[error("the peer does not read its replies")]
    Stuck,
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl Connection {
    /// Over an accepted socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Self::with_descriptors(stream, DESCRIPTORS_MAX)
    }

    /// Over an accepted socket whose messages carry up to so many descriptors, at most [`LINUX_DESCRIPTORS_MAX`].
    pub fn with_descriptors(stream: UnixStream, descriptors_max: usize) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, inbox: Vec::new(), outbox: Vec::new(), descriptors: Vec::new(), descriptors_max })
    }

    /// The socket, for the event loop.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads once.
    pub fn receive(&mut self) -> Result<(), ConnectionError> {
        let room = INBOX_MAX.saturating_sub(self.inbox.len()).min(CHUNK);
        let mut chunk = [0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LINUX_DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let target = chunk.get_mut(..room).unwrap_or_default();
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.stream, &mut [IoSliceMut::new(target)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(ConnectionError::Socket(error.into())),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > self.descriptors_max || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ConnectionError::Descriptors);
        }
        if received.bytes == 0 {
            return Err(ConnectionError::Closed);
        }
        self.inbox.extend_from_slice(chunk.get(..received.bytes).unwrap_or_default());
        Ok(())
    }

    /// Takes a message out of what has arrived, if one is whole.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((prefix, rest)) = self.inbox.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = frame::read_len(*prefix)?;
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = frame::decode(body)?;
        self.inbox.drain(..PREFIX + len);
        Ok(Some(message))
    }

    /// The descriptors that came with the messages so far.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Sends a message, or keeps what the socket does not take now.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ConnectionError> {
        self.outbox.extend(frame::encode(message)?);
        self.flush()?;
        if self.outbox.len() > OUTBOX_MAX { Err(ConnectionError::Stuck) } else { Ok(()) }
    }

    /// Sends what was kept, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.outbox.is_empty() {
            match (&self.stream).write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    #[must_use]
    pub fn wants_to_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether bytes came that no message took.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// The socket, and the bytes read from it that no message took.
    #[must_use]
    pub fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.inbox)
    }
}

#[cfg(test)]
mod tests;
