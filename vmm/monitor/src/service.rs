//! The main thread: accepts connections, answers control requests, keeps the deadline, waits for the end.
//!
//! It never blocks outside its event loop and never touches a running guest: it builds memory before the guest starts,
//! and stops the vCPU by [`Progress::stop`].

mod snapshots;

use crate::bare::Bare;
use crate::connection::{Connection, ConnectionError};
use crate::end::End;
use crate::link::Link;
use crate::load;
use crate::log;
use crate::machine::{Machine, MachineError};
use crate::orders::{Incoming, Order, Outgoing, Report};
use crate::paging::{PagerError, Paging};
use crate::progress::{Progress, StopCause, monotonic_ns};
use crate::snapshot::Image;
use crate::sys::userfault::Userfault;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::fd::{AsRawFd, OwnedFd};
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, LoadError, LoadSpec, PROTOCOL_VERSION, Role};

/// Connections that have not said Hello yet; the oldest goes when there are more.
const STRANGERS_MAX: usize = 8;

const LISTENER: u32 = 0;
const TIMER: u32 = 1;
const REPORTS: u32 = 2;
const FIRST_CONNECTION: u32 = 16;

/// The main thread's belongings.
pub struct Service {
    listener: UnixListener,
    vessel: Vessel,
    /// Where the memory of the snapshot goes that is being taken.
    snapshot: Option<OwnedFd>,
    orders: Outgoing<Order>,
    reports: Incoming<Report>,
    progress: Arc<Progress>,
    /// Every connection the main thread reads: strangers, and at most one control connection.
    connections: BTreeMap<u32, Connection>,
    control: Option<u32>,
    next_token: u32,
    load: Option<LoadTimes>,
    end: Option<End>,
    userfault: Option<Userfault>,
    /// Who brings this guest's memory.
    paging: Option<Paging>,
    /// Whether it is listened to.
    listens: bool,
    /// What this guest was brought back from.
    image: Option<Box<Image>>,
    /// It is to be brought back again.
    resets: bool,
}

/// What the process was started to be.
#[derive(Debug)]
pub enum Vessel {
    /// A guest program without a function: `Load` gives it one.
    Built(Box<Machine>),
    /// Nothing: `Restore` brings a guest back in it.
    Bare(Bare),
}

/// When a load arrived, and how long building took.
struct LoadTimes {
    arrived_ns: u64,
    build_us: u64,
}

impl Service {
    /// Over a listening socket and a zygote whose vCPU thread has the other ends; with a userfaultfd if its memory may be paged.
    pub fn new(
        listener: UnixListener,
        (vessel, userfault): (Vessel, Option<Userfault>),
        orders: Outgoing<Order>,
        reports: Incoming<Report>,
        progress: Arc<Progress>,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            vessel,
            snapshot: None,
            orders,
            reports,
            progress,
            connections: BTreeMap::new(),
            control: None,
            next_token: FIRST_CONNECTION,
            load: None,
            end: None,
            userfault,
            paging: None,
            listens: false,
            image: None,
            resets: false,
        })
    }

    /// The end, once it is there.
    pub fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let strangers = self.connections.keys().copied().filter(|token| Some(*token) != self.control);
        if let (Some(oldest), true) = (strangers.clone().next(), strangers.count() >= STRANGERS_MAX) {
            self.close(oldest, ops, "too many connections without a hello");
        }
        let token = self.next_token;
        self.next_token = token.checked_add(1).unwrap_or(FIRST_CONNECTION);
        match Connection::new(stream) {
            Ok(connection) => {
                if ops.add(Events::with_data(connection.stream(), token, EventSet::IN)).is_ok() {
                    self.connections.insert(token, connection);
                }
            }
            Err(error) => log!("connection refused: {error}"),
        }
    }

    fn close(&mut self, token: u32, ops: &mut EventOps<'_>, why: impl std::fmt::Display) {
        if let Some(connection) = self.connections.remove(&token) {
            let _ = ops.remove(Events::with_data(connection.stream(), token, EventSet::empty()));
            log!("connection {token} closed: {why}");
        }
        if self.control == Some(token) {
            self.control = None;
        }
    }

    fn connection_ready(&mut self, token: u32, set: EventSet, ops: &mut EventOps<'_>) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut result = Ok(());
        if set.contains(EventSet::OUT) {
            result = connection.flush();
        }
        if result.is_ok() && set.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            result = connection.receive();
        }
        // Messages that came with the closing of the connection count: Shutdown may be the last word.
        let handled = self.handle_messages(token, ops);
        if let Err(error) = result.and(handled) {
            self.close(token, ops, error);
        } else {
            self.watch(token, ops);
        }
        self.watch_pager(ops);
    }

    fn handle_messages(&mut self, token: u32, ops: &mut EventOps<'_>) -> Result<(), ConnectionError> {
        if self.control != Some(token) {
            let hello: Option<Hello> = self.connections.get_mut(&token).map_or(Ok(None), Connection::take)?;
            match hello {
                None => return Ok(()),
                Some(Hello { version, .. }) if version != PROTOCOL_VERSION => {
                    self.close(
                        token,
                        ops,
                        format_args!("protocol version {version}, not {PROTOCOL_VERSION}"),
                    );
                    return Ok(());
                }
                Some(Hello { role: Role::Invoke, .. }) => {
                    self.hand_to_vcpu(token, ops)?;
                    return Ok(());
                }
                Some(Hello { role: Role::Vsock { .. } | Role::VsockAccept { .. }, .. }) => {
                    self.close(token, ops, "this VMM runs Wasm functions, which have no streams");
                    return Ok(());
                }
                Some(Hello { role: Role::Control, .. }) => {
                    if let Some(old) = self.control {
                        self.close(old, ops, "replaced by a newer one");
                    }
                    self.control = Some(token);
                }
            }
        }
        while let Some(connection) = self.connections.get_mut(&token) {
            let Some(request) = connection.take()? else {
                break;
            };
            let descriptors = connection.take_descriptors();
            self.answer(&request, descriptors)?;
        }
        Ok(())
    }

    fn hand_to_vcpu(&mut self, token: u32, ops: &mut EventOps<'_>) -> Result<(), ConnectionError> {
        if let Some(connection) = self.connections.remove(&token) {
            let _ = ops.remove(Events::with_data(connection.stream(), token, EventSet::empty()));
            let (stream, inbox) = connection.into_parts();
            self.orders.send(Order::Link(Link::new(stream, inbox)?));
        }
        Ok(())
    }

    fn answer(&mut self, request: &ControlRequest, descriptors: Vec<OwnedFd>) -> Result<(), ConnectionError> {
        match request {
            ControlRequest::Status => self.reply(&ControlReply::Status(self.progress.status())),
            ControlRequest::Shutdown => {
                self.progress.stop(StopCause::Shutdown);
                self.orders.ring();
                self.reply(&ControlReply::Stopping)
            }
            ControlRequest::Load(spec) => self.begin(&spec.label, |service| service.build(spec, descriptors)),
            ControlRequest::Restore(spec) => {
                self.begin(&spec.label, |service| service.restore(spec, false, descriptors))
            }
            ControlRequest::RestorePaged(spec) => {
                self.begin(&spec.label, |service| service.restore(spec, true, descriptors))
            }
            ControlRequest::Snapshot => match self.begin_snapshot(descriptors) {
                Ok(()) => Ok(()),
                Err(reason) => self.reply(&ControlReply::NoSnapshot { reason }),
            },
            ControlRequest::Reset => match self.begin_reset() {
                Ok(()) => Ok(()),
                Err(why) => self.reply(&ControlReply::NotTold { why: why.into() }),
            },
            ControlRequest::LoadLinux(_)
            | ControlRequest::RestoreLinux(_)
            | ControlRequest::RestoreLinuxPaged(_) => {
                let reason = LoadError::Refused("this VMM runs Wasm functions, not Linux guests".into());
                self.reply(&ControlReply::LoadFailed { reason, log: Vec::new() })
            }
            ControlRequest::PowerButton
            | ControlRequest::NewGeneration { .. }
            | ControlRequest::SetBalloon { .. }
            | ControlRequest::Balloon
            | ControlRequest::SetMemory { .. }
            | ControlRequest::Memory
            | ControlRequest::Resume => self.reply(&ControlReply::NotTold { why: "a Wasm guest".into() }),
        }
    }

    /// Puts a guest in, one way or the other; once.
    fn begin(
        &mut self,
        label: &str,
        make: impl FnOnce(&mut Self) -> Result<Order, LoadError>,
    ) -> Result<(), ConnectionError> {
        let arrived_ns = monotonic_ns();
        if self.load.is_some() {
            let reason = LoadError::Refused("a function is loaded already".into());
            return self.reply(&ControlReply::LoadFailed { reason, log: Vec::new() });
        }
        self.load = Some(LoadTimes { arrived_ns, build_us: 0 });
        match make(self) {
            Ok(order) => {
                self.progress.set_label(label);
                let build_us = monotonic_ns().saturating_sub(arrived_ns) / 1000;
                self.load = Some(LoadTimes { arrived_ns, build_us });
                self.orders.send(order);
                Ok(())
            }
            Err(reason) => {
                log!("load failed: {reason:?}");
                self.end = Some(End::LoadFailed);
                self.reply(&ControlReply::LoadFailed { reason, log: Vec::new() })
            }
        }
    }

    fn build(&mut self, spec: &LoadSpec, descriptors: Vec<OwnedFd>) -> Result<Order, LoadError> {
        let artefacts = load::admit(spec, descriptors).map_err(LoadError::Refused)?;
        let Vessel::Built(machine) = &mut self.vessel else {
            return Err(LoadError::Refused("this VMM was started to restore a snapshot".into()));
        };
        let start = machine.load(spec, &artefacts).map_err(load_error)?;
        Ok(Order::Start(Box::new(start)))
    }

    fn report(&mut self, report: Report) -> Result<(), ConnectionError> {
        match report {
            Report::Loaded { at_ns, log } => {
                let times = self.load.as_ref();
                let (arrived_ns, build_us) =
                    times.map_or((at_ns, 0), |times| (times.arrived_ns, times.build_us));
                let init_us = at_ns.saturating_sub(arrived_ns) / 1000;
                self.reply(&ControlReply::Loaded { init_us, build_us, log })
            }
            Report::LoadFailed { reason, log } => self.reply(&ControlReply::LoadFailed { reason, log }),
            Report::Held(held) => {
                let reply = self.end_snapshot(held);
                self.reply(&reply)
            }
            Report::Forgotten => {
                self.reset();
                Ok(())
            }
            Report::Ended(end) => {
                self.end = Some(end);
                Ok(())
            }
        }
    }

    /// Answers on the control connection there is now; without one the answer is lost, and `Status` tells the rest.
    fn reply(&mut self, reply: &ControlReply) -> Result<(), ConnectionError> {
        let connection = self.control.and_then(|token| self.connections.get_mut(&token));
        connection.map_or(Ok(()), |connection| connection.send(reply))
    }

    /// Waits for what the connection needs next.
    fn watch(&self, token: u32, ops: &mut EventOps<'_>) {
        if let Some(connection) = self.connections.get(&token) {
            let out = if connection.wants_to_write() { EventSet::OUT } else { EventSet::empty() };
            let _ = ops.modify(Events::with_data(connection.stream(), token, EventSet::IN | out));
        }
    }

    fn reports_ready(&mut self, ops: &mut EventOps<'_>) {
        while let Some(report) = self.reports.next() {
            if let (Err(error), Some(token)) = (self.report(report), self.control) {
                self.close(token, ops, error);
            }
        }
        if let Some(token) = self.control {
            self.watch(token, ops);
        }
    }

    /// Gives the peer a last chance to take what is waiting for it.
    pub fn finish(&mut self, patience_ms: u64) {
        let give_up = monotonic_ns() + patience_ms * 1_000_000;
        let Some(connection) = self.control.and_then(|token| self.connections.get_mut(&token)) else {
            return;
        };
        while connection.wants_to_write() && monotonic_ns() < give_up {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = poll(&mut [PollFd::new(connection.stream(), PollFlags::OUT)], Some(&wait));
            if connection.flush().is_err() {
                return;
            }
        }
    }

    /// Whether Shutdown was asked for and the vCPU thread has not come to its end yet.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.progress.stop_cause().is_some()
    }
}

fn load_error(error: MachineError) -> LoadError {
    match error {
        MachineError::Plan(_)
        | MachineError::Refused(_)
        | MachineError::Pager(PagerError::NotStartedForIt | PagerError::Tell(_)) => {
            LoadError::Refused(error.to_string())
        }
        MachineError::Pager(PagerError::Gone(_)) => LoadError::Pager(error.to_string()),
        other => LoadError::Host(format!("{:#}", anyhow::Error::from(other))),
    }
}

impl MutEventSubscriber for Service {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let sources = [
            (self.listener.as_raw_fd(), LISTENER),
            (self.progress.timer().as_raw_fd(), TIMER),
            (self.reports.bell().as_raw_fd(), REPORTS),
        ];
        for (fd, token) in sources {
            if let Err(error) = ops.add(Events::with_data_raw(fd, token, EventSet::IN)) {
                self.end = Some(End::Host(anyhow::anyhow!("cannot watch descriptor {fd}: {error:?}")));
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            TIMER => self.progress.timer_fired(),
            REPORTS => self.reports_ready(ops),
            snapshots::PAGER => self.pager_ready(),
            token => self.connection_ready(token, events.event_set(), ops),
        }
    }
}
