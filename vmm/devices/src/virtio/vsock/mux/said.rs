//! What the table is asked and what it says.

#[cfg(doc)]
use super::Mux;
use crate::virtio::vsock::packet::Header;

/// A connection: its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The host's.
    pub host: u32,
    /// The guest's.
    pub guest: u32,
}

/// What a packet of the guest's means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing to do.
    Nothing,
    /// The guest asks for a connection: [`Mux::accept`] or [`Mux::refuse`].
    Wanted(Key),
    /// The connection that the host asked for is open.
    Opened(Key),
    /// The packet's bytes are for this connection.
    Data(Key),
    /// The guest is over, one way or both: see [`Mux::is_over`].
    Shut(Key),
}

/// What goes to the guest next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This packet, which has no bytes.
    Packet(Header),
    /// Up to so many bytes of this connection's: then [`Mux::read`], [`Mux::dry`] or [`Mux::ended`].
    Data(Key, u32),
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections")]
pub struct Full;
