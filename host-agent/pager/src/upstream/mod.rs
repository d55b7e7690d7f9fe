//! Objects that this process cannot reach, brought by the agent: it has a network, and other workers and buckets behind it.
//!
//! ```text
//!  no agent yet ──attach──▶ up ──hangs up, breaks the protocol──▶ down ──attach: what waits is asked again──▶ up
//!
//!  a question ── never an agent ──▶ Absent
//!     │ one of so many places
//!     ▼
//!   asked ── answered ──▶ a sealed memory file, read here; or a failure by name
//!     │ down for five seconds ─▶ Gone     up, and nothing heard of it for five seconds ─▶ Silent     half a minute ─▶ Late
//! ```
//! An agent that is started anew is there within those five seconds, so its VMs go on. What it brings is believed nothing: whoever
//! asked holds it against its name. No thread but one waits for it: questions are sent without waiting, and those who ask are
//! tasks of the runtime.

pub mod asks;
pub mod messages;

use crate::packet::{self, Packet};
use asks::{Asks, Full, Unasked};
use messages::{ASKS_MAX, Answer, Outcome, PACKET_MAX, Wanted, decode, encode};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd as _, OwnedFd},
    fs::{SealFlags, SeekFrom, fcntl_get_seals, seek},
    io::Errno,
};
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, oneshot};
use warren_chunks::{
    Name,
    l3::OriginError,
    store::{Fetched, Proxy},
};

/// How long who asks waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While the agent is away, or says nothing at all.
    pub silence: Duration,
    /// For one object, while the agent is well: it tries again, and somewhere else.
    pub object: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // The first is as long as the agent waits for a pager.
        Self { silence: Duration::from_secs(5), object: Duration::from_secs(30) }
    }
}

/// How often who waits looks whether there is still hope.
const LOOK: Duration = Duration::from_millis(100);
/// How often the thread that listens looks whether it is still wanted.
const TURN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Seals of a file that changes no more.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK);

/// Why an object was not brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The agent that was to bring it went, and no other came.
    #[error("the agent that brings chunks is gone")]
    Gone,
    /// It is there, and says nothing.
    #[error("the agent that brings chunks is silent")]
    Silent,
    /// It says something, but brings nothing.
    #[error("the agent did not bring it in time")]
    Late,
    /// What it gave is no sealed file, or one that is longer than may be.
    #[error("the agent gave no sealed file of a length that may be")]
    NotOne,
}

/// Why an agent is listened to no more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it hung up")]
    HungUp,
    #[error("this is no answer")]
    Protocol,
    #[error(transparent)]
    Unasked(#[from] Unasked),
    #[error("its socket cannot be read")]
    Io(#[from] io::Error),
}

type Waits = oneshot::Sender<Result<Fetched, OriginError>>;

/// The agent, as far as it brings objects. A clone is the same.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    patience: Patience,
    state: Mutex<State>,
    places: Semaphore,
}

#[derive(Debug)]
struct State {
    asks: Asks<Waits>,
    link: Link,
    /// Which agent this is: what an earlier one's thread has to say is nobody's any more.
    agents: u64,
    /// When something of it was heard last, by whatever way.
    heard: Instant,
}

#[derive(Debug)]
enum Link {
    Never,
    Up(Arc<OwnedFd>),
    Down { since: Instant },
}

impl Upstream {
    /// Nobody yet.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        let (asks, link) = (Asks::new(ASKS_MAX), Link::Never);
        let state = Mutex::new(State { asks, link, agents: 0, heard: Instant::now() });
        Self(Arc::new(Shared { patience, state, places: Semaphore::new(ASKS_MAX) }))
    }

    /// From now on this is the agent. What waits is asked of it.
    pub fn attach(&self, socket: OwnedFd) -> io::Result<()> {
        // A packet that does not fit is not waited for.
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = Arc::new(socket);
        let mut state = self.state();
        state.agents += 1;
        let (agent, theirs, upstream) = (state.agents, Arc::clone(&socket), self.clone());
        let thread = std::thread::Builder::new().name("upstream".to_owned());
        thread.spawn(move || upstream.listen(agent, &theirs))?;
        state.heard = Instant::now();
        for wanted in state.asks.again() {
            send(&socket, wanted);
        }
        state.link = Link::Up(socket);
        Ok(())
    }

    /// The agent said something, by whatever way.
    pub fn heard(&self) {
        self.state().heard = Instant::now();
    }

    async fn ask(&self, name: Name, most: usize) -> Result<Fetched, OriginError> {
        let began = Instant::now();
        if matches!(self.state().link, Link::Never) {
            return Err(OriginError::Absent);
        }
        let place = tokio::time::timeout(self.0.patience.object, self.0.places.acquire());
        let Ok(Ok(_place)) = place.await else { return Err(OriginError::Overloaded) };
        let (ask, mut answer) = self.begin(name, most).map_err(|Full| OriginError::Overloaded)?;
        let _given_up = GivenUp { upstream: self, ask };
        loop {
            match tokio::time::timeout(LOOK, &mut answer).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return Err(unavailable(UpstreamError::Gone)),
                Err(_) => {
                    if let Some(why) = self.state().hopeless(began, self.0.patience) {
                        return Err(unavailable(why));
                    }
                }
            }
        }
    }

    fn begin(
        &self,
        name: Name,
        most: usize,
    ) -> Result<(u64, oneshot::Receiver<Result<Fetched, OriginError>>), Full> {
        let (waits, answer) = oneshot::channel();
        let mut state = self.state();
        let wanted = state.asks.begin(name.0, u64::try_from(most).unwrap_or(u64::MAX), waits)?;
        if let Link::Up(socket) = &state.link {
            send(socket, wanted);
        }
        Ok((wanted.ask, answer))
    }

    /// Hears one agent to its end.
    fn listen(&self, agent: u64, socket: &OwnedFd) {
        let why = loop {
            match self.hear(agent, socket) {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => break why,
            }
        };
        let mut state = self.state();
        if state.agents == agent {
            tracing::warn!(why = &why as &dyn std::error::Error, "no agent brings chunks");
            state.link = Link::Down { since: Instant::now() };
        }
    }

    /// The next answer, if one comes; `false`: another agent has taken its place.
    fn hear(&self, agent: u64, socket: &OwnedFd) -> Result<bool, Broken> {
        let mut ready = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut ready, Some(&TURN)) {
            Ok(0) | Err(Errno::INTR) => return Ok(self.state().agents == agent),
            Ok(_) => {}
            Err(error) => return Err(Broken::Io(error.into())),
        }
        let Packet { bytes, descriptors } = packet::receive(socket, PACKET_MAX)?.ok_or(Broken::HungUp)?;
        let Answer { ask, outcome } = decode(&bytes).ok_or(Broken::Protocol)?;
        let (wanted, waits) = {
            let mut state = self.state();
            if state.agents != agent {
                return Ok(false);
            }
            state.heard = Instant::now();
            state.asks.answered(ask)?
        };
        let file = <[OwnedFd; 1]>::try_from(descriptors);
        let fetched = match (outcome, file) {
            (outcome @ Outcome::Fetched { .. }, Ok([file])) => outcome.judged().and_then(|from| {
                let sealed = read(&file, wanted.most).ok_or_else(|| unavailable(UpstreamError::NotOne))?;
                Ok(Fetched { sealed: sealed.into(), from })
            }),
            (Outcome::Fetched { .. }, Err(_)) | (_, Ok(_)) => return Err(Broken::Protocol),
            (outcome, Err(none)) if none.is_empty() => outcome.judged().and(Err(OriginError::Absent)),
            (_, Err(_)) => return Err(Broken::Protocol),
        };
        if let Some(waits) = waits {
            // Whoever waited may be gone.
            let _ = waits.send(fetched);
        }
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Why nobody should wait any longer for what was asked then.
    fn hopeless(&self, began: Instant, patience: Patience) -> Option<UpstreamError> {
        match &self.link {
            Link::Down { since } if since.elapsed() >= patience.silence => Some(UpstreamError::Gone),
            Link::Up(_) if self.heard.elapsed() >= patience.silence => Some(UpstreamError::Silent),
            _ if began.elapsed() >= patience.object => Some(UpstreamError::Late),
            _ => None,
        }
    }
}

impl Proxy for Upstream {
    fn fetch(
        &self,
        name: Name,
        most: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched, OriginError>> + Send + '_>> {
        Box::pin(self.ask(name, most))
    }
}

/// Whoever asked is gone, or has his answer.
struct GivenUp<'a> {
    upstream: &'a Upstream,
    ask: u64,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.upstream.state().asks.give_up(self.ask);
    }
}

fn unavailable(why: UpstreamError) -> OriginError {
    OriginError::Unavailable(Arc::new(why))
}

/// Sends a question, or leaves it: one that is not sent is not answered, and ends as one that nobody answers.
fn send(socket: &OwnedFd, wanted: Wanted) {
    if let Some(packet) = encode(&wanted) {
        let _ = packet::send(socket.as_fd(), &packet, &[]);
    }
}

/// All of a memory file that is sealed, and so is read without waiting and does not change.
fn read(file: &OwnedFd, most: u64) -> Option<Vec<u8>> {
    if !fcntl_get_seals(file).ok()?.contains(SEALS) {
        return None;
    }
    let len = seek(file, SeekFrom::End(0)).ok().filter(|len| *len <= most)?;
    seek(file, SeekFrom::Start(0)).ok()?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(file, rest) {
            Ok(0) => return None,
            Ok(len) => at += len,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
