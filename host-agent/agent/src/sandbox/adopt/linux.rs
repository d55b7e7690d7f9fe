//! Taking over a Linux sandbox: its guest gets a new connection, which replaces the old one; its mark says what it runs.
//!
//! ```text
//! mark, connection ─┬─ idle ─▶ idle
//!                   └─ busy ─▶ busy ─▶ the guest says the event's end (kept for the next connection if it was said already
//!                                      to nobody) ─▶ idle; not within the function's timeout ─▶ dead
//! ```

use super::{AdoptError, Found, enter, log_lost};
use crate::{
    host::Host,
    sandbox::{
        grants::Running,
        invoke::parse_running_id,
        live::{Sandbox, Startup},
        machine::{Cause, Event},
        mark::Mark,
        owner,
    },
    vmm::{ChannelError, InvokeChannel, Progress, reconnect},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a guest that runs may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// What an event may take beyond its timeout, as for one that was not interrupted.
const GRACE: Duration = Duration::from_secs(5);

pub(super) async fn adopt(host: &Arc<Host>, sandbox: Arc<Sandbox>, found: Found) -> Result<(), AdoptError> {
    let (mark, running) = Mark::open(&host.run.mark(&sandbox.jail()))?;
    let socket = host.run.socket(&sandbox.jail());
    let connected = timeout(PATIENCE, reconnect(&socket)).await;
    let channel = connected.map_err(|_| ChannelError::Unexpected("the guest does not answer"))??;
    let busy = if running.is_empty() {
        sandbox.ready(Event::Adopt(None), channel, Startup::default()).map_err(|_| AdoptError::Taken)?;
        None
    } else {
        let (request_id, grant) = parse_running_id(&running);
        sandbox.apply(Event::Adopt(Some(request_id.clone()))).map_err(|_| AdoptError::Taken)?;
        Some((channel, request_id, host.grants.adopt(grant)))
    };
    // Nobody has it before the table does.
    let _ = sandbox.mark.set(mark);
    enter(host, &sandbox).await?;
    tokio::spawn(own(Arc::clone(host), sandbox, found, busy));
    Ok(())
}

/// The owner task.
async fn own(
    host: Arc<Host>,
    sandbox: Arc<Sandbox>,
    found: Found,
    busy: Option<(InvokeChannel, String, Running)>,
) {
    let Found { vitals, reservation, drain } = found;
    if let Some((mut channel, request_id, counted)) = busy {
        let patience = Duration::from_millis(sandbox.about.timeout_ms.into()) + GRACE;
        let ended = tokio::select! {
            ended = timeout(patience, until_done(&mut channel)) => ended,
            _ = vitals.pidfd.exited() => Ok(Err(ChannelError::Closed)),
            () = sandbox.died.notified() => Ok(Ok(())),
        };
        match ended {
            Ok(Ok(())) => {
                if let Some(mark) = sandbox.mark.get() {
                    mark.idle();
                }
                // Refused if it was killed meanwhile; the watch below sees that by itself.
                let _ = sandbox.ready(Event::End(None), channel, Startup::default());
            }
            Ok(Err(error)) => sandbox.kill(Cause::Lost(error.to_string())),
            Err(_) => sandbox.kill(Cause::TimedOut),
        }
        drop(counted);
        log_lost(&host, &sandbox, &request_id);
        host.report(&sandbox);
    }
    owner::watch(&host, &sandbox, vitals).await;
    owner::reclaim(&host, &sandbox, drain, reservation).await;
}

/// Its log and answer are nobody's any more.
async fn until_done(channel: &mut InvokeChannel) -> Result<(), ChannelError> {
    while let Progress::Log(_) = channel.next().await? {}
    Ok(())
}
