//! The life of one sandbox, as a pure machine: events in, a step or a refusal out. No clock, socket or lock.
//!
//! ```text
//!   creating ──jailed──▶ initialising ──ready──▶ idle ──begin──▶ busy
//!      │                     │                   │ ▲              │ │
//!      │                     │                   │ └──end, alive──┘ │
//!      │                     │                   │                  │ drain
//!      │                     │              drain│              draining
//!      │                     │             expire│                  │ end (alive or not)
//!      └──────── kill ───────┴───────┬───────────┴─────── kill ─────┤
//!                                    ▼                              │
//!                                   dead ◀──────────────────────────┘
//! ```
//! - `begin` is refused everywhere but in *idle*: this is where one invocation at a time is enforced.
//! - `drain` lets a running invocation end; without one it is `kill`.
//! - `kill` carries its cause; the first cause stays.
//! - an invocation that ends with a lost sandbox (timeout, guest fault, process gone) goes *busy* → *dead*.
//! - *dead* is final: only reclaiming follows, once, by the owner task.

use warren_proto::v1::SandboxState;

/// Why a sandbox died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Control asked for it.
    Destroyed(String),
    /// Not used for its keep-alive.
    Expired,
    /// It never came up; the error went to whoever asked for it.
    NotCreated,
    /// An invocation ran past its time.
    TimedOut,
    /// The guest broke its contract with the VMM.
    GuestFault(String),
    /// The process or its connection is gone.
    Lost(String),
    /// The agent stops.
    Stopping,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Destroyed(reason) if reason.is_empty() => f.write_str("destroyed"),
            Self::Destroyed(reason) => write!(f, "destroyed: {reason}"),
            Self::Expired => f.write_str("unused for its keep-alive"),
            Self::NotCreated => f.write_str("it never came up"),
            Self::TimedOut => f.write_str("an invocation ran past its timeout"),
            Self::GuestFault(text) => write!(f, "the guest faulted: {text}"),
            Self::Lost(text) => write!(f, "its process was lost: {text}"),
            Self::Stopping => f.write_str("the host's agent stops"),
        }
    }
}

/// Where a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Asking the jailer.
    Creating,
    /// The process runs and loads its function.
    Initialising,
    /// Waits for an invocation.
    Idle,
    /// Runs the invocation with this request id.
    Busy(String),
    /// Runs its last invocation.
    Draining(String),
    /// Gone, and why.
    Dead(Cause),
}

impl State {
    /// As the wire says it.
    #[must_use]
    pub const fn on_wire(&self) -> SandboxState {
        match self {
            Self::Creating => SandboxState::Creating,
            Self::Initialising => SandboxState::Initialising,
            Self::Idle => SandboxState::Idle,
            Self::Busy(_) => SandboxState::Busy,
            Self::Draining(_) => SandboxState::Draining,
            Self::Dead(_) => SandboxState::Dead,
        }
    }
}

/// What happens to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The jailer started the process.
    Jailed,
    /// Init succeeded.
    Ready,
    /// A restarted agent found it running this request, or nothing.
    Adopt(Option<String>),
    /// An invocation wants it.
    Begin(String),
    /// The invocation ended; `Some` if that ended the sandbox too.
    End(Option<Cause>),
    /// No further invocation; die when none runs.
    Drain(Cause),
    /// The keep-alive passed; the caller has compared the times.
    Expire,
    /// Die now.
    Kill(Cause),
}

/// What a legal event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing changed.
    Stay,
    /// Another state, alive.
    Moved,
    /// This event made it dead: reclaim it.
    Died,
}

/// Events that do not fit the state; for `Begin` this is the everyday refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not possible while {}", .0.on_wire().as_str_name())]
pub struct Refused(pub State);

/// One sandbox's state and how many invocations it finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    state: State,
    finished: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self { state: State::Creating, finished: 0 }
    }
}

impl Machine {
    /// A machine that already finished so many invocations (adoption).
    #[must_use]
    pub const fn with_finished(finished: u64) -> Self {
        Self { state: State::Creating, finished }
    }

    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Invocations that ended.
    #[must_use]
    pub const fn finished(&self) -> u64 {
        self.finished
    }

    /// Whether it is dead.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead(_))
    }

    /// The id of the invocation that runs.
    #[must_use]
    pub fn running(&self) -> Option<&str> {
        match &self.state {
            State::Busy(request) | State::Draining(request) => Some(request),
            _ => None,
        }
    }

    /// The drawing, as one match.
    #[expect(clippy::match_same_arms, reason = "an arrow of the drawing each, in its order")]
    pub fn apply(&mut self, event: Event) -> Result<Step, Refused> {
        let next = match (&self.state, event) {
            (State::Dead(_), Event::End(_) | Event::Drain(_) | Event::Kill(_) | Event::Expire) => {
                return Ok(Step::Stay);
            }
            (_, Event::Kill(cause)) => State::Dead(cause),

            (State::Creating, Event::Jailed) => State::Initialising,
            (State::Creating, Event::Adopt(Some(request))) => State::Busy(request),
            (State::Creating, Event::Adopt(None)) | (State::Initialising, Event::Ready) => State::Idle,
            (State::Creating | State::Initialising | State::Idle, Event::Drain(cause)) => State::Dead(cause),

            (State::Idle, Event::Begin(request)) => State::Busy(request),
            (State::Idle, Event::Expire) => State::Dead(Cause::Expired),
            (_, Event::Expire) | (State::Draining(_), Event::Drain(_)) => return Ok(Step::Stay),

            (State::Busy(request), Event::Drain(_)) => State::Draining(request.clone()),
            (State::Busy(_) | State::Draining(_), Event::End(Some(cause))) => State::Dead(cause),
            (State::Busy(_), Event::End(None)) => State::Idle,
            (State::Draining(_), Event::End(None)) => State::Dead(Cause::Destroyed("drained".to_owned())),

            (state, _) => return Err(Refused(state.clone())),
        };
        if self.running().is_some() && matches!(next, State::Idle | State::Dead(_)) {
            self.finished = self.finished.saturating_add(1);
        }
        self.state = next;
        Ok(if self.is_dead() { Step::Died } else { Step::Moved })
    }
}

#[cfg(test)]
mod tests;
