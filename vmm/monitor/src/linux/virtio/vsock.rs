//! Streams between sockets of the host and a guest; on the network thread.
//!
//! [`Mux`] keeps the books. What is here moves bytes: from a socket straight into a buffer of the guest's; from the guest
//! straight into a socket, and what that does not take now into a backlog that credit bounds.
//!
//! ```text
//!  Role::Vsock          Waiting --RESPONSE--> Connected said --> Open
//!                          | RST: refused
//!  Role::VsockAccept    Parked said --guest's REQUEST--> Connected said --> Open
//! ```
//! Sockets are watched edge-triggered, once: what is readable is remembered in the mux until a read says otherwise.

mod host;

pub use host::Host;

use super::walk::{Walk, WalkError};
use super::{BadRequest, Queues, Step, put_at};
use crate::ram::Ram;
use crate::sys::vectored::Direction;
use rustix::fd::AsFd;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use warren_devices::virtio::chain::slice;
use warren_devices::virtio::vsock::{
    self, EVENT_TRANSPORT_RESET, EVENTS, HEADER_LEN, Header, Key, Mux, Next, RX, Received, TX,
};
use warren_devices::virtio::{Chain, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity};
use warren_vmm_protocol::linux::{VsockRefusal, VsockReply};

/// Most connections that wait for a guest to connect.
const PARKED_MAX: usize = 64;

/// Names a socket for the event loop; never given twice.
pub type Token = u64;

/// What happened to a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// There are bytes, or their end.
    pub readable: bool,
    /// There is room.
    pub writable: bool,
    /// The other end is closed both ways.
    pub hung_up: bool,
}

/// The front half of a guest's socket device.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: u32,
    mux: Mux,
    hosts: BTreeMap<Key, Host>,
    /// In the order of their arrival.
    parked: BTreeMap<Token, (u32, Host)>,
    keys: BTreeMap<Token, Key>,
    /// A buffer of the guest's that nothing went into yet.
    spare: Option<(u16, Chain)>,
    /// Whose queues `spare` and the open connections belong to.
    era: u64,
    gate: Gate,
}

/// Whether packets go through. After an interruption a connection of the new life must not be taken for one of the old: the
/// guest's driver ends every one that it has when it hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The guest is to hear that every connection is gone.
    Interrupted,
    /// It was told when so many buffers for events were left; it gives that one back when it has heard.
    Told {
        left: u16,
    },
}

impl Vsock {
    /// Without connections.
    #[must_use]
    pub fn new(guest_cid: u32) -> Self {
        Self {
            guest_cid,
            mux: Mux::new(guest_cid),
            hosts: BTreeMap::new(),
            parked: BTreeMap::new(),
            keys: BTreeMap::new(),
            spare: None,
            era: 0,
            gate: Gate::Open,
        }
    }

    /// What the driver is told.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            id: vsock::ID,
            features: F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX,
            queues: vsock::QUEUES.to_vec(),
            config: vsock::config(self.guest_cid).into(),
        }
    }

    /// A host's socket that wants to talk to a port of the guest.
    pub fn connect(&mut self, token: Token, port: u32, stream: UnixStream) {
        let host = Host::new(token, stream);
        match self.mux.connect(port) {
            Ok(key) => {
                self.keys.insert(token, key);
                self.hosts.insert(key, host);
            }
            Err(_) => host.refuse(VsockRefusal::Full),
        }
    }

    /// A host's socket that becomes the guest's next connection to a port of the host.
    pub fn park(&mut self, token: Token, port: u32, stream: UnixStream) {
        let host = Host::new(token, stream);
        if self.parked.len() >= PARKED_MAX {
            host.refuse(VsockRefusal::Full);
        } else if host.say(VsockReply::Parked) {
            self.parked.insert(token, (port, host));
        }
    }

    /// A socket is ready. Whether the guest may have to hear of it.
    pub fn happened(&mut self, token: Token, what: Happened) {
        let Some(key) = self.keys.get(&token).copied() else {
            // Parked: who waits may go.
            if what.hung_up {
                self.parked.remove(&token);
            }
            return;
        };
        if what.readable || what.hung_up {
            self.mux.readable(key);
        }
        if what.writable {
            self.flush(key);
        }
        if what.hung_up {
            self.hang_up(key);
        }
        self.bury();
    }

    /// Sockets held, and bytes kept for them.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize) {
        let parked = self.parked.values().map(|(_, host)| host);
        let hosts = self.hosts.values().chain(parked);
        hosts.fold((0, 0), |(count, kept), host| (count + 1, kept + host.kept()))
    }

    /// Every connection is lost, and the guest hears of it: for machines that come back elsewhere.
    pub fn interrupt(&mut self) {
        self.mux.reset();
        self.bury();
        self.gate = Gate::Interrupted;
    }

    /// One packet each way at most.
    pub fn step(&mut self, queues: &mut Queues, ram: &Ram) -> Result<Step, WalkError> {
        if self.era != queues.era {
            self.era = queues.era;
            // A driver that begins has no connections.
            if matches!(self.gate, Gate::Told { .. }) {
                self.gate = Gate::Open;
            }
            self.spare = None;
            self.mux.reset();
            self.bury();
        }
        let mut step = Step::Idle;
        if let Some(walk) = queues.get(EVENTS) {
            step = step.and(self.pass_gate(walk, ram)?);
        }
        if self.gate != Gate::Open {
            return Ok(step);
        }
        if let (true, Some(walk)) = (self.mux.listens(), queues.get(TX)) {
            step = step.and(self.take_packet(walk, ram)?);
        }
        if let Some(walk) = queues.get(RX) {
            step = step.and(self.give_packet(walk, ram)?);
        }
        self.bury();
        Ok(step)
    }

    fn pass_gate(&mut self, walk: &mut Walk, ram: &Ram) -> Result<Step, WalkError> {
        match self.gate {
            Gate::Open => Ok(Step::Idle),
            Gate::Interrupted => {
                let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
                put_at(chain.writable(), 0, &EVENT_TRANSPORT_RESET.to_le_bytes(), ram)?;
                self.gate = Gate::Told { left: walk.waiting(ram)? };
                walk.finish(ram, head, 4)?;
                Ok(Step::Done)
            }
            Gate::Told { left } => {
                if walk.waiting(ram)? > left {
                    self.gate = Gate::Open;
                    return Ok(Step::Done);
                }
                Ok(Step::Idle)
            }
        }
    }

    /// From the guest.
    fn take_packet(&mut self, walk: &mut Walk, ram: &Ram) -> Result<Step, WalkError> {
        let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
        let header = chain.copy_head(ram).ok_or(BadRequest("a packet without a header"))?;
        let header = Header::read(&header);
        match self.mux.receive(&header, chain.readable_len().saturating_sub(HEADER_LEN)) {
            Received::Nothing => {}
            Received::Wanted(key) => self.wanted(key),
            Received::Opened(key) => self.open(key),
            Received::Data(key) => self.take_data(key, &chain, header.len, ram)?,
            Received::Shut(key) => self.follow(key),
        }
        walk.finish(ram, head, 0)?;
        Ok(Step::Done)
    }

    /// The guest asks for a connection: the oldest that is parked for the port takes it.
    fn wanted(&mut self, key: Key) {
        let token = self.parked.iter().find(|(_, (port, _))| *port == key.host).map(|(token, _)| *token);
        let Some((token, (_, host))) = token.and_then(|token| self.parked.remove_entry(&token)) else {
            self.mux.refuse(key);
            return;
        };
        self.mux.accept(key);
        self.keys.insert(token, key);
        self.hosts.insert(key, host);
        self.open(key);
    }

    fn open(&mut self, key: Key) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        if host.say(VsockReply::Connected) {
            host.opened = true;
            self.mux.readable(key);
        } else {
            self.mux.abort(key);
        }
    }

    fn take_data(&mut self, key: Key, chain: &Chain, len: u32, ram: &Ram) -> Result<(), WalkError> {
        let Some(host) = self.hosts.get_mut(&key) else { return Ok(()) };
        let ranges = slice(chain.readable(), HEADER_LEN, len);
        match host.take(&ranges, ram) {
            Ok(taken) => self.mux.forwarded(key, taken),
            Err(host::TakeError::Memory) => {
                return Err(BadRequest("bytes that are not memory").into());
            }
            Err(host::TakeError::Gone) => self.hang_up(key),
        }
        self.follow(key);
        Ok(())
    }

    fn flush(&mut self, key: Key) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        match host.flush() {
            Ok(taken) => self.mux.forwarded(key, taken),
            Err(_) => self.hang_up(key),
        }
        self.follow(key);
    }

    fn hang_up(&mut self, key: Key) {
        if let Some(host) = self.hosts.get_mut(&key) {
            host.hang_up();
        }
        self.mux.hung_up(key);
    }

    /// Closes on the host's side what the guest closed.
    fn follow(&mut self, key: Key) {
        let (sends, reads) = self.mux.is_over(key);
        if let Some(host) = self.hosts.get_mut(&key) {
            host.follow(sends, reads);
        }
    }

    /// To the guest, in a buffer of its own.
    fn give_packet(&mut self, walk: &mut Walk, ram: &Ram) -> Result<Step, WalkError> {
        if !self.mux.wants_to_send() {
            return Ok(Step::Idle);
        }
        let buffer = match self.spare.take() {
            Some(buffer) => Some(buffer),
            None => walk.next(ram)?,
        };
        let Some((head, chain)) = buffer else { return Ok(Step::Idle) };
        if chain.writable_len() <= HEADER_LEN {
            return Err(BadRequest("a buffer without room for a packet").into());
        }
        while let Some(next) = self.mux.next_packet() {
            let header = match next {
                Next::Packet(header) => Some(header),
                Next::Data(key, most) => self.read_into(key, most, &chain, ram),
            };
            if let Some(header) = header {
                put_at(chain.writable(), 0, &header.bytes(), ram)?;
                walk.finish(ram, head, HEADER_LEN + header.len)?;
                return Ok(Step::Done);
            }
        }
        self.spare = Some((head, chain));
        Ok(Step::Idle)
    }

    /// Bytes of a socket behind the place of the header; `None` when there are none now.
    fn read_into(&mut self, key: Key, most: u32, chain: &Chain, ram: &Ram) -> Option<Header> {
        let Some(host) = self.hosts.get(&key) else {
            self.mux.abort(key);
            return None;
        };
        let ranges = slice(chain.writable(), HEADER_LEN, most);
        match ram.transfer_stream(host.stream().as_fd(), &ranges, Direction::Read) {
            Ok(0) => self.mux.ended(key),
            Ok(bytes) => return Some(self.mux.read(key, u32::try_from(bytes).unwrap_or(most))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.mux.dry(key),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.mux.abort(key),
        }
        None
    }

    /// Closes the sockets of connections that are gone.
    fn bury(&mut self) {
        while let Some(key) = self.mux.take_gone() {
            let Some(host) = self.hosts.remove(&key) else { continue };
            self.keys.remove(&host.token());
            if !host.opened {
                host.refuse(VsockRefusal::NotListening);
            }
        }
    }
}
