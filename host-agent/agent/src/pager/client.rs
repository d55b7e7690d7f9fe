//! The thread that owns the pager's connection. Requests go out one at a time; none of them waits for a disk or a network.
//!
//! ```text
//! absent ──a request, or a second has passed, and not before its pause is over──▶ found or started ──▶ up
//!   ▲ pause: 50 ms, doubled up to 5 s while it keeps failing                                             │
//!   ╰──────────── exited, broke its connection, silent for five seconds (killed, then) ──────────────────╯
//! ```

use super::{
    PagerError, Program, Served, Ticket,
    process::{Jailer, Process},
};
use crate::jailer::JailerClient;
use rustix::{
    fd::{AsFd as _, OwnedFd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot, watch};
use warren_chunks::{Name, TenantKey};
use warren_pager::{
    Entry, Manner,
    protocol::{HostFigures, Reply, Request, Serve},
};

/// Most requests that wait.
const QUEUE: usize = 256;
/// How often one that is there is asked for a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// How soon one that could not be started is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long an image is not paged whose chunks could not be had.
const SPOILED_FOR: Duration = Duration::from_mins(1);
/// Most of these remembered.
const SPOILED_MAX: usize = 1024;

/// What is known of the pager, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its process; `None` while there is none.
    pub pid: Option<i32>,
    /// How many were found or started by this agent.
    pub pagers: u64,
    /// Its counts, a second old at most.
    pub figures: HostFigures,
}

/// Asks the pager; a clone asks the same one.
#[derive(Clone, Debug)]
pub struct PagerClient {
    queue: Option<SyncSender<Job>>,
    host_mib: u64,
    shared: Arc<Shared>,
    spoiled: Arc<Mutex<HashMap<Name, (Instant, String)>>>,
}

/// Between the thread and those who ask.
#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// Chunks could not be had: another pager is to take its place when nobody is served.
    stale: AtomicBool,
    /// Retired objects that are to be put back into service.
    retired: watch::Sender<Vec<Name>>,
    /// Where the pager asks for what it cannot reach, until somebody answers there.
    upstream: Mutex<Option<OwnedFd>>,
    has_upstream: Notify,
    /// It asked for what no pager asks for: it is to be ended.
    distrusted: AtomicBool,
}

enum Job {
    Serve { request: Request, theirs: OwnedFd, answer: oneshot::Sender<Result<(u64, u64), PagerError>> },
    Report { ticket: Ticket, answer: oneshot::Sender<Result<Entry, PagerError>> },
    Rescued { names: Vec<Name>, answer: oneshot::Sender<()> },
    End { answer: oneshot::Sender<()> },
}

impl PagerClient {
    /// Of a host without one.
    #[must_use]
    pub fn none() -> Self {
        Self { queue: None, host_mib: 0, shared: Arc::default(), spoiled: Arc::default() }
    }

    /// Starts the thread, which finds the pager or has the jailer start one.
    pub fn start(program: Program, jailer: JailerClient) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (host_mib, shared) = (program.host_mib(), Arc::default());
        let (jailer, theirs) = (Jailer::new(jailer)?, Arc::clone(&shared));
        let work = move || Keeper::new(program, jailer, theirs).run(&jobs);
        std::thread::Builder::new().name("pager-client".to_owned()).spawn(work)?;
        Ok(Self { queue: Some(queue), host_mib, shared, spoiled: Arc::default() })
    }

    /// Has a VM served that nobody has started yet.
    pub async fn serve(&self, manifest: Name, key: &TenantKey, manner: Manner) -> Result<Served, PagerError> {
        if let Some((_, why)) = self.spoiled().get(&manifest).filter(|(at, _)| at.elapsed() < SPOILED_FOR) {
            return Err(PagerError::Spoiled(why.clone()));
        }
        let (theirs, socket) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        let request = Request::Serve(Serve { manifest: manifest.0, key: *key.secret(), manner });
        let (pager, id) = self.ask(|answer| Job::Serve { request, theirs, answer }).await??;
        Ok(Served { socket, ticket: Ticket { pager, id, manifest } })
    }

    /// What was done for a VM so far, and what it touched.
    pub async fn report(&self, ticket: Ticket) -> Result<Entry, PagerError> {
        self.ask(|answer| Job::Report { ticket, answer }).await?
    }

    /// Ends the pager; none is started any more.
    pub async fn end(&self) {
        let _ = self.ask(|answer| Job::End { answer }).await;
    }

    /// Retired objects that the pager read, told again and again until they are said to be [rescued](Self::rescued).
    #[must_use]
    pub fn retired(&self) -> watch::Receiver<Vec<Name>> {
        self.shared.retired.subscribe()
    }

    /// These are in service again.
    pub async fn rescued(&self, names: Vec<Name>) {
        let _ = self.ask(|answer| Job::Rescued { names, answer }).await;
    }

    /// Where the next pager asks for what it cannot reach.
    pub async fn upstream(&self) -> OwnedFd {
        loop {
            let waiting = lock(&self.shared.upstream).take();
            match waiting {
                Some(socket) => return socket,
                None => self.shared.has_upstream.notified().await,
            }
        }
    }

    /// It asked for what no pager asks for.
    pub fn distrust(&self) {
        self.shared.distrusted.store(true, Ordering::Relaxed);
    }

    /// An image's chunks cannot be had: it is not paged for a while.
    pub fn spoil(&self, ticket: Ticket, why: &str) {
        self.shared.stale.store(true, Ordering::Relaxed);
        let mut spoiled = self.spoiled();
        if spoiled.len() >= SPOILED_MAX {
            spoiled.retain(|_, (at, _)| at.elapsed() < SPOILED_FOR);
        }
        if spoiled.len() < SPOILED_MAX {
            spoiled.insert(ticket.manifest, (Instant::now(), why.to_owned()));
        }
    }

    /// What is known of it; `None`: this host has none.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.queue.as_ref().map(|_| *lock(&self.shared.known))
    }

    /// What it may take of the host's memory at most, MiB.
    #[must_use]
    pub const fn host_mib(&self) -> u64 {
        self.host_mib
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, PagerError> {
        let (answer, wait) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(PagerError::None)?;
        queue.try_send(job(answer)).map_err(|_| PagerError::Overloaded)?;
        wait.await.map_err(|_| PagerError::None)
    }

    fn spoiled(&self) -> MutexGuard<'_, HashMap<Name, (Instant, String)>> {
        lock(&self.spoiled)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Keeper {
    program: Program,
    jailer: Jailer,
    shared: Arc<Shared>,
    up: Option<Process>,
    pagers: u64,
    not_before: Instant,
    pause: Duration,
}

impl Keeper {
    fn new(program: Program, jailer: Jailer, shared: Arc<Shared>) -> Self {
        let (not_before, pause) = (Instant::now(), FIRST_PAUSE);
        Self { program, jailer, shared, up: None, pagers: 0, not_before, pause }
    }

    /// Until the agent is no more, or ends the pager.
    fn run(mut self, jobs: &Receiver<Job>) {
        self.beat();
        loop {
            match jobs.recv_timeout(BEAT) {
                Err(RecvTimeoutError::Timeout) => self.beat(),
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Job::Serve { request, theirs, answer }) => {
                    // Whoever asked may have gone: then nobody has the other end, and the pager sees that.
                    let _ = answer.send(self.serve(&request, &theirs));
                }
                Ok(Job::Report { ticket, answer }) => drop(answer.send(self.report(ticket))),
                Ok(Job::Rescued { names, answer }) => {
                    let names = names.into_iter().map(|name| name.0).collect();
                    self.figures(&Request::Rescued { names });
                    let _ = answer.send(());
                }
                Ok(Job::End { answer }) => {
                    self.end();
                    let _ = std::fs::remove_file(&self.program.socket);
                    let _ = answer.send(());
                    return;
                }
            }
        }
    }

    fn serve(&mut self, request: &Request, theirs: &OwnedFd) -> Result<(u64, u64), PagerError> {
        self.ensure()?;
        match self.ask(request, Some(theirs))? {
            Reply::Serving { id } => Ok((self.pagers, id)),
            Reply::Refused { why } => Err(PagerError::Refused(why)),
            _ => Err(PagerError::Protocol),
        }
    }

    fn report(&mut self, ticket: Ticket) -> Result<Entry, PagerError> {
        if ticket.pager != self.pagers || self.up.is_none() {
            return Err(PagerError::Another);
        }
        match self.ask(&Request::Report { id: ticket.id }, None)? {
            Reply::Refused { why } => Err(PagerError::Refused(why)),
            reply => reply.entry().ok_or(PagerError::Protocol),
        }
    }

    /// A sign of life, and its counts; another pager if there is none.
    fn beat(&mut self) {
        if self.shared.distrusted.swap(false, Ordering::Relaxed) {
            tracing::warn!("the pager broke its protocol and is ended");
            self.end();
            self.set_absent();
        }
        if let Err(error) = self.ensure() {
            tracing::debug!(%error, "no pager");
            return;
        }
        self.figures(&Request::Figures);
        let idle = lock(&self.shared.known).figures.serving == 0;
        if idle && self.up.is_some() && self.shared.stale.swap(false, Ordering::Relaxed) {
            tracing::info!("chunks could not be had: another pager opens the origin's folders anew");
            self.end();
            self.set_absent();
        }
    }

    fn figures(&mut self, request: &Request) {
        if let Ok(Reply::Figures { figures, retired }) = self.ask(request, None) {
            lock(&self.shared.known).figures = *figures;
            let retired: Vec<Name> = retired.into_iter().map(Name).collect();
            self.shared.retired.send_if_modified(|names| {
                *names = retired;
                !names.is_empty()
            });
        }
    }

    /// Kills it, if it lives, and waits for its end.
    fn end(&mut self) {
        self.up = None;
        if let Err(error) = self.jailer.end() {
            tracing::warn!(%error, "the pager was not ended");
        }
    }

    fn ensure(&mut self) -> Result<(), PagerError> {
        if let Some(gone) = self.up.take_if(|up| up.has_exited()) {
            tracing::warn!(pid = gone.pid(), "the pager ended; its VMs end by name, and another is started");
            self.end();
            self.set_absent();
        }
        if self.up.is_some() {
            return Ok(());
        }
        if Instant::now() < self.not_before {
            return Err(PagerError::None);
        }
        match Process::find_or_start(&self.program, &self.jailer) {
            Ok(mut up) => {
                self.pagers += 1;
                *lock(&self.shared.upstream) = up.take_upstream();
                self.shared.has_upstream.notify_one();
                *lock(&self.shared.known) =
                    Known { pid: Some(up.pid()), pagers: self.pagers, figures: HostFigures::default() };
                self.up = Some(up);
                Ok(())
            }
            Err(error) => {
                let pause_ms = self.pause.as_millis();
                tracing::warn!(%error, pause_ms, "no pager could be started: nothing is paged");
                self.not_before = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                Err(error)
            }
        }
    }

    fn ask(&mut self, request: &Request, passed: Option<&OwnedFd>) -> Result<Reply, PagerError> {
        let up = self.up.as_ref().ok_or(PagerError::None)?;
        let passed: Vec<_> = passed.iter().map(|fd| fd.as_fd()).collect();
        match up.ask(request, &passed) {
            Ok(reply) => {
                self.pause = FIRST_PAUSE;
                Ok(reply)
            }
            Err(error) => {
                tracing::warn!(pid = up.pid(), %error, "the pager does not answer and is ended");
                self.end();
                self.set_absent();
                Err(error)
            }
        }
    }

    fn set_absent(&mut self) {
        // At once, but for one that dies again and again without having answered.
        let wait = if self.pause == FIRST_PAUSE { Duration::ZERO } else { self.pause };
        self.not_before = Instant::now() + wait;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        lock(&self.shared.known).pid = None;
    }
}
