//! One SOCK_SEQPACKET connection: packets of postcard, descriptors beside them.

use rustix::{
    io::{IoSlice, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
        connect, recvmsg, sendmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};
use warren_artefact::Digest;
use warren_sandbox_plan::request::{JAILER_PROTOCOL_VERSION, MAX_FDS, MAX_PACKET, Reply, Request};

/// A jailer that does not answer for so long is taken for dead; a spawn takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far an exchange came.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The jailer cannot have seen the request.
    NotSent(io::Error),
    /// It may have acted on it.
    NoAnswer(io::Error),
}

impl ExchangeError {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::NotSent(error) | Self::NoAnswer(error) => error,
        }
    }
}

/// A connection past its `Hello`.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    packet: Vec<u8>,
    /// Of the guest program that this jailer's Wasm machines get.
    pub(super) guest: Option<Digest>,
}

impl Connection {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        let mut connection = Self { socket, packet: vec![0; MAX_PACKET], guest: None };
        let hello = Request::Hello { version: JAILER_PROTOCOL_VERSION };
        match connection.exchange(&hello, &[]).map_err(ExchangeError::into_io)? {
            (Reply::Hello { version: JAILER_PROTOCOL_VERSION, guest }, _) => {
                connection.guest = guest.map(Digest);
                Ok(connection)
            }
            (Reply::Failed { message, .. }, _) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
            }
            _ => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the jailer speaks another protocol version"))
            }
        }
    }

    pub(super) fn exchange(
        &mut self,
        request: &Request,
        fds: &[OwnedFd],
    ) -> Result<(Reply, Vec<OwnedFd>), ExchangeError> {
        let packet = postcard::to_allocvec(request).map_err(|_| ExchangeError::NotSent(malformed()))?;
        self.send(&packet, fds).map_err(ExchangeError::NotSent)?;
        self.receive().map_err(ExchangeError::NoAnswer)
    }

    fn send(&self, packet: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        if packet.len() > MAX_PACKET || fds.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "request larger than the protocol allows",
            ));
        }
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // A socket with a time limit is not waited for again by itself after a signal, or when a stopped machine goes on.
        retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.packet)];
        let got = retry_on_intr(|| recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(malformed());
        }
        let mut passed = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                passed.extend(fds);
            }
        }
        let body = self.packet.get(..got.bytes).unwrap_or_default();
        match postcard::take_from_bytes(body) {
            Ok((reply, [])) => Ok((reply, passed)),
            _ => Err(malformed()),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packet that is no message")
}
