//! The function supervisor: from the host's configuration to the end of the sandbox.
//!
//! ```text
//!  port 1 ──▶ host ──▶ ┌────────────┐ ◀── api (runtime, extensions, telemetry over HTTP on the loopback)
//!         ◀── outgoing │ supervisor │ ◀── programs (SIGCHLD), output (pipes)
//!                      │  machine   │ ──▶ telemetry
//!                      └────────────┘ ◀── time
//! ```
//! The pure machine ([`crate::core`]) decides; everything here only carries. One thread.

mod answers;
mod environment;
mod event;
pub(crate) mod freezer;
mod host;
mod identifier;
mod lines;
mod lives;
mod outgoing;
mod output;
pub(crate) mod places;
pub(crate) mod programs;
pub(crate) mod supervisor;
pub(crate) mod time;

pub(crate) use answers::Document;
pub(crate) use event::HostEvent;
pub(crate) use identifier::new as identifier;

use crate::api;
use crate::clock::Clock;
use crate::core::Machine;
use freezer::Freezer;
use host::Listener;
use outgoing::Outgoing;
use places::Places;
use std::io::Result as IoResult;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use warren_vmm_protocol::guest::{
    GUEST_VERSION, GuestConfig, GuestReply, InitError, InitFailure, Restored, Text,
};

/// How long the last words may take to reach the host.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where and how to serve.
pub(crate) struct Setup {
    /// Listens for the host.
    pub(crate) listener: OwnedFd,
    /// Where programs and files lie.
    pub(crate) places: Places,
    /// Whether this is the first process of a guest.
    pub(crate) guest: bool,
    /// Whether nothing runs between events.
    pub(crate) holds: bool,
    /// The port of the API on the loopback; 0 for any.
    pub(crate) api_port: u16,
    /// Makes one that was brought back from a snapshot a guest of its own.
    pub(crate) renew: fn(&Restored) -> Result<(), Unprepared>,
}

/// Why the function's files or the guest itself could not be made ready.
pub(crate) struct Unprepared {
    /// Whose fault.
    pub(crate) failure: InitFailure,
    /// What.
    pub(crate) text: String,
}

impl Unprepared {
    fn error(&self) -> InitError {
        let error_type = match self.failure {
            InitFailure::Task => "Sandbox.InvalidTask",
            _ => "Sandbox.SetupFailed",
        };
        InitError { failure: self.failure, error_type: Text::cut(error_type), message: Text::cut(&self.text) }
    }
}

fn same_version(version: u32) -> Result<(), Unprepared> {
    if version == GUEST_VERSION {
        return Ok(());
    }
    let text = format!("the host speaks version {version}, this guest {GUEST_VERSION}");
    Err(Unprepared { failure: InitFailure::Guest, text })
}

/// Serves one sandbox to its end. `prepare` makes files, time and network as configured, before any program runs.
pub(crate) fn run(
    setup: Setup,
    prepare: impl FnOnce(&GuestConfig) -> Result<(), Unprepared>,
) -> IoResult<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, live(setup, prepare))
}

async fn live(setup: Setup, prepare: impl FnOnce(&GuestConfig) -> Result<(), Unprepared>) -> IoResult<()> {
    let mut listener = Listener::new(setup.listener)?;
    let Some((config, mut line)) = host::configure(&mut listener, setup.renew).await? else { return Ok(()) };
    let clock = Clock::start();
    if let Err(unprepared) = same_version(config.version).and_then(|()| prepare(&config)) {
        let reply = GuestReply::InitFailed { init_us: clock.now(), error: unprepared.error() };
        host::say_last(&mut line.stream, &reply).await;
        return Ok(());
    }
    let api = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, setup.api_port))).await?;
    let address = api.local_addr()?.to_string();
    let outgoing = Rc::new(Outgoing::default());
    let freezer = if setup.holds { Freezer::of_guest() } else { Freezer::default() };
    let outside = (Rc::clone(&outgoing), Rc::new(freezer));
    let supervisor = Supervisor::new(clock, *config, setup.places, address, setup.guest, outside);
    let mut children = signal(SignalKind::child())?;
    tokio::task::spawn_local(api::serve(api, supervisor.clone()));
    tokio::task::spawn_local(host::serve(listener, line, supervisor.clone(), setup.renew));
    let reaper = supervisor.clone();
    tokio::task::spawn_local(async move {
        while children.recv().await.is_some() {
            reaper.reap();
        }
    });
    let timer = supervisor.clone();
    tokio::task::spawn_local(async move { timer.keep_time().await });
    let still = supervisor.clone();
    tokio::task::spawn_local(async move { still.keep_still().await });
    supervisor.feed(Machine::start);
    supervisor.over().await;
    let _ = tokio::time::timeout(LAST_WORDS, outgoing.empty()).await;
    Ok(())
}
