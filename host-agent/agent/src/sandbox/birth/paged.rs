//! A start from a snapshot that the fleet has and this host does not: its memory comes page by page, while it runs.
//!
//! ```text
//! pager asked ─▶ jailed, with a userfaultfd ─▶ restored ─▶ as any other
//!      │                    │                      ╰ the VMM refuses it: not again, here ─────╮
//!      ╰ no pager, refused  ╰ no /dev/userfaultfd ────────────────────────────────────────────┴─▶ undone; fetched whole, or booted
//! ```

use super::{Birth, From, Started};
use crate::{
    pager::{self, PagerError, Served, Ticket},
    sandbox::{error::CreateError, live::Guest},
    snapshot::FleetSnapshot,
};
use std::sync::Arc;
use tokio::task::JoinHandle;
use warren_pager::Manner;

/// A sandbox that is served, and how.
pub(super) struct Serving {
    ticket: Ticket,
    recorded: bool,
}

/// Brings it up. After an error nothing of it is left, and another way can be tried unless the error [`is_final`].
pub(super) async fn start(
    birth: &Birth<'_>,
    fleet: &Arc<FleetSnapshot>,
    drain: &mut Option<JoinHandle<()>>,
) -> Result<(Started, Serving), CreateError> {
    let sandbox = birth.sandbox;
    let failed = match try_start(birth, fleet, drain).await {
        Ok(started) => return Ok(started),
        Err(error) if is_final(&error) => return Err(error),
        Err(error) => error,
    };
    birth.undo().await;
    let words = sandbox.vmm_log.text();
    let (sandbox, function) = (&sandbox.about.id, &sandbox.about.function);
    match &failed {
        CreateError::Pager(PagerError::None | PagerError::Spoiled(_)) => {
            tracing::debug!(%sandbox, function, error = %failed, "it is not paged");
        }
        failed => tracing::warn!(%sandbox, function, error = %failed, words, "it is not paged"),
    }
    Err(failed)
}

/// Whether it would end the same whatever it is started from.
pub(super) const fn is_final(error: &CreateError) -> bool {
    match error {
        CreateError::Load { failure, .. } => failure.is_the_functions(),
        CreateError::Destroyed(_) => true,
        _ => false,
    }
}

/// From now on it is looked after.
pub(super) fn follow(birth: &Birth<'_>, fleet: Arc<FleetSnapshot>, Serving { ticket, recorded }: Serving) {
    let (host, sandbox) = (Arc::clone(birth.host), Arc::clone(birth.sandbox));
    tokio::spawn(pager::follow(host, sandbox, fleet, ticket, recorded));
}

async fn try_start(
    birth: &Birth<'_>,
    fleet: &Arc<FleetSnapshot>,
    drain: &mut Option<JoinHandle<()>>,
) -> Result<(Started, Serving), CreateError> {
    let Birth { host, sandbox, .. } = *birth;
    if sandbox.about.guest != Guest::Wasm {
        return Err(PagerError::Refused("it serves Wasm functions alone".to_owned()).into());
    }
    let manner = host.snapshots.manner(fleet);
    let Served { socket, ticket } = host.pager.serve(fleet.memory, &fleet.key, manner).await?;
    let started = birth.start(From::Paged(fleet, &socket), None, drain).await;
    if let Err(CreateError::Load { failure, .. }) = &started
        && failure.was_said()
        && !failure.is_the_functions()
    {
        host.snapshots.not_taken(fleet, &failure.words());
    }
    Ok((started?, Serving { ticket, recorded: manner == Manner::RECORD }))
}
