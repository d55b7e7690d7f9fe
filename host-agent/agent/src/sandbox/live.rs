//! One sandbox: its facts, and its state behind one short lock. `used` is what its invocations took.

mod used;

pub use used::together;

use super::{
    error::InvokeError,
    grants::{Grant, GrantLedger, Running},
    invoke::running_id,
    machine::{Cause, Event, Machine, Refused, State, Step},
    mark::Mark,
};
use crate::{
    logs::LineContext,
    vmm::{InvokeChannel, LogTail},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Notify, watch};
use used::Used;
use warren_proto::v1;
use warren_sandbox_plan::name::SandboxName;

/// What runs in a sandbox's VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// A module, in ring 3 of a machine without a kernel.
    #[default]
    Wasm,
    /// A stock kernel and a runtime.
    Linux,
}

/// What does not change in a sandbox's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Its id.
    pub id: SandboxName,
    /// The function it runs.
    pub function: String,
    /// Of which version.
    pub version: u64,
    /// What runs in it; sandboxes of agents that knew one kind say nothing.
    #[serde(default)]
    pub guest: Guest,
    /// The function's memory.
    pub memory_mib: u32,
    /// The function's timeout.
    pub timeout_ms: u32,
    /// Whether responses must be JSON.
    pub json_response: bool,
    /// For which partition it was created.
    pub partition: u32,
    /// In which epoch of it.
    pub epoch: u64,
    /// When.
    pub created: SystemTime,
}

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Its facts.
    pub about: About,
    /// The last words of its VMM.
    pub vmm_log: LogTail,
    inner: Mutex<Inner>,
    /// Rung when it died: the owner reclaims.
    pub(super) died: Notify,
    /// Set when it is reclaimed: how its process ended.
    pub(super) gone: watch::Sender<Option<String>>,
    /// Where it is written down what a Linux guest runs.
    pub(super) mark: OnceLock<Mark>,
    /// Whether control has yet to hear of its state.
    pub(super) unreported: AtomicBool,
    id_text: Arc<str>,
    function_text: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    channel: Option<InvokeChannel>,
    quiet_since: Instant,
    pid: i32,
    /// Its jail's name, if that is not its own: it was a zygote's before.
    jail: Option<SandboxName>,
    /// What its start took, until an invocation has told it.
    startup: Startup,
    /// Whether it began from a snapshot, and how.
    origin: Origin,
    /// What its invocations really used.
    used: Used,
}

/// From what a sandbox began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// From nothing: it booted.
    #[default]
    Booted,
    /// From a snapshot that this host has.
    Restored,
    /// From one whose memory the pager brings, page by page.
    Paged,
}

/// What the start of a sandbox took, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The function's init: billed with the first invocation.
    pub init_us: u64,
    /// Bringing it back from a snapshot instead.
    pub restore_us: u64,
}

/// An invocation that was let in: it holds the only way to the VM.
///
/// Dropping it without [`Begun::end`] kills the sandbox: nobody knows what runs in it.
#[derive(Debug)]
pub struct Begun {
    sandbox: Arc<Sandbox>,
    channel: Option<InvokeChannel>,
    ended: bool,
    _counted: Running,
    /// What the start took that this is the first invocation of.
    pub startup: Startup,
}

impl Sandbox {
    /// A sandbox that is about to be created or adopted.
    #[must_use]
    pub fn new(about: About, machine: Machine) -> Arc<Self> {
        let (id_text, function_text) = (about.id.as_str().into(), about.function.as_str().into());
        let inner = Inner {
            machine,
            channel: None,
            quiet_since: Instant::now(),
            pid: 0,
            jail: None,
            startup: Startup::default(),
            origin: Origin::Booted,
            used: Used::default(),
        };
        Arc::new(Self {
            about,
            vmm_log: LogTail::default(),
            inner: Mutex::new(inner),
            died: Notify::new(),
            gone: watch::Sender::new(None),
            mark: OnceLock::new(),
            unreported: AtomicBool::new(false),
            id_text,
            function_text,
        })
    }

    /// Lets an invocation in, or says why not: its grant is over, or the sandbox does something else.
    pub fn begin(
        self: &Arc<Self>,
        request_id: &str,
        grant: Grant,
        ledger: &GrantLedger,
    ) -> Result<Begun, InvokeError> {
        // Counted before it begins: a count may be high for a moment, never low.
        let counted = ledger.enter(grant)?;
        let mut inner = self.lock();
        inner.machine.apply(Event::Begin(request_id.to_owned()))?;
        let channel = inner.channel.take();
        let startup = core::mem::take(&mut inner.startup);
        drop(inner);
        if let Some(mark) = self.mark.get() {
            mark.busy(&running_id(request_id, grant));
        }
        Ok(Begun { sandbox: Arc::clone(self), channel, ended: false, _counted: counted, startup })
    }

    /// Applies an event that needs no answer; wakes the owner when this is what killed it.
    pub fn apply(&self, event: Event) -> Result<Step, Refused> {
        let step = self.lock().machine.apply(event)?;
        if step == Step::Died {
            self.died.notify_one();
        }
        Ok(step)
    }

    /// Kills; the first cause stays.
    pub fn kill(&self, cause: Cause) {
        // `Kill` is legal in every state.
        let _ = self.apply(Event::Kill(cause));
    }

    /// Ready for invocations over `channel`.
    pub(super) fn ready(
        &self,
        event: Event,
        channel: InvokeChannel,
        startup: Startup,
    ) -> Result<Step, Refused> {
        let mut inner = self.lock();
        let step = inner.machine.apply(event)?;
        if *inner.machine.state() == State::Idle {
            inner.channel = Some(channel);
            inner.startup = startup;
            inner.quiet_since = Instant::now();
        }
        drop(inner);
        if step == Step::Died {
            self.died.notify_one();
        }
        Ok(step)
    }

    /// The name of its jail, of its socket and of its record.
    #[must_use]
    pub fn jail(&self) -> SandboxName {
        self.lock().jail.clone().unwrap_or_else(|| self.about.id.clone())
    }

    pub(super) fn set_jailed(&self, name: &SandboxName, pid: i32) {
        let mut inner = self.lock();
        inner.pid = pid;
        inner.jail = (*name != self.about.id).then(|| name.clone());
    }

    pub(super) fn set_origin(&self, origin: Origin) {
        self.lock().origin = origin;
    }

    /// Events that it has been done with.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.lock().machine.finished()
    }

    /// The way to the VM of one that is dead, if nobody has it: for last words.
    pub(super) fn take_channel(&self) -> Option<InvokeChannel> {
        let mut inner = self.lock();
        matches!(inner.machine.state(), State::Dead(_)).then(|| inner.channel.take()).flatten()
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().machine.state().clone()
    }

    /// Dies if it was unused for `keep_alive`; else says when to look again.
    pub(super) fn expire_or_next(&self, keep_alive: Duration) -> Duration {
        let mut inner = self.lock();
        if *inner.machine.state() != State::Idle {
            return keep_alive;
        }
        let left = keep_alive.saturating_sub(inner.quiet_since.elapsed());
        if left.is_zero() && inner.machine.apply(Event::Expire) == Ok(Step::Died) {
            drop(inner);
            self.died.notify_one();
        }
        left
    }

    /// For how long it has been idle, if it is.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        let inner = self.lock();
        (*inner.machine.state() == State::Idle).then(|| inner.quiet_since.elapsed())
    }

    /// As `warren ps` shows it.
    #[must_use]
    pub fn on_wire(&self, host_id: &str) -> v1::Sandbox {
        let inner = self.lock();
        let state = inner.machine.state();
        let idle = if *state == State::Idle { inner.quiet_since.elapsed() } else { Duration::ZERO };
        v1::Sandbox {
            id: self.about.id.to_string(),
            host_id: host_id.to_owned(),
            function: self.about.function.clone(),
            version: self.about.version,
            state: state.on_wire().into(),
            memory_mib: self.about.memory_mib,
            invocations: inner.machine.finished(),
            age_ms: millis(self.about.created.elapsed().unwrap_or_default()),
            idle_ms: millis(idle),
            request_id: inner.machine.running().unwrap_or_default().to_owned(),
            pid: inner.pid,
            partition: self.about.partition,
            epoch: self.about.epoch,
            restored: inner.origin != Origin::Booted,
            paged: inner.origin == Origin::Paged,
        }
    }

    /// Ids for log lines of one invocation.
    #[must_use]
    pub fn line_context(&self, request_id: &str) -> LineContext {
        LineContext {
            function: Arc::clone(&self.function_text),
            request_id: request_id.into(),
            sandbox_id: Arc::clone(&self.id_text),
        }
    }

    /// Waits until everything it had is reclaimed; gives how its process ended.
    pub async fn wait_gone(&self) -> String {
        let mut gone = self.gone.subscribe();
        match gone.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Whether an unreported change was noted by this call.
    pub(super) fn note_change(&self) -> bool {
        !self.unreported.swap(true, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held; a poisoned lock would still hold a sound machine.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// The sandbox.
    #[must_use]
    pub const fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The way to the VM; `None` only if the sandbox never had one.
    pub fn channel(&mut self) -> Option<&mut InvokeChannel> {
        self.channel.as_mut()
    }

    /// The invocation ended, having used so much memory; with a cause if the sandbox ended with it.
    pub fn end(mut self, cause: Option<Cause>, used_bytes: u64) {
        if used_bytes > 0 {
            self.sandbox.lock().used.record(used_bytes);
        }
        self.finish(cause);
    }

    fn finish(&mut self, cause: Option<Cause>) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(mark) = self.sandbox.mark.get() {
            mark.idle();
        }
        let mut inner = self.sandbox.lock();
        let step = inner.machine.apply(Event::End(cause));
        if *inner.machine.state() == State::Idle {
            inner.channel = self.channel.take();
            inner.quiet_since = Instant::now();
        }
        drop(inner);
        if step == Ok(Step::Died) {
            self.sandbox.died.notify_one();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.finish(Some(Cause::Lost("its invocation was abandoned".to_owned())));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
