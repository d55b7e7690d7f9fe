//! What is done about a VM that the pager serves: what it touched is learned, and why it was served no more is kept.

use super::{PagerError, Ticket, Touched};
use crate::{host::Host, sandbox::Sandbox, snapshot::FleetSnapshot};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use warren_pager::{Entry, serve::HUNG_UP};

/// How often it is looked whether the first event was answered, and how long at most.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 50;
/// How often the pager is asked about a VM that has just ended.
const ASK_AGAIN: u32 = 20;

/// Until the sandbox is gone. One that was recorded has its accesses learned once it answered its first event, or lived for ten seconds.
pub async fn follow(
    host: Arc<Host>,
    sandbox: Arc<Sandbox>,
    snapshot: Arc<FleetSnapshot>,
    (memory, disk): (Ticket, Option<Ticket>),
    recorded: bool,
) {
    if recorded {
        tokio::select! {
            () = first_event(&sandbox) => learn(&host, &snapshot, (memory, disk)).await,
            _ = sandbox.wait_gone() => {}
        }
    }
    sandbox.wait_gone().await;
    for ticket in [Some(memory), disk].into_iter().flatten() {
        settle(&host, &sandbox, ticket).await;
    }
}

/// One whose chunks could not be had is not paged for a while.
async fn settle(host: &Host, sandbox: &Sandbox, ticket: Ticket) {
    match last(host, ticket).await {
        Ok(Entry { ended: Some(why), .. }) if why != HUNG_UP => {
            let function = &sandbox.about.function;
            tracing::warn!(sandbox = %sandbox.about.id, function, why, "the pager served it no more; its snapshot is not paged for a while");
            host.pager.spoil(ticket, &why);
        }
        Ok(_) => {}
        // With the pager all that it knew is gone.
        Err(error) => {
            tracing::debug!(sandbox = %sandbox.about.id, %error, "nothing is known of its memory's end");
        }
    }
}

async fn first_event(sandbox: &Sandbox) {
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        if sandbox.finished() > 0 {
            return;
        }
    }
}

async fn learn(host: &Arc<Host>, snapshot: &Arc<FleetSnapshot>, (memory, disk): (Ticket, Option<Ticket>)) {
    let log = async |ticket| match host.pager.report(ticket).await {
        Ok(entry) => entry.log(),
        Err(error) => {
            tracing::debug!(%error, "what a start touched is not known");
            None
        }
    };
    let Some(memory) = log(memory).await else { return };
    let disk = match disk {
        Some(disk) => log(disk).await,
        None => None,
    };
    host.snapshots.touched(snapshot, &Touched { memory, disk }).await;
}

/// What the pager says of a VM that is no more: its thread hears of that end a moment later than we do.
async fn last(host: &Host, ticket: Ticket) -> Result<Entry, PagerError> {
    let mut entry = host.pager.report(ticket).await?;
    for _ in 0..ASK_AGAIN {
        if entry.ended.is_some() {
            break;
        }
        sleep(LOOK / 4).await;
        entry = host.pager.report(ticket).await?;
    }
    Ok(entry)
}
