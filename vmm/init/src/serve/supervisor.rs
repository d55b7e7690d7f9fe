//! The shell around the machine: does what it says, and feeds it what happens.
//!
//! Everything is on one thread. No borrow of the state outlives a method here, and none is held over an await.

mod telling;

use super::environment::{self, Variables};
use super::event::HostEvent;
use super::freezer::Freezer;
use super::outgoing::Outgoing;
use super::output::Output;
use super::places::Places;
use super::programs::{Launch, Programs, Reaped};
use crate::clock::{Clock, unix_ms};
use crate::core::{Action, Delivery, Ending, ExtensionId, Machine, Micros, NotIdle, Reason, Who};
use crate::telemetry::Hub;
use crate::telemetry::record;
use crate::telemetry::subscription::{Category, Subscription};
use rustix::process::Signal;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{Notify, oneshot};
use warren_vmm_protocol::guest::{GuestConfig, GuestReply, InitError, SandboxKind};

/// What answers a request for the next event.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// An event.
    Event {
        /// It.
        event: Rc<HostEvent>,
        /// The wall clock's milliseconds until which there is time.
        deadline_unix_ms: u64,
    },
    /// The sandbox is another one from here on.
    Restored,
    /// SHUTDOWN.
    Shutdown {
        /// Lambda's word for why.
        reason: &'static str,
        /// The wall clock's milliseconds until which there is time.
        deadline_unix_ms: u64,
    },
}

/// A sandbox's supervisor.
#[derive(Clone)]
pub(crate) struct Supervisor(Rc<Shared>);

struct Shared {
    clock: Clock,
    config: GuestConfig,
    places: Places,
    /// `AWS_LAMBDA_RUNTIME_API`.
    api: String,
    /// In a guest: programs get a user of their own, and the clock is ours to set.
    guest: bool,
    outgoing: Rc<Outgoing>,
    freezer: Rc<Freezer>,
    state: RefCell<State>,
    /// The machine's deadline may be another.
    alarm: Notify,
    off: Cell<bool>,
    over: Notify,
}

struct State {
    machine: Machine,
    programs: Programs,
    outputs: HashMap<Who, Rc<Output>>,
    waiting: HashMap<Who, oneshot::Sender<Delivered>>,
    identifiers: HashMap<String, ExtensionId>,
    event: Option<(Rc<HostEvent>, Micros)>,
    hub: Hub,
}

impl Supervisor {
    pub(crate) fn new(
        clock: Clock,
        config: GuestConfig,
        places: Places,
        api: String,
        guest: bool,
        (outgoing, freezer): (Rc<Outgoing>, Rc<Freezer>),
    ) -> Self {
        let limit = Micros::from(config.init_timeout.get()) * 1000;
        let state = State {
            machine: Machine::new(limit, config.kind == SandboxKind::Snapshot, places.extensions()),
            programs: Programs::default(),
            outputs: HashMap::new(),
            waiting: HashMap::new(),
            identifiers: HashMap::new(),
            event: None,
            hub: Hub::default(),
        };
        let state = RefCell::new(state);
        let (alarm, off, over) = (Notify::new(), Cell::new(false), Notify::new());
        Self(Rc::new(Shared {
            clock,
            config,
            places,
            api,
            guest,
            outgoing,
            freezer,
            state,
            alarm,
            off,
            over,
        }))
    }

    /// The function's configuration.
    pub(crate) fn config(&self) -> &GuestConfig {
        &self.0.config
    }

    /// Tells the machine something, and does what it says.
    pub(crate) fn feed<R>(&self, step: impl FnOnce(&mut Machine, Micros) -> R) -> R {
        let now = self.0.clock.now();
        let result = step(&mut self.0.state.borrow_mut().machine, now);
        loop {
            let actions = self.0.state.borrow_mut().machine.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(action);
            }
        }
        self.0.alarm.notify_one();
        result
    }

    /// An event of the host's.
    pub(crate) fn event(&self, event: HostEvent) {
        let timeout = Micros::from(event.timeout_ms) * 1000;
        if let Some(host) = event.host_unix_ms.filter(|_| self.0.guest) {
            super::time::follow(host);
        }
        let id = event.request_id.clone();
        let deadline = self.0.clock.now().saturating_add(timeout);
        let busy = self.0.state.borrow().machine.current().is_some();
        if !busy {
            self.0.state.borrow_mut().event = Some((Rc::new(event), deadline));
        }
        self.feed(|machine, now| machine.event(now, id, timeout));
    }

    /// A program waits for the next event; the answer comes through what is returned.
    pub(crate) fn wait(&self, who: Who) -> oneshot::Receiver<Delivered> {
        let (sender, receiver) = oneshot::channel();
        self.0.state.borrow_mut().waiting.insert(who, sender);
        receiver
    }

    /// Gives an extension the identifier that it is known by from now on.
    pub(crate) fn identify(&self, id: ExtensionId) -> String {
        let identifier = super::identifier::new();
        self.0.state.borrow_mut().identifiers.insert(identifier.clone(), id);
        identifier
    }

    /// The extension with an identifier.
    pub(crate) fn identified(&self, identifier: &str) -> Option<ExtensionId> {
        self.0.state.borrow().identifiers.get(identifier).copied()
    }

    /// Takes a subscription to telemetry.
    pub(crate) fn subscribe(&self, id: ExtensionId, subscription: Subscription, types: &serde_json::Value) {
        let mut state = self.0.state.borrow_mut();
        let name = state.machine.extension_name(id).unwrap_or_default().to_owned();
        state.hub.subscribe(self.0.clock, &self.0.freezer, &name, subscription);
        state.hub.publish(self.0.clock, Category::Platform, &record::subscribed(unix_ms(), &name, types));
    }

    /// Reaps whatever has ended.
    pub(crate) fn reap(&self) {
        loop {
            let reaped = self.0.state.borrow_mut().programs.reap();
            let Some(ended) = reaped else { return };
            if let Reaped::Program(who, ending) = ended {
                self.drain();
                self.feed(|machine, now| machine.ended(now, who, &ending));
            }
        }
    }

    /// Waits for the machine's deadlines, for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let deadline = self.0.state.borrow().machine.deadline();
            let alarm = self.0.alarm.notified();
            match deadline {
                None => alarm.await,
                Some(at) => {
                    let late = tokio::time::timeout_at(self.0.clock.instant(at).into(), alarm).await.is_err();
                    if late {
                        self.feed(Machine::tick);
                    }
                }
            }
        }
    }

    /// Holds programs when nothing is to be done and everything said has left, for ever.
    pub(crate) async fn keep_still(&self) {
        loop {
            self.0.freezer.wanted().await;
            self.0.outgoing.empty().await;
            self.0.freezer.hold();
        }
    }

    /// Returns when nothing of the function runs and everything said has left: whether the kernel holds programs.
    pub(crate) async fn still(&self) -> Result<bool, NotIdle> {
        let idle = || if self.0.state.borrow().machine.is_idle() { Ok(()) } else { Err(NotIdle) };
        idle()?;
        let held = self.0.freezer.still().await;
        if held {
            // What programs wrote, its own unpacked files above all: a copy that found it unwritten would read all of it again to write it.
            let _ = tokio::task::spawn_blocking(rustix::fs::sync).await;
        }
        self.drain();
        self.0.outgoing.empty().await;
        idle().map(|()| held)
    }

    /// It is no sandbox and will not be one: said, and the end, without anything of the function running.
    pub(crate) fn give_up(&self, error: &InitError) {
        self.0.outgoing.init(&GuestReply::InitFailed { init_us: 0, error: error.clone() });
        self.end();
    }

    /// Returns when it is over.
    pub(crate) async fn over(&self) {
        while !self.0.off.get() {
            self.0.over.notified().await;
        }
    }

    /// A line that a program wrote.
    pub(crate) fn line(&self, who: Who, line: &[u8]) {
        self.0.outgoing.log(line);
        let state = self.0.state.borrow();
        let extension = matches!(who, Who::Extension(_));
        let category = if extension { Category::Extension } else { Category::Function };
        if state.hub.wants(category) {
            let structured = self.0.config.log_format == warren_vmm_protocol::guest::LogFormat::Json;
            state.hub.publish(self.0.clock, category, &record::line(unix_ms(), extension, line, structured));
        }
    }

    /// What waits to be said.
    pub(crate) fn outgoing(&self) -> Rc<Outgoing> {
        Rc::clone(&self.0.outgoing)
    }

    /// Reads what programs have written up to now, so that it is said before what follows.
    fn drain(&self) {
        let outputs: Vec<_> = self.0.state.borrow().outputs.values().cloned().collect();
        for output in &outputs {
            output.drain(self);
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::Launch(who) => self.launch(who),
            Action::Terminate(who) => self.0.state.borrow().programs.signal(who, Signal::TERM),
            Action::Kill(who) => self.0.state.borrow().programs.signal(who, Signal::KILL),
            Action::Deliver(who, delivery) => self.deliver(who, delivery),
            Action::Say(said) => self.say(said),
            Action::Record(record) => self.record(&record),
            Action::Freeze => self.0.freezer.want(),
            Action::Thaw => self.0.freezer.let_go(),
            Action::PowerOff => {
                self.drain();
                self.end();
            }
        }
    }

    fn end(&self) {
        self.0.off.set(true);
        self.0.over.notify_one();
    }

    fn launch(&self, who: Who) {
        let launched = self.prepare(who).and_then(|(words, variables)| {
            let launch = Launch { words, variables, folder: &self.0.places.task, as_user: self.0.guest };
            let mut state = self.0.state.borrow_mut();
            state.waiting.remove(&who);
            // A new start finds nothing of the old one.
            if self.0.guest && state.programs.none() {
                crate::processes::end_strays();
            }
            state
                .programs
                .launch(who, launch, &self.0.freezer)
                .map_err(|error| ("Runtime.InvalidEntrypoint", format!("it could not be started: {error}")))
        });
        let started = launched.and_then(|pipe| {
            Output::start(self.clone(), who, pipe).map_err(|error| ("Runtime.Unknown", error.to_string()))
        });
        match started {
            Ok(output) => {
                self.0.state.borrow_mut().outputs.insert(who, output);
            }
            Err((error_type, why)) => {
                let ending = Ending::NotStarted { error_type, why };
                let now = self.0.clock.now();
                self.0.state.borrow_mut().machine.ended(now, who, &ending);
            }
        }
    }

    /// A program's command line and environment.
    fn prepare(&self, who: Who) -> Result<(Vec<OsString>, Variables), (&'static str, String)> {
        let Shared { config, places, api, .. } = &*self.0;
        match who {
            Who::Runtime => {
                let words = match &*config.entrypoint {
                    [] => vec![places.bootstrap()?.into_os_string()],
                    words => words.iter().map(|word| word.as_str().into()).collect(),
                };
                Ok((words, environment::of_runtime(config, places, api)))
            }
            Who::Extension(id) => {
                let mut state = self.0.state.borrow_mut();
                state.identifiers.retain(|_, of| *of != id);
                let name = state.machine.extension_name(id).unwrap_or_default().to_owned();
                state.hub.forget(&name);
                let program: PathBuf = places.extension(&name);
                Ok((vec![program.into_os_string()], environment::of_extension(config, places, api)))
            }
        }
    }

    fn deliver(&self, who: Who, delivery: Delivery) {
        let mut state = self.0.state.borrow_mut();
        let delivered = match (delivery, &state.event) {
            (Delivery::Event, Some((event, deadline))) => Delivered::Event {
                event: Rc::clone(event),
                deadline_unix_ms: self.0.clock.unix_ms_at(*deadline),
            },
            (Delivery::Event, None) => return,
            (Delivery::Restored, _) => Delivered::Restored,
            (Delivery::Shutdown { reason, until }, _) => {
                Delivered::Shutdown { reason: word(reason), deadline_unix_ms: self.0.clock.unix_ms_at(until) }
            }
        };
        // One whose connection is gone asks again.
        if let Some(waiting) = state.waiting.remove(&who) {
            let _ = waiting.send(delivered);
        }
    }
}

/// Lambda's words.
const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Spindown => "spindown",
        Reason::Timeout => "timeout",
        Reason::Failure => "failure",
    }
}
