//! One connection: packets in, packets out.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};
use warren_sandbox_plan::{
    name::SandboxName,
    packet::{PacketError, decode_request, encode},
    request::{MAX_FDS, MAX_PACKET, Reply, Request},
};

/// A peer that has passed the check of its user id.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// Who connected.
    pub(crate) pid: i32,
    pub(crate) phase: Phase,
}

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Only Hello is taken.
    New,
    /// Requests are taken.
    Open,
    /// A Kill waits for this one's end; no request is read meanwhile, so answers keep their order.
    Waiting(SandboxName),
}

/// What reading a connection gave.
pub(crate) enum Received {
    /// A request with its descriptors.
    Request(Request, Vec<OwnedFd>),
    /// A packet that is none: answered, then the connection is closed.
    Bad(PacketError),
    /// Nothing now.
    Nothing,
    /// The peer is gone.
    Closed,
}

impl Connection {
    /// Whether the peer's end is closed.
    pub(crate) fn has_hung_up(&self) -> bool {
        let mut look = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let [seen] = &mut look;
        poll(std::slice::from_mut(seen), Some(&now)).is_ok() && seen.revents().contains(PollFlags::HUP)
    }

    /// Reads one packet.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Received {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Closed,
        };
        // Taken before anything is judged, so that whatever came is closed again.
        let mut passed = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                passed.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Received::Bad(PacketError::TooLong);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Received::Bad(PacketError::Descriptors { expected: MAX_FDS, got: MAX_FDS + 1 });
        }
        // An empty packet and the end look alike; neither is a request.
        if received.bytes == 0 {
            return Received::Closed;
        }
        let packet = buffer.get(..received.bytes).unwrap_or_default();
        match decode_request(packet, passed.len()) {
            Ok(request) => Received::Request(request, passed),
            Err(error) => Received::Bad(error),
        }
    }

    /// Sends one packet. `false` if the peer does not take it: then the connection is of no use.
    pub(crate) fn send(&self, reply: &Reply, passed: &[BorrowedFd<'_>]) -> bool {
        let Some(packet) = encode(reply) else { return false };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !passed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(passed)) {
            return false;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.socket, &[IoSlice::new(&packet)], &mut ancillary, flags) == Ok(packet.len())
    }
}

/// The size of the buffer that [`Connection::receive`] takes: one more than a packet may have.
pub(crate) const BUFFER: usize = MAX_PACKET + 1;
