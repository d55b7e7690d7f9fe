//! The table of connections, and which packet goes to the guest next.
//!
//! ```text
//!  host asks: connect()                         guest asks: REQUEST
//!       |                                            |
//!       v                                            +-- nobody takes it: RST
//!   Requested --RST--> gone (refused)                | accept()
//!       | RESPONSE                                   v
//!       +---------------> Open <---------------------+   (owes a RESPONSE)
//!                          |  host ends, hangs up: SHUTDOWN with what is over, once
//!                          |  guest ends: SHUTDOWN; what it sent is passed on first
//!                          |
//!                          +-- host over both ways --> Closing --RST--> gone
//!                          +-- guest over both ways, nothing held --> RST, gone
//!                          +-- abort(), a broken rule --> RST, gone
//!                          +-- RST --> gone
//! ```
//! - A driver's reset ends every connection but those **Requested**, which are asked for again.
//! - **Closing** holds nothing but its row; the oldest gives its place when the table is full.
//! - What is for no connection is answered by RST, never for an RST. Rows, resets and what is [`Mux::take_gone`] are
//!   bounded: a guest that does not take its resets is not listened to ([`Mux::listens`]).

mod connection;
mod said;

use self::connection::{Connection, Source, State, Wish};
pub use self::said::{Full, Key, Next, Received};
use super::HOST_CID;
use super::packet::{
    Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN,
    SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Resets that wait for the guest to take them.
const RESETS_MAX: usize = 64;
/// Where the host's own ports begin.
const EPHEMERAL: u32 = 1 << 30;

/// One guest's connections.
#[derive(Debug)]
pub struct Mux {
    guest_cid: u64,
    table: BTreeMap<Key, Connection>,
    resets: VecDeque<Key>,
    gone: Vec<Key>,
    /// Whose turn it was last.
    turn: Option<Key>,
    next_port: u32,
    /// Counts closings, to find the oldest.
    closings: u64,
}

impl Mux {
    /// Without connections.
    #[must_use]
    pub fn new(guest_cid: u32) -> Self {
        Self {
            guest_cid: guest_cid.into(),
            table: BTreeMap::new(),
            resets: VecDeque::new(),
            gone: Vec::new(),
            turn: None,
            next_port: EPHEMERAL,
            closings: 0,
        }
    }

    /// The host asks for a connection to a guest's port.
    pub fn connect(&mut self, guest: u32) -> Result<Key, Full> {
        self.make_room()?;
        let mut key = Key { host: self.next_port, guest };
        // Ends: there are fewer rows than ports.
        while self.table.contains_key(&key) {
            key.host = next_port(key.host);
        }
        self.next_port = next_port(key.host);
        self.table.insert(key, Connection::new(State::Requested { sent: false }));
        Ok(key)
    }

    /// The guest's connection ([`Received::Wanted`]) is taken.
    pub fn accept(&mut self, key: Key) {
        if let Some(Connection { state: State::Open { owes_response }, .. }) = self.table.get_mut(&key) {
            *owes_response = true;
        }
    }

    /// The guest's connection is not taken.
    pub fn refuse(&mut self, key: Key) {
        self.abort(key);
    }

    /// Whether another packet of the guest's may be looked at.
    #[must_use]
    pub fn listens(&self) -> bool {
        // One packet adds one reset at most, its caller's abort another.
        self.resets.len() + 2 <= RESETS_MAX
    }

    /// A packet of the guest's, with so many bytes really behind its header.
    pub fn receive(&mut self, header: &Header, behind: u32) -> Received {
        // Not from this guest or not for the host: nobody's.
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return Received::Nothing;
        }
        let key = Key { host: header.dst_port, guest: header.src_port };
        if header.kind != TYPE_STREAM {
            self.answer_stray(key, header.op);
            return Received::Nothing;
        }
        let known = self.table.contains_key(&key);
        match header.op {
            OP_REQUEST if !known => self.requested(key, header),
            _ if known => self.in_connection(key, header, behind),
            op => {
                self.answer_stray(key, op);
                Received::Nothing
            }
        }
    }

    /// For no connection: RST, but never for one.
    fn answer_stray(&mut self, key: Key, op: u16) {
        if op != OP_RST {
            self.reset_later(key);
        }
    }

    fn requested(&mut self, key: Key, header: &Header) -> Received {
        if self.make_room().is_err() {
            self.reset_later(key);
            return Received::Nothing;
        }
        let mut connection = Connection::new(State::Open { owes_response: false });
        connection.credit.update(header.buf_alloc, header.fwd_cnt);
        self.table.insert(key, connection);
        Received::Wanted(key)
    }

    fn in_connection(&mut self, key: Key, header: &Header, behind: u32) -> Received {
        let Some(connection) = self.table.get_mut(&key) else { return Received::Nothing };
        connection.credit.update(header.buf_alloc, header.fwd_cnt);
        let open = matches!(connection.state, State::Open { .. });
        let broken = match header.op {
            OP_RST => {
                self.remove(key);
                return Received::Nothing;
            }
            OP_RESPONSE if connection.state == (State::Requested { sent: true }) => {
                connection.state = State::Open { owes_response: false };
                return Received::Opened(key);
            }
            OP_CREDIT_UPDATE if open => false,
            OP_CREDIT_REQUEST if open => {
                connection.credit.ask();
                false
            }
            OP_SHUTDOWN if open => {
                connection.guest_over |= header.flags & SHUTDOWN_BOTH;
                self.settle(key);
                return Received::Shut(key);
            }
            OP_RW if open && header.len <= behind && connection.guest_over & SHUTDOWN_SEND == 0 => {
                if connection.credit.receive(header.len).is_ok() {
                    return Received::Data(key);
                }
                true
            }
            // What was on its way when the host closed. The guest's RST follows, or ours when it closed as well.
            OP_RW | OP_CREDIT_UPDATE | OP_CREDIT_REQUEST | OP_SHUTDOWN if connection.is_closing() => {
                connection.guest_over |= if header.op == OP_SHUTDOWN { header.flags } else { 0 };
                connection.guest_over & SHUTDOWN_BOTH == SHUTDOWN_BOTH
            }
            _ => true,
        };
        if broken {
            self.abort(key);
        }
        Received::Nothing
    }

    /// The host's side may have bytes, or its end.
    pub fn readable(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(&key).filter(|row| row.source == Source::Dry) {
            connection.source = Source::Ready;
        }
    }

    /// The host's side has nothing now.
    pub fn dry(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(&key).filter(|row| row.source == Source::Ready) {
            connection.source = Source::Dry;
        }
    }

    /// The host's side sends nothing more.
    pub fn ended(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(&key) {
            connection.source = Source::Ended;
        }
    }

    /// The host's side reads nothing more: what the guest still sends is for nobody.
    pub fn hung_up(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(&key) else { return };
        connection.hung_up = true;
        let held = connection.credit.held();
        self.forwarded(key, held);
        // Nobody waits for an answer any more. (The guest may have seen the request: it is told.)
        if self.table.get(&key).is_some_and(|row| matches!(row.state, State::Requested { .. })) {
            self.abort(key);
        }
    }

    /// The host's side took so many bytes.
    pub fn forwarded(&mut self, key: Key, bytes: u32) {
        if let Some(connection) = self.table.get_mut(&key) {
            connection.credit.forwarded(bytes);
            self.settle(key);
        }
    }

    /// Bytes of a connection that the host's side has not taken.
    #[must_use]
    pub fn held(&self, key: Key) -> u32 {
        self.table.get(&key).map_or(0, |row| row.credit.held())
    }

    /// Whether the guest sends nothing more, and everything it sent was passed on; and whether it reads nothing more.
    #[must_use]
    pub fn is_over(&self, key: Key) -> (bool, bool) {
        self.table.get(&key).map_or((true, true), |row| {
            let over = |bit| row.guest_over & bit != 0;
            (over(SHUTDOWN_SEND) && row.credit.held() == 0, over(SHUTDOWN_RECEIVE))
        })
    }

    /// Ends a connection at once.
    pub fn abort(&mut self, key: Key) {
        let asked = self.table.get(&key).map(|row| row.state);
        if self.remove(key) && asked != Some(State::Requested { sent: false }) {
            self.reset_later(key);
        }
    }

    /// Every connection is gone with its driver; requests are made again to the next one.
    pub fn reset(&mut self) {
        self.resets.clear();
        let rows: Vec<Key> = self.table.keys().copied().collect();
        for key in rows {
            match self.table.get_mut(&key).map(|row| &mut row.state) {
                Some(State::Requested { sent }) => *sent = false,
                _ => drop(self.remove(key)),
            }
        }
    }

    /// A connection that is gone since this was last asked: the caller closes its side.
    pub fn take_gone(&mut self) -> Option<Key> {
        self.gone.pop()
    }

    /// Whether [`Self::next_packet`] has something.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        !self.resets.is_empty() || self.table.values().any(|row| row.wish().is_some())
    }

    /// What goes to the guest next: resets, then connections in turn.
    pub fn next_packet(&mut self) -> Option<Next> {
        if let Some(key) = self.resets.pop_front() {
            let header = Header { op: OP_RST, ..self.header(key) };
            return Some(Next::Packet(header));
        }
        let after = self.turn.and_then(|turn| {
            let later = (core::ops::Bound::Excluded(turn), core::ops::Bound::Unbounded);
            self.table.range(later).find_map(|(key, row)| Some((*key, row.wish()?)))
        });
        let (key, wish) =
            after.or_else(|| self.table.iter().find_map(|(key, row)| Some((*key, row.wish()?))))?;
        self.turn = Some(key);
        Some(match wish {
            Wish::Data(most) => Next::Data(key, most),
            Wish::Packet(op) => Next::Packet(self.packet(key, op)),
        })
    }

    /// So many bytes of a connection go to the guest: their header.
    pub fn read(&mut self, key: Key, bytes: u32) -> Header {
        if let Some(connection) = self.table.get_mut(&key) {
            connection.credit.sent(bytes);
        }
        Header { len: bytes, ..self.packet(key, OP_RW) }
    }

    fn packet(&mut self, key: Key, op: u16) -> Header {
        let closing = State::Closing { at: self.closings };
        let mut header = Header { op, ..self.header(key) };
        let Some(connection) = self.table.get_mut(&key) else { return header };
        (header.buf_alloc, header.fwd_cnt) = connection.credit.tell();
        match op {
            OP_REQUEST => connection.state = State::Requested { sent: true },
            OP_RESPONSE => connection.state = State::Open { owes_response: false },
            OP_SHUTDOWN => {
                connection.announced |= connection.over();
                header.flags = connection.announced;
                if connection.announced == SHUTDOWN_BOTH {
                    connection.state = closing;
                    self.closings += 1;
                    self.gone.push(key);
                }
            }
            _ => {}
        }
        header
    }

    fn header(&self, key: Key) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: key.host,
            dst_port: key.guest,
            kind: TYPE_STREAM,
            ..Header::default()
        }
    }

    /// The guest is over both ways and everything it sent is passed on: it waits for the RST (5.10.6.5).
    fn settle(&mut self, key: Key) {
        let over =
            |row: &Connection| row.guest_over == SHUTDOWN_BOTH && row.credit.held() == 0 && row.is_open();
        if self.table.get(&key).is_some_and(over) {
            self.abort(key);
        }
    }

    fn reset_later(&mut self, key: Key) {
        // Full only when the caller does not ask `listens`; then the guest finds out by its own timers.
        if self.resets.len() < RESETS_MAX + CONNECTIONS_MAX {
            self.resets.push_back(key);
        }
    }

    fn remove(&mut self, key: Key) -> bool {
        match self.table.remove(&key) {
            Some(Connection { state: State::Closing { .. }, .. }) => true,
            Some(_) => {
                self.gone.push(key);
                true
            }
            None => false,
        }
    }

    fn make_room(&mut self) -> Result<(), Full> {
        if self.table.len() < CONNECTIONS_MAX {
            return Ok(());
        }
        let closing = |(key, row): (&Key, &Connection)| match row.state {
            State::Closing { at } => Some((at, *key)),
            _ => None,
        };
        let (_, oldest) = self.table.iter().filter_map(closing).min().ok_or(Full)?;
        self.table.remove(&oldest);
        Ok(())
    }
}

fn next_port(port: u32) -> u32 {
    match port.wrapping_add(1) {
        // Not the wildcard, and not below what programs name themselves.
        u32::MAX | 0..EPHEMERAL => EPHEMERAL,
        port => port,
    }
}

#[cfg(test)]
mod tests;
