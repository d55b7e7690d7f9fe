//! Garbage: what no function and no policy names any more, here and on every worker, once it is old.
//!
//! Everything on a worker is a copy that can be fetched or compiled again, so a name that is missing in the list costs time
//! and nothing else. Blobs are the originals: those go by the registry alone, and only when they were not put for so long
//! that no deploy under way can be about to name them.

use std::{collections::BTreeSet, path::Path, path::PathBuf, sync::Arc, time::Duration};
use warren_frontend::Frontend;
use warren_placement::{HostState, Worker};
use warren_proto::v1::RetainRequest;

/// How long a worker may take over it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A deploy may compile for so long before its code is named.
const LEAST_AGE: Duration = Duration::from_mins(10);

/// Looks for garbage, for as long as control lives. An age below [`LEAST_AGE`] is for tests.
pub(crate) async fn garbage(frontend: Arc<Frontend>, policies: PathBuf, age: Duration) {
    if age < LEAST_AGE {
        tracing::warn!(?age, "garbage is collected so soon that a slow deploy may have to be tried again");
    }
    // Not at once: policies that are kept for this very start are not named yet.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + age, age);
    loop {
        tick.tick().await;
        match frontend.sweep_blobs(age).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "blobs that no version names are gone"),
            Err(error) => tracing::warn!(error = error.message, "blobs cannot be swept"),
        }
        let policies_in_use = in_use(&frontend);
        sweep_policies(&policies, &policies_in_use);
        let named = frontend.catalog.digests();
        frontend.fleet.forget_holdings(&named);
        let digests: Vec<String> = named.into_iter().chain(policies_in_use).collect();
        let functions: Vec<String> =
            frontend.catalog.all().iter().map(|entry| entry.latest.name.to_string()).collect();
        let min_age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        // Code and files share one list: a digest names the same bytes in either place.
        let request =
            RetainRequest { code_digests: digests.clone(), task_digests: digests, functions, min_age_ms };
        let there = |worker: &Arc<Worker>| worker.status().state != HostState::Lost;
        for worker in frontend.fleet.all().into_iter().filter(there) {
            match tokio::time::timeout(PATIENCE, worker.client().retain(request.clone())).await {
                Ok(Ok(answer)) if answer.get_ref().removed == 0 => {}
                Ok(Ok(answer)) => {
                    let (removed, bytes) = (answer.get_ref().removed, answer.get_ref().bytes);
                    tracing::info!(host = %worker.id(), removed, bytes, "files that nothing names are gone");
                }
                Ok(Err(status)) => tracing::warn!(host = %worker.id(), %status, "garbage stays"),
                Err(_) => tracing::warn!(host = %worker.id(), "garbage stays: no answer"),
            }
        }
    }
}

/// Digests of the policies that are loaded or on their way.
fn in_use(frontend: &Frontend) -> BTreeSet<String> {
    let choosers = frontend.fleet.choosers();
    let all = [choosers.packing.status(), choosers.placement.status(), frontend.hub.routing().status()];
    all.into_iter().filter_map(|status| Some(status.identity?.digest)).collect()
}

/// Compiled policies that are kept for the next start, and are of earlier ones.
fn sweep_policies(dir: &Path, in_use: &BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let is_artefact = path.extension().is_some_and(|extension| extension == "artefact");
        if is_artefact
            && !in_use.contains(name)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an old policy stays");
        }
    }
}
