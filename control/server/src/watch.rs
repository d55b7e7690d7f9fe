//! Watches for hosts that fell silent.

use crate::fleet::forget;
use std::{sync::Arc, time::Instant};
use warren_assignment::Assignment;
use warren_frontend::Frontend;
use warren_placement::HEARTBEAT;

/// Declares silent hosts lost, for as long as control lives.
pub(crate) async fn hosts(frontend: Arc<Frontend>, assignment: Arc<Assignment>) {
    let mut tick = tokio::time::interval(HEARTBEAT);
    loop {
        tick.tick().await;
        for worker in frontend.fleet.expire(Instant::now()) {
            tracing::warn!(host = %worker.id(), "no heartbeat: this host is lost, its sandboxes leave the table");
            forget(&frontend, &assignment.host_lost(worker.id()));
        }
    }
}
