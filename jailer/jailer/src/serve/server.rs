//! The loop.

use super::connection::{BUFFER, Connection, Phase, Received};
use crate::jails::{Ending, Jails, Kill, Spawned};
use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        poll,
    },
    io::Errno,
    net::{SocketFlags, accept_with, sockopt},
};
use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{JAILER_PROTOCOL_VERSION, LIST_PAGE, Reply, Request, Spawn},
};

/// Most connections at a time: the agent needs one or two.
const MAX_CONNECTIONS: usize = 64;

/// How soon a cgroup that was still busy is tried again.
const SWEEP_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long nothing is asked before a slot is made ready: who was just answered, and what was just started, come first.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000 };

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Listener,
    Signals,
    Connection(u32),
    /// The jail of a slot, or the child that waits in it.
    Jail(u32),
}

impl Source {
    const fn to_data(self) -> EventData {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Connection(id) => (2, id),
            Self::Jail(slot) => (3, slot),
        };
        EventData::new_u64((kind << 32) | number as u64)
    }

    fn from_data(data: EventData) -> Self {
        let number = u32::try_from(data.u64() & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        match data.u64() >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection(number),
            _ => Self::Jail(number),
        }
    }
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything is to end.
    Stop,
    /// The jails are left to the next jailer.
    HandOver,
}

/// Who is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    /// The one user.
    pub(crate) uid: u32,
    /// Whether one process of that user holds the jailer for as long as it is connected.
    pub(crate) one_process: bool,
}

/// The serving jailer.
pub(crate) struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    signals: OwnedFd,
    peers: Peers,
    connections: HashMap<u32, Connection>,
    next_connection: u32,
    jails: Jails,
    buffer: Vec<u8>,
}

impl Server {
    pub(crate) fn new(
        listener: OwnedFd,
        signals: OwnedFd,
        peers: Peers,
        jails: Jails,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, Source::Listener.to_data(), EventFlags::IN)?;
        epoll::add(&epoll, &signals, Source::Signals.to_data(), EventFlags::IN)?;
        for jail in jails.alive() {
            epoll::add(&epoll, &jail.pidfd, Source::Jail(jail.info.slot).to_data(), EventFlags::IN)?;
        }
        let buffer = vec![0; BUFFER];
        Ok(Self {
            epoll,
            listener,
            signals,
            peers,
            connections: HashMap::new(),
            next_connection: 0,
            jails,
            buffer,
        })
    }

    /// Runs until a signal ends it.
    pub(crate) fn run(&mut self) -> Result<End, Errno> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            if self.jails.wants_ready() && self.is_idle() {
                self.make_ready();
                continue;
            }
            let limit = self.jails.is_dirty().then_some(&SWEEP_AGAIN);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if self.jails.is_dirty() {
                self.jails.sweep();
            }
            // By value: handling one event may add or remove sources, never change this list. An event of a source
            // removed meanwhile finds nothing; connection numbers are not used again, slots only after a later wait.
            for event in &events {
                match Source::from_data(event.data) {
                    Source::Listener => self.accept(),
                    Source::Signals => {
                        if let Some(end) = self.read_signal() {
                            return Ok(end);
                        }
                    }
                    Source::Connection(id) => self.read_connection(id),
                    Source::Jail(slot) => self.on_death(slot),
                }
            }
        }
    }

    /// Does what the end asks for.
    pub(crate) fn finish(mut self, end: End) {
        match end {
            End::Stop => self.jails.end_all(),
            End::HandOver => self.jails.leave(),
        }
    }

    fn accept(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
            return;
        };
        // The socket's mode keeps others out already; this holds even if someone changes it.
        let Ok(peer) = sockopt::socket_peercred(&socket) else { return };
        if peer.uid.as_raw() != self.peers.uid || self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let pid = peer.pid.as_raw_nonzero().get();
        let id = self.next_connection;
        self.next_connection = self.next_connection.wrapping_add(1);
        if epoll::add(&self.epoll, &socket, Source::Connection(id).to_data(), EventFlags::IN).is_ok() {
            self.connections.insert(id, Connection { socket, pid, phase: Phase::New });
        }
    }

    fn is_idle(&self) -> bool {
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&IDLE)) == Ok(0)
    }

    fn make_ready(&mut self) {
        if let Some((slot, pidfd)) = self.jails.make_ready()
            && epoll::add(&self.epoll, pidfd, Source::Jail(slot).to_data(), EventFlags::IN).is_err()
        {
            self.jails.lose_ready(slot);
        }
    }

    fn read_signal(&self) -> Option<End> {
        // signalfd_siginfo begins with the signal's number; signalfd(2).
        let mut info = [0_u8; 128];
        let read = rustix::io::read(&self.signals, &mut info).ok()?;
        let number = info.get(..read)?.first_chunk().copied().map(u32::from_ne_bytes)?;
        let is_hangup = i32::try_from(number) == Ok(libc::SIGHUP);
        Some(if is_hangup { End::HandOver } else { End::Stop })
    }

    fn read_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get(&id) else { return };
        // A peer that hangs up while a Kill of its own is under way: the Kill goes on, the answer has no reader.
        if matches!(connection.phase, Phase::Waiting(_)) {
            return self.close(id);
        }
        match connection.receive(&mut self.buffer) {
            Received::Nothing => {}
            Received::Closed => self.close(id),
            Received::Bad(error) => {
                connection.send(&refusal("packet", error.to_string(), false), &[]);
                self.close(id);
            }
            Received::Request(request, passed) => {
                if !self.answer(id, request, &passed) {
                    self.close(id);
                }
            }
        }
    }

    /// Answers one request; `false` if the connection is to be closed.
    fn answer(&mut self, id: u32, request: Request, passed: &[OwnedFd]) -> bool {
        let holder = self.other_process(id);
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        match (&connection.phase, request) {
            (Phase::New, Request::Hello { version: JAILER_PROTOCOL_VERSION })
                if let Some(holder) = holder =>
            {
                let message = format!("another agent (pid {holder}) holds this jailer");
                connection.send(&refusal("hello", message, true), &[]);
                false
            }
            (Phase::New, Request::Hello { version: JAILER_PROTOCOL_VERSION }) => {
                connection.phase = Phase::Open;
                let (version, guest) = (JAILER_PROTOCOL_VERSION, self.jails.guest_digest());
                connection.send(&Reply::Hello { version, guest }, &[])
            }
            (Phase::New, Request::Hello { version }) => {
                let message = format!("version {version} is not {JAILER_PROTOCOL_VERSION}");
                connection.send(&refusal("hello", message, false), &[]);
                false
            }
            (Phase::New | Phase::Waiting(_), _) | (_, Request::Hello { .. }) => {
                connection.send(&refusal("hello", "Hello comes first, and once".to_owned(), false), &[]);
                false
            }
            (Phase::Open, Request::Spawn(spawn)) => self.spawn(id, &spawn, passed),
            (Phase::Open, Request::Kill { name }) => self.kill(id, name),
            (Phase::Open, Request::Network) => {
                let network = self.jails.network();
                connection.send(&Reply::Network(network), &[])
            }
            (Phase::Open, Request::Log { name }) => match self.jails.log(&name) {
                Ok(log) => connection.send(&Reply::Log, &[log.as_fd()]),
                Err(errno) => connection.send(&refusal("log", errno.to_string(), false), &[]),
            },
            (Phase::Open, Request::List) => self.list(id, None),
            (Phase::Open, Request::ListAfter { name }) => self.list(id, Some(&name)),
        }
    }

    /// The process that holds the jailer, if only one may and it is another than this connection's.
    fn other_process(&self, id: u32) -> Option<i32> {
        let own = self.connections.get(&id).filter(|_| self.peers.one_process)?.pid;
        // One that has hung up holds nothing, also while the news of it still waits to be read.
        let holds =
            |other: &&Connection| other.phase != Phase::New && other.pid != own && !other.has_hung_up();
        self.connections.values().find(holds).map(|other| other.pid)
    }

    fn spawn(&mut self, id: u32, spawn: &Spawn, passed: &[OwnedFd]) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        match self.jails.spawn(spawn, passed) {
            Ok(Spawned { jail, tap }) => {
                let source = Source::Jail(jail.info.slot).to_data();
                // One that was ready before is watched already. Unwatched it could never be buried: it ends here, and the next
                // jailer clears it away.
                let watched = epoll::add(&self.epoll, &jail.pidfd, source, EventFlags::IN);
                if let Err(errno) = watched
                    && errno != Errno::EXIST
                {
                    self.jails.kill(&spawn.name);
                    return connection.send(&refusal("watch", errno.to_string(), true), &[]);
                }
                let passed: Vec<_> =
                    [Some(&jail.pidfd), tap.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
                let told = connection.send(&Reply::Spawned(jail.info.clone()), &passed);
                if !told {
                    // Whoever asked has died meanwhile, and nobody else knows of it.
                    self.jails.kill(&spawn.name);
                }
                told
            }
            Err(refused) => {
                let message = describe(&refused);
                connection.send(&refusal(refused.step(), message, refused.is_retryable()), &[])
            }
        }
    }

    fn kill(&mut self, id: u32, name: SandboxName) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        match self.jails.kill(&name) {
            Kill::Gone(ending) => connection.send(&killed(name, ending), &[]),
            Kill::Dying => {
                connection.phase = Phase::Waiting(name);
                // Nothing is read meanwhile; a hang-up is still reported.
                let source = Source::Connection(id).to_data();
                epoll::modify(&self.epoll, &connection.socket, source, EventFlags::empty()).is_ok()
            }
        }
    }

    fn list(&self, id: u32, after: Option<&SandboxName>) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let page = self.jails.alive_after(after).take(LIST_PAGE).map(|jail| jail.info.clone()).collect();
        connection.send(&Reply::Listed(page), &[])
    }

    fn on_death(&mut self, slot: u32) {
        let jail = self.jails.alive().find(|jail| jail.info.slot == slot);
        let Some(name) = jail.map(|jail| {
            let _ = epoll::delete(&self.epoll, &jail.pidfd);
            jail.info.name.clone()
        }) else {
            return self.jails.lose_ready(slot);
        };
        let ending = self.jails.bury(&name);
        self.tell_waiting(&name, ending);
    }

    fn tell_waiting(&mut self, name: &SandboxName, ending: Ending) {
        let mut broken = Vec::new();
        for (id, connection) in &mut self.connections {
            if connection.phase == Phase::Waiting(name.clone()) {
                connection.phase = Phase::Open;
                let told = connection.send(&killed(name.clone(), ending), &[]);
                let source = Source::Connection(*id).to_data();
                let read = epoll::modify(&self.epoll, &connection.socket, source, EventFlags::IN);
                if !told || read.is_err() {
                    broken.push(*id);
                }
            }
        }
        for id in broken {
            self.close(id);
        }
    }

    fn close(&mut self, id: u32) {
        if let Some(connection) = self.connections.remove(&id) {
            let _ = epoll::delete(&self.epoll, &connection.socket);
        }
    }
}

fn killed(name: SandboxName, Ending { exit, out_of_memory }: Ending) -> Reply {
    Reply::Killed { name, exit, out_of_memory }
}

fn refusal(step: &str, message: String, retryable: bool) -> Reply {
    Reply::Failed { step: step.to_owned(), message, retryable }
}

/// An error with its sources.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
