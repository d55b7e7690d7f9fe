//! Talking to `warren-jailer serve`, the one privileged process of the host.
//!
//! One thread owns the connection: requests go out one at a time, in order, as the jailer serves them. The jailer may
//! restart at any time; the thread connects again at the next request.
//!
//! - A request that was never sent is sent again on a new connection, once.
//! - A `Spawn` whose answer was lost fails as retryable: whoever asked must `Kill` the name before it asks again.
//! - `Kill` and `List` are idempotent and simply asked again.

mod wire;

use std::{
    fmt::{Display, Formatter, Result as FmtResult},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use warren_artefact::Digest;
use warren_sandbox_plan::{
    facts::Availability,
    name::SandboxName,
    request::{ExitStatus, Jailed, LIST_PAGE, Reply, Request, Spawn},
};
use wire::{Connection, ExchangeError};

/// Most requests waiting for the jailer; beyond that it is overloaded and says so.
const QUEUE: usize = 256;

/// How long to wait before asking a jailer again that did not answer: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Why the jailer did not do what was asked. Always the system's fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JailerError {
    /// It cannot be reached, or the connection broke before the answer.
    #[error("the jailer at {path} cannot be reached: {source}", path = path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// It refused or failed; nothing was left behind.
    #[error("the jailer failed at {step}: {message}")]
    Failed {
        /// Which step of its plan.
        step: String,
        /// Its words.
        message: String,
        /// Whether asking again can help.
        retryable: bool,
    },
    /// More requests wait than are allowed.
    #[error("{QUEUE} requests wait for the jailer already")]
    Overloaded,
    /// This agent stops and starts nothing any more.
    #[error("the agent stops")]
    Stopping,
    /// It answered something else than what was asked.
    #[error("the jailer broke the protocol: {0}")]
    Protocol(&'static str),
}

impl JailerError {
    /// Whether asking again can help.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Overloaded | Self::Stopping => true,
            Self::Failed { retryable, .. } => *retryable,
            Self::Protocol(_) => false,
        }
    }
}

/// A program that was started: what the jailer says of it, and its pidfd.
#[derive(Debug)]
pub struct Started {
    /// Name, pid, uid, slot.
    pub jailed: Jailed,
    /// Becomes readable when it exits.
    pub pidfd: OwnedFd,
    /// The tap of its network card, if it was asked for.
    pub tap: Option<OwnedFd>,
}

/// How a program ended, as far as the jailer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its status, unless an earlier jailer started it.
    pub exit: Option<ExitStatus>,
    /// Whether the kernel killed in its cgroup because the memory given to it was used up.
    pub out_of_memory: bool,
}

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self.exit {
            _ if self.out_of_memory => f.write_str("it had used up the memory of its cgroup and been killed"),
            Some(ExitStatus::Code(code)) => write!(f, "it had exited with code {code}"),
            Some(ExitStatus::Signal(signal)) => write!(f, "it had been killed by signal {signal}"),
            None => f.write_str("how it ended is not known"),
        }
    }
}

/// Asks the jailer; cheap to clone.
#[derive(Clone, Debug)]
pub struct JailerClient {
    queue: mpsc::Sender<Job>,
    guest: Arc<Mutex<Option<Digest>>>,
    closed: Arc<AtomicBool>,
}

struct Job {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<(Reply, Vec<OwnedFd>), JailerError>>,
}

impl JailerClient {
    /// Starts the thread; it connects at the first request.
    pub fn start(socket: PathBuf) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let guest = Arc::default();
        let closed = Arc::default();
        let (seen, over) = (Arc::clone(&guest), Arc::clone(&closed));
        let work = move || serve(&socket, jobs, &seen, &over);
        std::thread::Builder::new().name("jailer-client".to_owned()).spawn(work)?;
        Ok(Self { queue, guest, closed })
    }

    /// From now on nothing is started: what [`Self::list`] gives afterwards is all that there will be.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The guest program that Wasm machines get, as the jailer said when it was last connected to.
    #[must_use]
    pub fn guest(&self) -> Option<Digest> {
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a jailed program with these descriptors, in the order of its documentation.
    pub async fn spawn(&self, spawn: Spawn, fds: Vec<OwnedFd>) -> Result<Started, JailerError> {
        match self.ask(Request::Spawn(spawn), fds).await? {
            (Reply::Spawned(jailed), passed) => {
                let mut passed = passed.into_iter();
                let pidfd = passed.next().ok_or(JailerError::Protocol("no pidfd came with Spawned"))?;
                Ok(Started { jailed, pidfd, tap: passed.next() })
            }
            _ => Err(JailerError::Protocol("another answer to Spawn")),
        }
    }

    /// Kills by name and reclaims; says how it had ended when the jailer knows.
    pub async fn kill(&self, name: &SandboxName) -> Result<Ending, JailerError> {
        match self.ask(Request::Kill { name: name.clone() }, Vec::new()).await? {
            (Reply::Killed { exit, out_of_memory, .. }, _) => Ok(Ending { exit, out_of_memory }),
            _ => Err(JailerError::Protocol("another answer to Kill")),
        }
    }

    /// Kills, and asks again until the jailer has answered: nothing may stay behind.
    pub async fn kill_until_gone(&self, name: &SandboxName) -> Ending {
        let mut wait = FIRST_RETRY;
        loop {
            match self.kill(name).await {
                Ok(ending) => return ending,
                Err(error) => {
                    tracing::warn!(%name, %error, "not reclaimed yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Whether sandboxes can have a network, and why not.
    pub async fn network(&self) -> Result<Availability, JailerError> {
        match self.ask(Request::Network, Vec::new()).await? {
            (Reply::Network(availability), _) => Ok(availability),
            _ => Err(JailerError::Protocol("another answer to Network")),
        }
    }

    /// The end to be read of a living program's log.
    pub async fn log(&self, name: &SandboxName) -> Result<OwnedFd, JailerError> {
        match self.ask(Request::Log { name: name.clone() }, Vec::new()).await? {
            (Reply::Log, passed) => {
                passed.into_iter().next().ok_or(JailerError::Protocol("no log came with Log"))
            }
            _ => Err(JailerError::Protocol("another answer to Log")),
        }
    }

    /// What lives, page by page.
    pub async fn list(&self) -> Result<Vec<Jailed>, JailerError> {
        let mut all: Vec<Jailed> = Vec::new();
        loop {
            let request = match all.last() {
                None => Request::List,
                Some(last) => Request::ListAfter { name: last.name.clone() },
            };
            let (Reply::Listed(page), _) = self.ask(request, Vec::new()).await? else {
                return Err(JailerError::Protocol("another answer to List"));
            };
            let is_last = page.len() < LIST_PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), JailerError> {
        let (answer, wait) = oneshot::channel();
        self.queue.try_send(Job { request, fds, answer }).map_err(|_| JailerError::Overloaded)?;
        match wait.await {
            Ok(Ok((Reply::Failed { step, message, retryable }, _))) => {
                Err(JailerError::Failed { step, message, retryable })
            }
            Ok(answer) => answer,
            Err(_) => Err(JailerError::Protocol("the client thread ended")),
        }
    }
}

fn serve(socket: &Path, mut jobs: mpsc::Receiver<Job>, guest: &Mutex<Option<Digest>>, closed: &AtomicBool) {
    let mut connection: Option<Connection> = None;
    while let Some(job) = jobs.blocking_recv() {
        // Here, where one job comes after another: no start is missed by a list that was asked for after the end.
        if closed.load(Ordering::Acquire) && matches!(job.request, Request::Spawn(_)) {
            let _ = job.answer.send(Err(JailerError::Stopping));
            continue;
        }
        let answer = exchange(socket, &mut connection, &job);
        if answer.is_err() {
            connection = None;
        }
        if let Some(connection) = &connection {
            *guest.lock().unwrap_or_else(PoisonError::into_inner) = connection.guest;
        }
        // Whoever asked may have gone; a Spawn's pidfd is closed then and the name is reclaimed by its owner task.
        let _ = job.answer.send(answer);
    }
}

fn exchange(
    socket: &Path,
    connection: &mut Option<Connection>,
    job: &Job,
) -> Result<(Reply, Vec<OwnedFd>), JailerError> {
    let unreachable =
        |source: io::Error| JailerError::Unreachable { path: socket.to_owned(), source: Arc::new(source) };
    let fresh = connection.is_none();
    let live = match connection {
        Some(live) => live,
        None => connection.insert(Connection::open(socket).map_err(unreachable)?),
    };
    match live.exchange(&job.request, &job.fds) {
        Ok(answer) => Ok(answer),
        // The jailer restarted since the last request: try once on a new connection.
        Err(ExchangeError::NotSent(_)) if !fresh => again(socket, connection, job).map_err(unreachable),
        Err(ExchangeError::NoAnswer(_)) if !fresh && !matches!(job.request, Request::Spawn(_)) => {
            again(socket, connection, job).map_err(unreachable)
        }
        Err(ExchangeError::NotSent(source) | ExchangeError::NoAnswer(source)) => Err(unreachable(source)),
    }
}

fn again(
    socket: &Path,
    connection: &mut Option<Connection>,
    job: &Job,
) -> Result<(Reply, Vec<OwnedFd>), io::Error> {
    let live = connection.insert(Connection::open(socket)?);
    live.exchange(&job.request, &job.fds).map_err(ExchangeError::into_io)
}
