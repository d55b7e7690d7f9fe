//! What a sandbox's owner task does once it lives: watch for its death, then reclaim.

use super::{
    birth::Vitals,
    ends,
    live::Sandbox,
    machine::{Cause, State},
};
use crate::{host::Host, jailer::Ending, pidfd::Pidfd, resources::Reservation};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use warren_vmm_protocol::guest::SHUTDOWN_BUDGET_MS;

/// What an orderly end of a Linux guest may take: its own budget, and the power-off.
const FAREWELL: Duration = Duration::from_millis(SHUTDOWN_BUDGET_MS as u64 + 1000);
/// How long a VMM whose connection has closed may take to end by itself, and say of what.
const LAST_ACT: Duration = Duration::from_millis(250);
/// How long the end of the VMM's log is waited for once the process is gone.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Returns when the sandbox is dead, whoever noticed it; one whose guest has something to put in order has done so.
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
    if let State::Dead(Cause::Lost(_)) = sandbox.state() {
        // Its sockets close before its last words are out: killed at once, it would have no reason.
        let _ = timeout(LAST_ACT, pidfd.exited()).await;
    }
    farewell(sandbox, &pidfd).await;
}

/// Lets a Linux guest end in order, if it was idle: its extensions are told, its files written out. Nobody waits for it.
async fn farewell(sandbox: &Sandbox, pidfd: &Pidfd) {
    let Some(mut channel) = sandbox.take_channel() else { return };
    if channel.shut_down().await && timeout(FAREWELL, pidfd.exited()).await.is_err() {
        tracing::warn!(sandbox = %sandbox.about.id, "its guest did not end in order and is killed");
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
    let ending = host.jailer.kill_until_gone(&sandbox.jail()).await;
    let exit = ending.to_string();
    if let Some(drain) = drain {
        // The process is gone and with it the write end; the bound is for a jailer that kept a copy.
        let _ = timeout(LOG_PATIENCE, drain).await;
    }
    tell_end(host, sandbox, ending);
    host.run.remove(&sandbox.jail());
    drop(reservation);
    host.sandboxes.remove(sandbox);
    host.report(sandbox);
    sandbox.gone.send_replace(Some(exit));
}

/// An end that nobody asked for, with the VMM's last words: of a Linux guest also its console's.
fn tell_end(host: &Host, sandbox: &Sandbox, ending: Ending) {
    let State::Dead(cause) = sandbox.state() else { return };
    let reason = ends::reason(&cause, ending);
    host.ends.count(reason);
    if let Cause::Lost(_) | Cause::GuestFault(_) = cause {
        let exit = ending.to_string();
        let last_words = sandbox.vmm_log.text();
        tracing::warn!(sandbox = %sandbox.about.id, function = %sandbox.about.function, reason, %cause, exit, last_words, "it ended by itself");
    }
}
