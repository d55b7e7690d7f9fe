//! SnapStart in a deploy: the setting as it is typed, the phases while it is waited for, and what came of it.

use crate::{screen, shape};
use tonic::Streaming;
use warren_client::{Failure, Outcome};
use warren_proto::v1::{
    DeployEvent, DeployPhase, Function, FunctionVersion, Optimization, SnapStart as WireSnapStart,
    deploy_event::Event,
};

/// When a snapshot is made, as typed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SnapStart {
    Published,
    Off,
}

impl SnapStart {
    pub(crate) const fn on_wire(self) -> WireSnapStart {
        match self {
            Self::Published => WireSnapStart::Published,
            Self::Off => WireSnapStart::Off,
        }
    }
}

/// Shows what a deploy is at until it has ended.
pub(crate) async fn watch(name: &str, mut events: Streaming<DeployEvent>) -> Outcome<Function> {
    let shown = screen::spinner(format!("deploying {name}"));
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Progress(progress)) => {
                let phase = match progress.phase() {
                    DeployPhase::Unspecified => continue,
                    DeployPhase::Preparing => "preparing",
                    DeployPhase::Snapshotting => "snapshotting",
                    DeployPhase::Verifying => "verifying",
                };
                shown.say(format!("deploying {name}: {phase} on {}", progress.host_id));
            }
            Some(Event::Done(function)) => return Ok(function),
            None => {}
        }
    }
    Err(Failure::local("Warren ended the deploy without an answer; `warren fn show` says what there is"))
}

/// How its cold starts begin, for who has just deployed it.
pub(crate) fn outcome(version: &FunctionVersion) -> Option<String> {
    match version.optimization() {
        Optimization::Unspecified => None,
        Optimization::On => Some("its cold starts begin from a snapshot".to_owned()),
        Optimization::Off => Some(format!("its cold starts boot: {}", version.optimization_reason)),
    }
}

/// What was asked for, and what came of it then; what there is now, `warren snapshot ls` knows.
pub(crate) fn told(version: &FunctionVersion) -> String {
    let asked = shape::snap_start(version);
    match version.optimization() {
        Optimization::Unspecified => asked.to_owned(),
        Optimization::On => format!("{asked}: made and verified before the version was there"),
        Optimization::Off => format!("{asked}, but boots: {}", version.optimization_reason),
    }
}
