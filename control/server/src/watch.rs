//! What is looked after at every heartbeat: hosts that fell silent, sandboxes nobody wants, slots of calls long over.

use crate::fleet::withdraw;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use warren_assignment::Assignment;
use warren_frontend::Frontend;
use warren_placement::HEARTBEAT;

/// After a start, how long hosts of earlier lives have to register again before their slots are taken as free.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// Declares silent hosts lost, for as long as control lives.
pub(crate) async fn hosts(frontend: Arc<Frontend>, assignment: Arc<Assignment>) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(HEARTBEAT);
    let mut earlier = frontend.counting.hosts();
    loop {
        tick.tick().await;
        if began.elapsed() > RETURN_TIME {
            for host in std::mem::take(&mut earlier) {
                if frontend.fleet.get(&host).is_none() {
                    tracing::warn!(%host, "this host of an earlier life did not come back and is given up");
                    frontend.counting.host_dead(&host).await;
                }
            }
        }
        for worker in frontend.fleet.expire(Instant::now()) {
            tracing::warn!(host = %worker.id(), "no heartbeat: this host is lost, its sandboxes leave the table");
            withdraw(&frontend, &assignment.host_lost(worker.id()));
        }
        frontend.hub.tidy();
        frontend.lingering.sweep(Instant::now());
    }
}
