//! The loop drawn in [`super`].

use super::load::Load;
use crate::{
    host::Host,
    sandbox::{live::together, machine::State},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::Status;
use warren_proto::v1::{HeartbeatRequest, HostResources, RegisterWorkerRequest, RegisterWorkerResponse};

/// How long control may take for one call of the loop.
const CALL_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Bounds of the heartbeat interval control may ask for.
const FASTEST_BEAT_MS: u32 = 50;
const SLOWEST_BEAT_MS: u32 = 10_000;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Where control reaches this agent.
    pub address: String,
    /// What the host has.
    pub resources: HostResources,
}

/// Registers and beats until the task is ended.
pub async fn report(host: Arc<Host>, announcement: Announcement) {
    let mut retry = FIRST_RETRY;
    loop {
        match register(&host, &announcement).await {
            Ok(registered) => {
                // On the disk before the first heartbeat: that is what control takes as the promise to let nothing in
                // under an older epoch.
                if let Err(error) = host.fence.register(registered.epoch).await {
                    tracing::error!(%error, "control's epoch is not taken; if control was really begun anew, stop this agent and remove its file `epochs`");
                    sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                    continue;
                }
                retry = FIRST_RETRY;
                tracing::info!(epoch = registered.epoch, "registered with control");
                beat(&host, registered.heartbeat_ms).await;
            }
            Err(status) => {
                tracing::warn!(message = status.message(), "not registered with control yet");
                sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

async fn register(host: &Host, announcement: &Announcement) -> Result<RegisterWorkerResponse, Status> {
    // The whole table goes out: what changed so far is in it.
    let _ = host.sandboxes.take_changed();
    let request = RegisterWorkerRequest {
        host_id: host.id.clone(),
        address: announcement.address.clone(),
        resources: Some(announcement.resources.clone()),
        sandboxes: host.sandboxes.all().iter().map(|sandbox| sandbox.on_wire(&host.id)).collect(),
        builder_key: host.versions.compiler().builder_key().to_bytes().to_vec().into(),
        runtimes: host.offer.runtimes(),
    };
    let mut fleet = host.control.fleet();
    match timeout(CALL_PATIENCE, fleet.register_worker(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("control did not answer the registration")),
    }
}

/// Returns when a new registration is needed.
async fn beat(host: &Host, heartbeat_ms: u32) {
    let period = heartbeat_ms.clamp(FASTEST_BEAT_MS, SLOWEST_BEAT_MS);
    let mut ticks = interval(Duration::from_millis(period.into()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0_u32;
    let mut load = Load::default();
    load.look();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // What is deployed on a small host can be invoked at once.
            () = host.memory.returned() => {}
        }
        let Some(changed) = host.sandboxes.take_changed() else { return };
        let all = host.sandboxes.all();
        let busy = all
            .iter()
            .filter(|sandbox| matches!(sandbox.state(), State::Busy(_) | State::Draining(_)))
            .count();
        let (used_memory_mib, used_memory_spread_mib) = together(&all);
        let request = HeartbeatRequest {
            host_id: host.id.clone(),
            free_memory_mib: host.free_mib(),
            sandboxes: count(all.len()),
            busy: count(busy),
            changed: changed.iter().map(|sandbox| sandbox.on_wire(&host.id)).collect(),
            grants: host.grants.in_use(),
            load: load.look(),
            used_memory_mib,
            used_memory_spread_mib,
            runtimes: host.offer.runtimes(),
            zygotes: Some(host.zygotes.figures()),
            shared: host.snapshots.fleet().map(|fleet| fleet.figures()),
            pager: host.pager.figures(),
            neighbours: host.snapshots.fleet().map_or(0, |fleet| fleet.neighbours()),
            ends: host.ends.all().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        };
        let mut fleet = host.control.fleet();
        match timeout(CALL_PATIENCE, fleet.heartbeat(request)).await {
            Ok(Ok(answer)) if answer.get_ref().known => {
                failures = 0;
                if let (Some(list), Some(fleet)) = (answer.into_inner().neighbours, host.snapshots.fleet()) {
                    fleet.meet(list);
                }
            }
            Ok(Ok(_)) => {
                tracing::info!("control does not know this host: registering again");
                return;
            }
            failed => {
                host.sandboxes.put_back(&changed);
                // Said once: control may be away for long.
                if failures == 0 {
                    let status =
                        failed.map_or_else(|elapsed| elapsed.to_string(), |answer| format!("{answer:?}"));
                    tracing::warn!(status, "heartbeats fail");
                }
                failures = failures.saturating_add(1);
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
