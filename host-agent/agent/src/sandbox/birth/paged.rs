//! A start from a snapshot that the fleet has and this host does not: its memory comes page by page, while it runs, and so does the
//! scratch disk of a Linux guest. Each is an image that the pager serves by itself.
//!
//! ```text
//! pager asked ─▶ jailed, with a userfaultfd ─▶ restored ─▶ as any other
//!      │                    │                      ╰ the VMM refuses it: not again, here ─────╮
//!      ╰ no pager, refused  ╰ no /dev/userfaultfd ────────────────────────────────────────────┴─▶ undone; fetched whole, or booted
//! ```

use super::{Birth, From, Started};
use crate::{
    pager::{self, PagerError, Ticket},
    sandbox::error::CreateError,
    snapshot::FleetSnapshot,
};
use std::{os::fd::OwnedFd, sync::Arc};
use tokio::task::JoinHandle;
use warren_pager::Manner;

/// The VMM's ends of the sockets to the pager.
pub(super) struct Sockets {
    pub(super) memory: OwnedFd,
    /// Of a guest that has a disk of its own.
    pub(super) disk: Option<OwnedFd>,
}

/// A sandbox that is served, and how.
#[derive(Clone, Copy)]
pub(super) struct Serving {
    memory: Ticket,
    disk: Option<Ticket>,
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
pub(super) fn follow(birth: &Birth<'_>, fleet: Arc<FleetSnapshot>, serving: Serving) {
    let Serving { memory, disk, recorded } = serving;
    let (host, sandbox) = (Arc::clone(birth.host), Arc::clone(birth.sandbox));
    tokio::spawn(pager::follow(host, sandbox, fleet, (memory, disk), recorded));
}

async fn try_start(
    birth: &Birth<'_>,
    fleet: &Arc<FleetSnapshot>,
    drain: &mut Option<JoinHandle<()>>,
) -> Result<(Started, Serving), CreateError> {
    let host = birth.host;
    let manner = host.snapshots.manner(fleet);
    let of_disk = if manner == Manner::RECORD { Manner::RECORD_DISK } else { Manner::DISK };
    let memory = host.pager.serve(fleet.memory, &fleet.key, manner).await?;
    let disk = match fleet.disk {
        Some(disk) => Some(host.pager.serve(disk, &fleet.key, of_disk).await?),
        None => None,
    };
    let tickets = (memory.ticket, disk.as_ref().map(|disk| disk.ticket));
    let sockets = Sockets { memory: memory.socket, disk: disk.map(|disk| disk.socket) };
    let started = birth.start(From::Paged(fleet, &sockets), None, drain).await;
    if let Err(CreateError::Load { failure, .. }) = &started
        && failure.is_of_what_was_loaded()
    {
        host.snapshots.not_taken(fleet, &failure.words());
    }
    let (memory, disk) = tickets;
    Ok((started?, Serving { memory, disk, recorded: manner == Manner::RECORD }))
}
