//! The network thread: devices whose other ends are sockets. Nothing here ever waits but for the next event.
//!
//! It is apart from the worker, so that a slow disk delays no stream.

use super::virtio::vsock::{Happened, Token, Vsock};
use super::virtio::{Device, Step};
use crate::log;
use crate::orders::Incoming;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The bell of orders; devices' doorbells come after it, sockets from [`FIRST_SOCKET`] on.
const ORDERS: Token = 0;
const FIRST_SOCKET: Token = 1 << 32;
/// Steps for one event, before others have their turn.
const TURN: usize = 256;
const EVENTS_MAX: usize = 64;

/// Main thread to network thread.
#[derive(Debug)]
pub enum NetworkOrder {
    /// The guest's socket device. Comes once, before the others.
    Vsock(Arc<Device>, Box<Vsock>),
    /// A stream to a port of the guest.
    Connect {
        /// Which.
        port: u32,
        /// From here.
        stream: UnixStream,
    },
    /// The guest's next stream to a port of the host.
    Park {
        /// Which.
        port: u32,
        /// To here.
        stream: UnixStream,
    },
}

/// The thread's belongings.
#[derive(Debug)]
pub struct Network {
    epoll: Epoll,
    orders: Incoming<NetworkOrder>,
    vsock: Option<(Arc<Device>, Box<Vsock>)>,
    next_socket: Token,
}

impl Network {
    /// Makes what the thread itself may no longer make once it is narrowed.
    pub fn new(orders: Incoming<NetworkOrder>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, ORDERS);
        epoll.ctl(ControlOperation::Add, orders.bell().as_raw_fd(), event)?;
        Ok(Self { epoll, orders, vsock: None, next_socket: FIRST_SOCKET })
    }

    /// Works until the process ends, or the event loop fails.
    #[must_use]
    pub fn work(mut self) -> anyhow::Error {
        let mut events = vec![EpollEvent::default(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return anyhow::Error::new(error).context("network thread's event loop"),
            };
            for event in events.iter().take(count) {
                self.handle(event.event_set(), event.data());
            }
            self.pump();
        }
    }

    fn handle(&mut self, set: EventSet, token: Token) {
        if token == ORDERS {
            while let Some(order) = self.orders.next() {
                self.obey(order);
            }
        } else if let Some((device, vsock)) = &mut self.vsock {
            if token >= FIRST_SOCKET {
                vsock.happened(
                    token,
                    Happened {
                        readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                        writable: set.contains(EventSet::OUT),
                        hung_up: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
                    },
                );
            } else if let Some(bell) =
                usize::try_from(token - 1).ok().and_then(|queue| device.doorbells().get(queue))
            {
                let _ = bell.read();
            }
        }
    }

    fn obey(&mut self, order: NetworkOrder) {
        match order {
            NetworkOrder::Vsock(device, vsock) => {
                for (token, bell) in (ORDERS + 1..).zip(device.doorbells()) {
                    self.watch(bell, token, EventSet::IN);
                }
                self.vsock = Some((device, vsock));
            }
            NetworkOrder::Connect { port, stream } => {
                let token = self.admit(&stream);
                if let Some((_, vsock)) = &mut self.vsock {
                    vsock.connect(token, port, stream);
                }
            }
            NetworkOrder::Park { port, stream } => {
                let token = self.admit(&stream);
                if let Some((_, vsock)) = &mut self.vsock {
                    vsock.park(token, port, stream);
                }
            }
        }
    }

    /// Watches a new socket. Closing it ends that.
    fn admit(&mut self, stream: &UnixStream) -> Token {
        let token = self.next_socket;
        self.next_socket += 1;
        let both = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP;
        self.watch(stream, token, both | EventSet::EDGE_TRIGGERED);
        token
    }

    fn watch(&self, source: &impl AsRawFd, token: Token, set: EventSet) {
        let event = EpollEvent::new(set, token);
        if let Err(error) = self.epoll.ctl(ControlOperation::Add, source.as_raw_fd(), event) {
            log!("the network thread cannot watch a descriptor: {error}");
        }
    }

    fn pump(&mut self) {
        let Some((device, vsock)) = &mut self.vsock else { return };
        for _ in 0..TURN {
            if device.step(|queues, ram| vsock.step(queues, ram)) == Step::Idle {
                return;
            }
        }
        device.ring();
    }
}
