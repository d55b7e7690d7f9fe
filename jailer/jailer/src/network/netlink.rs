//! Netlink: messages are bytes (netlink(7)), so there is nothing to call but a socket.
//!
//! A socket stays in the network namespace in which it was made, wherever its owner goes: this is how the jailer, whose own
//! namespace is empty, keeps a hand on two others.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::SocketAddrNetlink,
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use std::{os::fd::OwnedFd, time::Duration};

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// The kernel answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Larger than any answer that is read here.
const ANSWER: usize = 64 << 10;

/// A message that is being made.
#[derive(Clone, Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, 4, &kind.to_ne_bytes());
        put(&mut bytes, 6, &(NLM_F_REQUEST | flags).to_ne_bytes());
        Self(bytes)
    }

    /// Bytes as they are: the fixed part of a message.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad()
    }

    /// Text, with its end.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in network order, as netfilter wants them.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Attributes within one.
    pub(super) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut whole = fill(self);
        let length = u16::try_from(whole.0.len() - begin).unwrap_or(u16::MAX);
        put(&mut whole.0, begin, &length.to_ne_bytes());
        put(&mut whole.0, begin + 2, &(kind | NLA_F_NESTED).to_ne_bytes());
        whole
    }

    fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finished(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        put(&mut self.0, 0, &length.to_ne_bytes());
        let now = self.0.get(6..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
        put(&mut self.0, 6, &(now | flags).to_ne_bytes());
        put(&mut self.0, 8, &sequence.to_ne_bytes());
        self.0
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// One answer of the kernel: its kind and what follows the header.
pub(super) struct Answer<'a> {
    kind: u16,
    sequence: u32,
    pub(super) body: &'a [u8],
}

/// A socket in the namespace in which it was made.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(super) fn new(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// One request and the kernel's word on it.
    pub(super) fn ask(&mut self, message: Message) -> Result<(), Errno> {
        self.ask_all(vec![message], None)
    }

    /// Several in one piece, between `around` where the kernel is to take all of them or none.
    pub(super) fn ask_all(
        &mut self,
        messages: Vec<Message>,
        around: Option<(Message, Message)>,
    ) -> Result<(), Errno> {
        let first = self.sequence.wrapping_add(1);
        let mut waiting = messages.len();
        let (begin, end) = around.unzip();
        let mut packet = begin.map(|begin| begin.finished(first.wrapping_sub(1), 0)).unwrap_or_default();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            packet.extend(message.finished(self.sequence, NLM_F_ACK));
        }
        let last = self.sequence;
        packet.extend(end.map(|end| end.finished(last, 0)).unwrap_or_default());
        self.send(&packet)?;
        let mut result = Ok(());
        let mut buffer = vec![0; ANSWER];
        while waiting > 0 {
            for answer in answers(self.receive(&mut buffer)?) {
                // What is around them has the number before the first, and is answered only if it is refused.
                let before = first.wrapping_sub(1);
                let ours = answer.sequence.wrapping_sub(before) <= last.wrapping_sub(before);
                if answer.kind == NLMSG_ERROR && ours {
                    waiting = waiting.saturating_sub(1);
                    result = result.and(verdict(answer.body));
                }
            }
            // Of a batch that failed not all is answered.
            if result.is_err() {
                break;
            }
        }
        result
    }

    /// A request whose answer is one message; its body.
    pub(super) fn get(&mut self, message: Message) -> Result<Vec<u8>, Errno> {
        let mut found = None;
        self.each(message, 0, |body| found = Some(body.to_vec()))?;
        found.ok_or(Errno::NOENT)
    }

    /// A request whose answers are many.
    pub(super) fn dump(&mut self, message: Message, on: impl FnMut(&[u8])) -> Result<(), Errno> {
        self.each(message, NLM_F_DUMP, on)
    }

    fn each(&mut self, message: Message, flags: u16, mut on: impl FnMut(&[u8])) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&message.finished(sequence, flags))?;
        let mut buffer = vec![0; ANSWER];
        loop {
            for answer in answers(self.receive(&mut buffer)?).filter(|answer| answer.sequence == sequence) {
                match answer.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return verdict(answer.body),
                    _ => on(answer.body),
                }
                if flags & NLM_F_DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        // An answer to an earlier request that was given up would be taken for one to this; sequence numbers keep them apart.
        let sent = sendto(&self.fd, packet, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        if sent == packet.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let count = loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        Ok(buffer.get(..count).unwrap_or_default())
    }
}

/// The messages of one packet. A length that lies ends it.
fn answers(mut packet: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let (length, kind, sequence) = (word(packet, 0)?, half(packet, 4)?, word(packet, 8)?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let body = packet.get(HEADER..length)?;
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, sequence, body })
    })
}

/// The attributes of a message's body: kind and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NLA_F_NESTED, value))
    })
}

/// What an acknowledgement says: 0, or a negative errno.
fn verdict(body: &[u8]) -> Result<(), Errno> {
    let code = body.first_chunk().copied().map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) }
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_attributes_read_back() {
        let message = Message::new(7, 0).text(1, "abc").nest(2, |it| it.number(3, 9).attribute(4, &[5]));
        let bytes = message.finished(11, NLM_F_ACK);
        let all: Vec<_> = answers(&bytes).collect();
        let [one] = all.as_slice() else { panic!("{}", all.len()) };
        assert_eq!((one.kind, one.sequence), (7, 11));
        let outer: Vec<_> = attributes(one.body).collect();
        assert_eq!(outer.first(), Some(&(1, &b"abc\0"[..])));
        let inner: Vec<_> = outer.get(1).map(|(_, nest)| attributes(nest).collect()).unwrap_or_default();
        assert_eq!(inner, [(3, &[0, 0, 0, 9][..]), (4, &[5][..])]);
    }

    proptest! {
        /// Whatever comes, reading it ends and stays within it.
        #[test]
        fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read: usize = answers(&bytes).map(|answer| answer.body.len() + HEADER).sum();
            prop_assert!(read <= bytes.len());
            prop_assert!(attributes(&bytes).map(|(_, value)| value.len() + 4).sum::<usize>() <= bytes.len());
        }
    }
}
