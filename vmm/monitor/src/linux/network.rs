//! The network thread: devices whose other ends are sockets and tap devices. Nothing here ever waits but for the next
//! event, or until a limit lets go on.
//!
//! It is apart from the worker, so that a slow disk delays no stream.

use super::virtio::net::Net;
use super::virtio::vsock::{Happened, Token, Vsock};
use super::virtio::{Device, Step};
use crate::log;
use crate::orders::Incoming;
use crate::progress::{milliseconds, monotonic_ns};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The bell of orders; devices' doorbells and taps come after it, sockets from [`FIRST_SOCKET`] on.
const ORDERS: Token = 0;
const FIRST_SOCKET: Token = 1 << 32;
/// Steps of one device, before others have their turn.
const TURN: usize = 256;
const EVENTS_MAX: usize = 64;

/// Main thread to network thread.
#[derive(Debug)]
pub enum NetworkOrder {
    /// The guest's devices. Comes once, before the others.
    Devices(Vec<(Arc<Device>, Front)>),
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

/// What is done with a device's queues.
#[derive(Debug)]
pub enum Front {
    /// Frames.
    Net(Box<Net>),
    /// Streams.
    Vsock(Box<Vsock>),
}

/// A device with its front half.
#[derive(Debug)]
struct Served {
    device: Arc<Device>,
    front: Front,
    /// Something happened that it has not seen.
    due: bool,
}

/// The thread's belongings.
#[derive(Debug)]
pub struct Network {
    epoll: Epoll,
    orders: Incoming<NetworkOrder>,
    served: Vec<Served>,
    /// By token, from 1: the device, and which of its queues, or its tap.
    sources: Vec<(usize, Option<usize>)>,
    next_socket: Token,
}

impl Network {
    /// Makes what the thread itself may no longer make once it is narrowed.
    pub fn new(orders: Incoming<NetworkOrder>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, ORDERS);
        epoll.ctl(ControlOperation::Add, orders.bell().as_raw_fd(), event)?;
        Ok(Self { epoll, orders, served: Vec::new(), sources: Vec::new(), next_socket: FIRST_SOCKET })
    }

    /// Works until the process ends, or the event loop fails.
    #[must_use]
    pub fn work(mut self) -> anyhow::Error {
        let mut events = vec![EpollEvent::default(); EVENTS_MAX];
        loop {
            let patience = self.patience_ms();
            let count = match self.epoll.wait(patience, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return anyhow::Error::new(error).context("network thread's event loop"),
            };
            for event in events.iter().take(count) {
                self.handle(event.event_set(), event.data());
            }
            for served in &mut self.served {
                served.pump();
            }
        }
    }

    /// How long nothing may happen: until the first limit lets go on.
    fn patience_ms(&mut self) -> i32 {
        let now = monotonic_ns();
        let mut first = None;
        for served in &mut self.served {
            let Some(wake) = served.wake_ns() else { continue };
            served.due |= wake <= now;
            first = Some(first.map_or(wake, |first: u64| first.min(wake)));
        }
        first.map_or(-1, |wake| milliseconds(wake.saturating_sub(now)))
    }

    fn handle(&mut self, set: EventSet, token: Token) {
        if token == ORDERS {
            while let Some(order) = self.orders.next() {
                self.obey(order);
            }
        } else if token >= FIRST_SOCKET {
            let what = Happened {
                readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                writable: set.contains(EventSet::OUT),
                hung_up: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
            };
            self.with_vsock(|vsock| vsock.happened(token, what));
        } else {
            let source = usize::try_from(token - 1).ok().and_then(|at| self.sources.get(at));
            let Some((served, queue)) =
                source.and_then(|(at, queue)| Some((self.served.get_mut(*at)?, queue)))
            else {
                return;
            };
            served.due = true;
            match (queue, &mut served.front) {
                (Some(queue), _) => {
                    if let Some(bell) = served.device.doorbells().get(*queue) {
                        let _ = bell.read();
                    }
                }
                (None, Front::Net(net)) => net.readable(),
                (None, Front::Vsock(_)) => {}
            }
        }
    }

    fn obey(&mut self, order: NetworkOrder) {
        match order {
            NetworkOrder::Devices(devices) => {
                for (device, front) in devices {
                    self.serve(device, front);
                }
            }
            NetworkOrder::Connect { port, stream } => {
                let token = self.admit(&stream);
                self.with_vsock(|vsock| vsock.connect(token, port, stream));
            }
            NetworkOrder::Park { port, stream } => {
                let token = self.admit(&stream);
                self.with_vsock(|vsock| vsock.park(token, port, stream));
            }
        }
    }

    fn serve(&mut self, device: Arc<Device>, front: Front) {
        let at = self.served.len();
        for (queue, bell) in device.doorbells().iter().enumerate() {
            self.watch_source(bell.as_raw_fd(), (at, Some(queue)), EventSet::IN);
        }
        if let Front::Net(net) = &front {
            self.watch_source(net.tap(), (at, None), EventSet::IN | EventSet::EDGE_TRIGGERED);
        }
        self.served.push(Served { device, front, due: true });
    }

    fn with_vsock(&mut self, act: impl FnOnce(&mut Vsock)) {
        for served in &mut self.served {
            if let Front::Vsock(vsock) = &mut served.front {
                served.due = true;
                return act(vsock);
            }
        }
    }

    /// Watches a new socket. Closing it ends that.
    fn admit(&mut self, stream: &UnixStream) -> Token {
        let token = self.next_socket;
        self.next_socket += 1;
        let both = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP;
        self.watch(stream.as_raw_fd(), token, both | EventSet::EDGE_TRIGGERED);
        token
    }

    fn watch_source(&mut self, fd: RawFd, source: (usize, Option<usize>), set: EventSet) {
        self.sources.push(source);
        self.watch(fd, self.sources.len() as Token, set);
    }

    fn watch(&self, fd: RawFd, token: Token, set: EventSet) {
        if let Err(error) = self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(set, token)) {
            log!("the network thread cannot watch a descriptor: {error}");
        }
    }
}

impl Served {
    fn wake_ns(&self) -> Option<u64> {
        match &self.front {
            Front::Net(net) => net.wake_ns(),
            Front::Vsock(_) => None,
        }
    }

    fn pump(&mut self) {
        let front = &mut self.front;
        self.device.begin_again_if_asked(|| {
            match front {
                Front::Net(net) => net.begin_again(),
                Front::Vsock(vsock) => vsock.interrupt(),
            }
            Ok(())
        });
        if !std::mem::take(&mut self.due) {
            return;
        }
        for _ in 0..TURN {
            let step = self.device.step(|queues, ram| match &mut self.front {
                Front::Net(net) => net.step(queues, ram),
                Front::Vsock(vsock) => vsock.step(queues, ram),
            });
            if step == Step::Idle {
                return;
            }
        }
        self.device.ring();
    }
}
