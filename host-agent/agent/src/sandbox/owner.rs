//! What a sandbox's owner task does once it lives: watch for its death, then reclaim.

use super::{
    birth::Vitals,
    live::Sandbox,
    machine::{Cause, State},
};
use crate::{host::Host, resources::Reservation};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use warren_sandbox_plan::request::ExitStatus;

/// How long the end of the VMM's log is waited for once the process is gone.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Returns when the sandbox is dead, whoever noticed it.
pub(super) async fn watch(host: &Host, sandbox: &Arc<Sandbox>, vitals: Vitals) {
    let Vitals { pidfd, mut control, .. } = vitals;
    // An invocation's end resets the keep-alive; so does the look that finds the sandbox busy.
    let mut look_again = host.keep_alive;
    while !matches!(sandbox.state(), State::Dead(_)) {
        tokio::select! {
            () = sandbox.died.notified() => {}
            _ = pidfd.exited() => sandbox.kill(Cause::Lost("it exited".to_owned())),
            error = control.closed() => sandbox.kill(Cause::Lost(error.to_string())),
            () = sleep(look_again) => look_again = sandbox.expire_or_next(host.keep_alive),
        }
    }
}

/// Gives back everything a dead sandbox had. Asks the jailer until it answers: nothing may stay behind.
pub(super) async fn reclaim(
    host: &Host,
    sandbox: &Arc<Sandbox>,
    drain: Option<JoinHandle<()>>,
    reservation: Reservation,
) {
    if let State::Dead(cause) = sandbox.state() {
        tracing::info!(sandbox = %sandbox.about.id, function = %sandbox.about.function, %cause, "reclaiming");
    }
    host.report(sandbox);
    let exit = describe(host.jailer.kill_until_gone(&sandbox.about.id).await);
    if let Some(drain) = drain {
        // The process is gone and with it the write end; the bound is for a jailer that kept a copy.
        let _ = timeout(LOG_PATIENCE, drain).await;
    }
    host.run.remove(&sandbox.about.id);
    drop(reservation);
    host.sandboxes.remove(sandbox);
    host.report(sandbox);
    sandbox.gone.send_replace(Some(exit));
}

fn describe(exit: Option<ExitStatus>) -> String {
    match exit {
        Some(ExitStatus::Code(code)) => format!("it had exited with code {code}"),
        Some(ExitStatus::Signal(signal)) => format!("it had been killed by signal {signal}"),
        None => "how it ended is not known".to_owned(),
    }
}
