//! The door of a Linux machine: who connects is a stranger until it says what for.

use crate::connection::{Connection, LINUX_DESCRIPTORS_MAX};
use crate::log;
use event_manager::{EventOps, EventSet, Events};
use rustix::fd::{AsRawFd, RawFd};
use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use warren_vmm_protocol::{Hello, PROTOCOL_VERSION, Role};

/// Tokens of the event loop from here on are strangers'.
pub const FIRST_STRANGER: u32 = 16;
/// Strangers at once; a newer one replaces the oldest.
const STRANGERS_MAX: usize = 32;

/// A listening socket and those who have not said Hello yet.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    strangers: VecDeque<(u32, Connection)>,
    next: u32,
}

impl Door {
    /// Over a listening socket.
    pub fn new(listener: UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, strangers: VecDeque::new(), next: FIRST_STRANGER })
    }

    /// What to wait for.
    #[must_use]
    pub fn bell(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Lets somebody in.
    pub fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let connection = match Connection::with_descriptors(stream, LINUX_DESCRIPTORS_MAX) {
            Ok(connection) => connection,
            Err(error) => return log!("connection refused: {error}"),
        };
        if self.strangers.len() >= STRANGERS_MAX {
            let oldest = self.strangers.pop_front();
            forget(oldest.map(|(_, connection)| connection), ops);
        }
        let token = self.next;
        if ops.add(Events::with_data(connection.stream(), token, EventSet::IN)).is_ok() {
            self.strangers.push_back((token, connection));
            self.next = token.checked_add(1).unwrap_or(FIRST_STRANGER);
        }
    }

    /// Reads a stranger's Hello. What came behind it is still in the connection, which is no longer watched.
    pub fn greet(&mut self, token: u32, ops: &mut EventOps<'_>) -> Option<(Role, Connection)> {
        let at = self.strangers.iter().position(|(stranger, _)| *stranger == token)?;
        let (_, mut connection) = self.strangers.remove(at)?;
        match connection.receive().and_then(|()| Ok(connection.take::<Hello>()?)) {
            Ok(None) => {
                self.strangers.insert(at, (token, connection));
                return None;
            }
            Ok(Some(Hello { version: PROTOCOL_VERSION, role })) if role != Role::Invoke => {
                unwatch(&connection, ops);
                return Some((role, connection));
            }
            Ok(Some(hello)) => log!("connection closed: {hello:?} has no place here"),
            Err(_) => {}
        }
        forget(Some(connection), ops);
        None
    }
}

/// Ends a connection.
pub fn forget(connection: Option<Connection>, ops: &mut EventOps<'_>) {
    if let Some(connection) = connection {
        unwatch(&connection, ops);
    }
}

fn unwatch(connection: &Connection, ops: &mut EventOps<'_>) {
    let _ = ops.remove(Events::with_data(connection.stream(), FIRST_STRANGER, EventSet::empty()));
}
