//! The main thread of a Linux machine: the control socket, the console's lines, the end.

mod snapshots;

use super::console::Console;
use super::door::{Door, FIRST_STRANGER, forget};
use super::events::Tellings;
use super::load;
use super::machine::{Kept, LinuxError, Loaded, Machine};
use super::network::{Front, NetworkOrder};
use super::paged::Pages;
use super::rest::Rest;
use super::vcpu::{First, Start};
use super::virtio::{balloon, mem};
use super::worker::Work;
use crate::connection::{Connection, ConnectionError};
use crate::end::End;
use crate::log;
use crate::orders::{Incoming, Outgoing};
use crate::paging::PagerError;
use crate::progress::monotonic_ns;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::fd::{AsRawFd, OwnedFd};
use std::fmt::Display;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use warren_boot::OutOfRange;
use warren_vmm_protocol::linux::{LinuxSpec, VsockRefusal, VsockReply};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, Role, Status, VmState};

const LISTENER: u32 = 0;
const LINES: u32 = 1;
const ENDS: u32 = 2;
const CONTROL: u32 = 3;

/// The ends of every queue that the main thread holds.
#[derive(Debug)]
pub struct Queues {
    /// One a vCPU, the first first.
    pub starts: Vec<Sender<Start>>,
    /// The worker's.
    pub work: Outgoing<Vec<Work>>,
    /// One a thread for disks.
    pub disks: Vec<Outgoing<Vec<Work>>>,
    /// The network thread's.
    pub network: Outgoing<NetworkOrder>,
    /// How vCPU threads end.
    pub ends: Incoming<End>,
    /// How they come to rest.
    pub rest: Arc<Rest>,
    /// Of a machine whose memory a pager may bring.
    pub pages: Option<Pages>,
}

/// The main thread's belongings.
#[derive(Debug)]
pub struct Service {
    door: Door,
    queues: Queues,
    lines: Incoming<()>,
    /// For the console, until there is one.
    bell: Option<Outgoing<()>>,
    /// Until a guest is loaded.
    machine: Option<Machine>,
    exits: Arc<AtomicU64>,
    running: Option<Running>,
    /// Said Hello for it last.
    control: Option<Connection>,
    end: Option<End>,
}

/// A guest that was started. Dropping it would take VM and memory away.
#[derive(Debug)]
struct Running {
    label: String,
    console: Arc<Console>,
    has_vsock: bool,
    events: Tellings,
    balloon: Option<balloon::Handle>,
    memory: Option<mem::Handle>,
    kept: Kept,
}

impl Service {
    /// Over a listening socket and a machine whose threads wait.
    pub fn new(listener: UnixListener, machine: Machine, queues: Queues) -> std::io::Result<Self> {
        let door = Door::new(listener)?;
        let (bell, lines) = crate::orders::queue()?;
        let exits = machine.exits();
        Ok(Self {
            door,
            queues,
            lines,
            bell: Some(bell),
            machine: Some(machine),
            exits,
            running: None,
            control: None,
            end: None,
        })
    }

    /// The end, once it is there.
    pub fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }

    /// The last words: the console's lines, the connection's replies.
    pub fn finish(&mut self, end: &End) {
        self.show_lines();
        let quiet = matches!(end, End::Shutdown | End::PoweredOff | End::LoadFailed);
        if let (Some(running), false) = (&self.running, quiet) {
            for line in running.console.last_lines() {
                log!("last: {line}");
            }
        }
        log!("{} exits", self.exits.load(Ordering::Relaxed));
        if let Some(control) = &mut self.control {
            let _ = control.flush();
        }
    }

    fn show_lines(&self) {
        if let Some(running) = &self.running {
            running.console.pass_on(|line| log!("console: {line}"));
        }
    }

    /// Somebody said what for.
    fn admit(&mut self, role: Role, connection: Connection, ops: &mut EventOps<'_>) {
        match role {
            Role::Vsock { port } => {
                self.pass_on(connection, |stream| NetworkOrder::Connect { port, stream });
            }
            Role::VsockAccept { port } => {
                self.pass_on(connection, |stream| NetworkOrder::Park { port, stream });
            }
            // The door lets nobody else in.
            Role::Control | Role::Invoke => {
                forget(self.control.take(), ops);
                let _ = ops.add(Events::with_data(connection.stream(), CONTROL, EventSet::IN));
                self.control = Some(connection);
                // What came behind the Hello.
                self.handle_messages(ops, Ok(()));
            }
        }
    }

    /// A stream is the network thread's from here on.
    fn pass_on(&mut self, mut connection: Connection, order: impl FnOnce(UnixStream) -> NetworkOrder) {
        let why = if self.running.as_ref().is_none_or(|running| !running.has_vsock) {
            VsockRefusal::NoDevice
        } else if connection.has_unread() {
            VsockRefusal::TooEarly
        } else {
            let (stream, _) = connection.into_parts();
            self.queues.network.send(order(stream));
            return;
        };
        let _ = connection.send(&VsockReply::Refused { why });
    }

    fn control_ready(&mut self, set: EventSet, ops: &mut EventOps<'_>) {
        let Some(connection) = &mut self.control else { return };
        let mut result = Ok(());
        if set.contains(EventSet::OUT) {
            result = connection.flush();
        }
        if result.is_ok() && set.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            result = connection.receive();
        }
        self.handle_messages(ops, result);
    }

    /// Messages that came with the closing of the connection count: Shutdown may be the last word.
    fn handle_messages(&mut self, ops: &mut EventOps<'_>, received: Result<(), ConnectionError>) {
        let handled = self.answer_all();
        let Some(connection) = &self.control else { return };
        match received.and(handled) {
            Ok(()) => {
                let out = if connection.wants_to_write() { EventSet::OUT } else { EventSet::empty() };
                let _ = ops.modify(Events::with_data(connection.stream(), CONTROL, EventSet::IN | out));
            }
            Err(error) => {
                log!("connection closed: {error}");
                forget(self.control.take(), ops);
            }
        }
    }

    fn answer_all(&mut self) -> Result<(), ConnectionError> {
        while let Some(connection) = &mut self.control {
            let Some(request) = connection.take()? else { break };
            let descriptors = connection.take_descriptors();
            let reply = self.answer(request, descriptors);
            if let Some(connection) = &mut self.control {
                connection.send(&reply)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: ControlRequest, descriptors: Vec<OwnedFd>) -> ControlReply {
        match request {
            ControlRequest::Status => ControlReply::Status(self.status()),
            ControlRequest::Shutdown => {
                self.end = Some(End::Shutdown);
                ControlReply::Stopping
            }
            ControlRequest::Load(_) | ControlRequest::Restore(_) | ControlRequest::RestorePaged(_) => {
                refused("this VMM runs Linux guests, not Wasm functions")
            }
            ControlRequest::Snapshot => self.snapshot(descriptors),
            ControlRequest::Resume => self.resume(),
            ControlRequest::Reset => self.reset(),
            ControlRequest::LoadLinux(spec) => {
                self.begin(|service, machine, bell| service.build(machine, bell, &spec, descriptors))
            }
            ControlRequest::RestoreLinux(spec) => self
                .begin(|service, machine, bell| service.restore(machine, bell, (&spec, false), descriptors)),
            ControlRequest::RestoreLinuxPaged(spec) => self
                .begin(|service, machine, bell| service.restore(machine, bell, (&spec, true), descriptors)),
            ControlRequest::PowerButton => self.tell(|events| {
                events.press_power_button();
                Ok(())
            }),
            ControlRequest::NewGeneration { id } => self.tell(|events| events.begin_generation(id)),
            ControlRequest::SetBalloon { target_mib } => {
                self.ask(|guest| guest.balloon.as_ref(), |balloon| told(balloon.set_target(target_mib)))
            }
            ControlRequest::Balloon => {
                self.ask(|guest| guest.balloon.as_ref(), |balloon| ControlReply::Balloon(balloon.status()))
            }
            ControlRequest::SetMemory { plugged_mib } => {
                self.ask(|guest| guest.memory.as_ref(), |memory| told(memory.want(plugged_mib)))
            }
            ControlRequest::Memory => {
                self.ask(|guest| guest.memory.as_ref(), |memory| ControlReply::Memory(memory.status()))
            }
        }
    }

    /// Tells a running guest something.
    fn tell(&mut self, what: impl FnOnce(&mut Tellings) -> Result<(), OutOfRange>) -> ControlReply {
        let Some(running) = &mut self.running else { return not_told(NO_GUEST) };
        told(what(&mut running.events))
    }

    /// Asks a device of a running guest.
    fn ask<D>(
        &self,
        device: impl FnOnce(&Running) -> Option<&D>,
        what: impl FnOnce(&D) -> ControlReply,
    ) -> ControlReply {
        match self.running.as_ref().map(device) {
            None => not_told(NO_GUEST),
            Some(None) => not_told("the guest has no such device"),
            Some(Some(device)) => what(device),
        }
    }

    fn status(&self) -> Status {
        Status {
            state: if self.running.is_some() { VmState::Busy } else { VmState::Empty },
            label: self.running.as_ref().map(|running| running.label.clone()).unwrap_or_default(),
            invocations: 0,
            running: None,
            exits: self.exits.load(Ordering::Relaxed),
        }
    }

    /// Puts a guest in, one way or the other; once.
    fn begin(
        &mut self,
        make: impl FnOnce(&mut Self, Machine, Outgoing<()>) -> Result<(), LoadError>,
    ) -> ControlReply {
        let arrived_ns = monotonic_ns();
        let (Some(machine), Some(bell)) = (self.machine.take(), self.bell.take()) else {
            return refused("a guest is loaded already");
        };
        match make(self, machine, bell) {
            Ok(()) => {
                let build_us = monotonic_ns().saturating_sub(arrived_ns) / 1000;
                log!("guest started; built in {build_us} us");
                ControlReply::Started { build_us }
            }
            Err(reason) => {
                log!("load failed: {reason:?}");
                self.end = Some(End::LoadFailed);
                ControlReply::LoadFailed { reason, log: Vec::new() }
            }
        }
    }

    fn build(
        &mut self,
        machine: Machine,
        bell: Outgoing<()>,
        spec: &LinuxSpec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), LoadError> {
        let admitted = load::admit(spec, descriptors, &machine.room()).map_err(LoadError::Refused)?;
        let loaded = machine.load(admitted, bell).map_err(load_error)?;
        let start = loaded.start.clone();
        self.hand_out(loaded, &spec.label);
        self.start(&start, []);
        Ok(())
    }

    /// Starts vCPUs: the first with what `start` says, the others with what follows.
    fn start(&self, start: &Start, others: impl IntoIterator<Item = First>) {
        let firsts = std::iter::once(start.first.clone()).chain(others).chain(std::iter::repeat(First::Wait));
        for (queue, first) in self.queues.starts.iter().zip(firsts) {
            // A thread that is gone has reported its end.
            let _ = queue.send(Start { first, ..start.clone() });
        }
    }

    /// Gives the other threads what is theirs.
    fn hand_out(&mut self, loaded: Loaded, label: &str) {
        self.queues.work.send(loaded.work);
        // As many threads as disks at least: that was checked when they were admitted.
        for (thread, disk) in self.queues.disks.iter().zip(loaded.disks) {
            thread.send(vec![disk]);
        }
        let has_vsock = loaded.network.iter().any(|(_, front)| matches!(front, Front::Vsock(_)));
        self.queues.network.send(NetworkOrder::Devices(loaded.network));
        self.running = Some(Running {
            label: label.into(),
            console: loaded.console,
            has_vsock,
            events: loaded.events,
            balloon: loaded.balloon,
            memory: loaded.memory,
            kept: loaded.kept,
        });
    }
}

fn load_error(error: LinuxError) -> LoadError {
    match error {
        LinuxError::Read { .. }
        | LinuxError::Template { .. }
        | LinuxError::Device { .. }
        | LinuxError::Pager(PagerError::NotStartedForIt | PagerError::Tell(_))
        | LinuxError::Other(_) => LoadError::Refused(error.to_string()),
        LinuxError::Pager(PagerError::Gone(_)) => LoadError::Pager(error.to_string()),
        other => LoadError::Host(format!("{:#}", anyhow::Error::from(other))),
    }
}

const NO_GUEST: &str = "there is no guest yet";

fn told(result: Result<(), impl Display>) -> ControlReply {
    result.map_or_else(not_told, |()| ControlReply::Told)
}

fn not_told(why: impl Display) -> ControlReply {
    ControlReply::NotTold { why: format!("{why}") }
}

fn refused(why: &str) -> ControlReply {
    ControlReply::LoadFailed { reason: LoadError::Refused(why.into()), log: Vec::new() }
}

impl MutEventSubscriber for Service {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let sources = [
            (self.door.bell(), LISTENER),
            (self.lines.bell().as_raw_fd(), LINES),
            (self.queues.ends.bell().as_raw_fd(), ENDS),
        ];
        for (fd, token) in sources {
            if let Err(error) = ops.add(Events::with_data_raw(fd, token, EventSet::IN)) {
                self.end = Some(End::Host(anyhow::anyhow!("cannot watch descriptor {fd}: {error:?}")));
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.door.accept(ops),
            stranger @ FIRST_STRANGER.. => {
                if let Some((role, connection)) = self.door.greet(stranger, ops) {
                    self.admit(role, connection, ops);
                }
            }
            LINES => {
                while self.lines.next().is_some() {}
                self.show_lines();
            }
            // The first end is the guest's; other vCPUs only follow.
            ENDS => self.end = self.end.take().or(self.queues.ends.next()),
            _ => self.control_ready(events.event_set(), ops),
        }
    }
}
