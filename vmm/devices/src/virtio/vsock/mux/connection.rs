//! One row of the table, and what it wants to send next.

use crate::virtio::vsock::credit::Credit;
use crate::virtio::vsock::packet::{
    OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_SHUTDOWN, SHUTDOWN_RECEIVE, SHUTDOWN_SEND,
};

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) credit: Credit,
    pub(super) source: Source,
    /// The host reads nothing more.
    pub(super) hung_up: bool,
    /// Of a shutdown, what the guest was told already.
    pub(super) announced: u32,
    /// Of a shutdown, what the guest told.
    pub(super) guest_over: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Requested { sent: bool },
    Open { owes_response: bool },
    Closing { at: u64 },
}

/// What the host's side has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Dry,
    Ready,
    Ended,
}
/// What a connection wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Packet(u16),
    Data(u32),
}

impl Connection {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            credit: Credit::default(),
            source: Source::Dry,
            hung_up: false,
            announced: 0,
            guest_over: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Of a shutdown: what the host is over with. What it sent is lost when the guest reads no more.
    pub(super) fn over(&self) -> u32 {
        let lost = self.hung_up && self.guest_over & SHUTDOWN_RECEIVE != 0;
        let ended = if lost || self.source == Source::Ended { SHUTDOWN_SEND } else { 0 };
        ended | if self.hung_up { SHUTDOWN_RECEIVE } else { 0 }
    }

    pub(super) fn wish(&self) -> Option<Wish> {
        match self.state {
            State::Requested { sent: false } => return Some(Wish::Packet(OP_REQUEST)),
            State::Open { owes_response: true } => return Some(Wish::Packet(OP_RESPONSE)),
            State::Open { owes_response: false } => {}
            State::Requested { sent: true } | State::Closing { .. } => return None,
        }
        let free = self.credit.free();
        if self.source == Source::Ready && free > 0 && self.guest_over & SHUTDOWN_RECEIVE == 0 {
            Some(Wish::Data(free))
        } else if self.credit.must_tell() {
            Some(Wish::Packet(OP_CREDIT_UPDATE))
        } else if self.over() & !self.announced != 0 {
            Some(Wish::Packet(OP_SHUTDOWN))
        } else {
            None
        }
    }
}
