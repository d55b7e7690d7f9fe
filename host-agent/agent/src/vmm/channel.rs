//! Frames and raw payloads over a Unix stream.

use bytes::{Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    path::Path,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
};
use warren_vmm_protocol::{
    Hello, PROTOCOL_VERSION, Role,
    frame::{self, FrameError, PREFIX},
};

/// Most descriptors with one message: a Linux guest's kernel, initrd, three disks and tap; or its memory, those and a base.
const MAX_FDS: usize = 6;
/// Room made for a read; small messages arrive in one.
const READ_ROOM: usize = 16 << 10;

/// Why a VMM could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection is gone: the VMM exited or was killed.
    #[error("the VMM closed the connection")]
    Closed,
    /// It fails otherwise.
    #[error("the connection to the VMM failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no message: a VMM that breaks the protocol is not talked to any more.
    #[error("the VMM broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// A message that does not belong here.
    #[error("the VMM broke the protocol: {0}")]
    Unexpected(&'static str),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Channel {
    pub(super) async fn connect(socket: &Path, role: Role) -> Result<Self, ChannelError> {
        let stream = UnixStream::connect(socket).await?;
        let mut channel = Self { stream, buffer: BytesMut::new() };
        channel.send(&Hello { version: PROTOCOL_VERSION, role }, &[]).await?;
        Ok(channel)
    }

    /// Sends a message and the raw payload after it, in one write when the socket takes it.
    pub(super) async fn send<T: Serialize>(
        &mut self,
        message: &T,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        let frame = frame::encode(message)?;
        let mut sent = 0;
        while sent < frame.len() {
            let head = frame.get(sent..).unwrap_or_default();
            let wrote = self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)]).await?;
            if wrote == 0 {
                return Err(ChannelError::Closed);
            }
            sent += wrote;
        }
        let rest = payload.get(sent - frame.len()..).unwrap_or_default();
        self.stream.write_all(rest).await?;
        Ok(())
    }

    /// Sends a message with descriptors on its first byte.
    pub(super) async fn send_with_fds<T: Serialize>(
        &mut self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let frame = frame::encode(message)?;
        let stream = &self.stream;
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !control.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
                }
                Ok(sendmsg(stream, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        self.stream.write_all(frame.get(sent..).unwrap_or_default()).await?;
        Ok(())
    }

    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        self.fill(PREFIX).await?;
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&self.buffer.split_to(PREFIX));
        let len = frame::read_len(prefix)?;
        self.fill(len).await?;
        let body = self.buffer.split_to(len);
        Ok(frame::decode(&body)?)
    }

    /// The raw bytes after a message; the caller has checked `len`.
    pub(super) async fn receive_payload(&mut self, len: usize) -> Result<Bytes, ChannelError> {
        self.fill(len).await?;
        Ok(self.buffer.split_to(len).freeze())
    }

    async fn fill(&mut self, wanted: usize) -> Result<(), ChannelError> {
        while self.buffer.len() < wanted {
            self.buffer.reserve((wanted - self.buffer.len()).max(READ_ROOM));
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Err(ChannelError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
