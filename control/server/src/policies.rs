//! Policies: read from a directory, compiled by a worker (jailed there), loaded, kept.
//!
//! Until one is loaded, the engine's built-in default decides; no invocation waits for any of this. A policy that
//! cannot be compiled or loaded (a full disk, a worker that went away) is tried again: after a pause that grows, when a
//! worker registers, and when somebody asks (`warren policy retry`).

use anyhow::Context;
use bytes::Bytes;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use warren_artefact::VerifyingKey;
use warren_frontend::Frontend;
use warren_placement::Worker;
use warren_policy_engine::{Identity, Kind, Limits, Policy, Runtime, State};
use warren_proto::v1::CompilePolicyRequest;
use warren_store::Digest;

/// A worker that registered, and the key of the builder it signs artefacts with.
pub(crate) type Builder = Option<(Arc<Worker>, Vec<u8>)>;

/// The pause after a first failure; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// One component of the directory.
struct Component {
    kind: Kind,
    identity: Identity,
    bytes: Bytes,
}

/// Loads what is in the directory as soon as there is a worker to compile it.
pub(crate) async fn load(
    frontend: Arc<Frontend>,
    dir: PathBuf,
    kept: PathBuf,
    mut builders: watch::Receiver<Builder>,
    mut retries: mpsc::Receiver<oneshot::Sender<()>>,
) -> anyhow::Result<()> {
    let components = read(&dir)?;
    for component in &components {
        announce(&frontend, component);
    }
    let runtime = Runtime::start(Limits::default()).context("cannot start the policy runtime")?;
    fs::create_dir_all(&kept).context("cannot make the directory of compiled policies")?;
    let mut pause = FIRST_PAUSE;
    let mut asked: Option<oneshot::Sender<()>> = None;
    loop {
        let builder = builders.borrow_and_update().clone();
        let mut failures = false;
        if let Some((worker, key)) = builder {
            for component in components.iter().filter(|component| !is_loaded(&frontend, component.kind)) {
                if let Err(error) = load_one(&frontend, &runtime, component, &worker, &key, &kept).await {
                    failures = true;
                    let (kind, error) = (component.kind.as_str(), format!("{error:#}"));
                    let again = pause.as_secs();
                    tracing::error!(
                        kind,
                        error,
                        again,
                        "this policy is not loaded; tried again in so many seconds"
                    );
                    failed(&frontend, component.kind, told(&error, pause));
                }
            }
        }
        // Whoever asked for this try may have gone meanwhile.
        if let Some(asked) = asked.take() {
            let _gone = asked.send(());
        }
        tokio::select! {
            changed = builders.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                pause = FIRST_PAUSE;
            }
            Some(somebody) = retries.recv() => (pause, asked) = (FIRST_PAUSE, Some(somebody)),
            () = tokio::time::sleep(pause), if failures => pause = longer(pause),
        }
    }
}

/// The failure, and that it is not the last word.
fn told(error: &str, pause: Duration) -> String {
    let seconds = pause.as_secs();
    format!("{error} (tried again {seconds} s later, when a worker registers, and by `warren policy retry`)")
}

fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(LONGEST_PAUSE)
}

fn read(dir: &Path) -> anyhow::Result<Vec<Component>> {
    let mut components = Vec::new();
    for kind in [Kind::Packing, Kind::Placement, Kind::Routing] {
        let path = dir.join(format!("{}.wasm", kind.as_str()));
        if path.exists() {
            let bytes =
                Bytes::from(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            let identity =
                Identity { name: kind.as_str().to_owned(), digest: Digest::of(&bytes).to_string() };
            components.push(Component { kind, identity, bytes });
        }
    }
    Ok(components)
}

async fn load_one(
    frontend: &Frontend,
    runtime: &Arc<Runtime>,
    component: &Component,
    worker: &Worker,
    key: &[u8],
    kept: &Path,
) -> anyhow::Result<()> {
    let key: [u8; 32] = key.try_into().context("the worker's builder key is not 32 bytes")?;
    let trusted = [VerifyingKey::from_bytes(&key).context("the worker's builder key is no key")?];
    let file = kept.join(format!("{}.artefact", component.identity.digest));
    // What is kept was signed once; whether it still fits this release and builder is for the engine to say.
    if let Ok(envelope) = fs::read(&file)
        && let Ok(policy) = Policy::open(runtime, &component.identity.name, envelope, &trusted)
        && swap_in(frontend, component.kind, &policy).is_ok()
    {
        tracing::info!(kind = component.kind.as_str(), "a kept policy is active");
        return Ok(());
    }
    let request = CompilePolicyRequest { component: component.bytes.clone() };
    let compiled = worker.client().compile_policy(request).await;
    let compiled =
        compiled.map_err(|status| anyhow::anyhow!("the worker did not compile it: {}", status.message()))?;
    let compiled = compiled.into_inner();
    let policy = Policy::open(runtime, &component.identity.name, compiled.artefact.to_vec(), &trusted)
        .context("the compiled policy is refused")?;
    swap_in(frontend, component.kind, &policy)?;
    tracing::info!(kind = component.kind.as_str(), compile_ms = compiled.compile_ms, "a policy is active");
    // Kept for the next start; without it that start compiles again.
    if let Err(error) = fs::write(&file, &compiled.artefact) {
        tracing::warn!(%error, "a compiled policy could not be kept");
    }
    Ok(())
}

fn swap_in(frontend: &Frontend, kind: Kind, policy: &Arc<Policy>) -> anyhow::Result<()> {
    let choosers = frontend.fleet.choosers();
    match kind {
        Kind::Packing => choosers.packing.load(policy),
        Kind::Placement => choosers.placement.load(policy),
        Kind::Routing => frontend.hub.routing().load(policy),
    }
    .context("the policy does not start")
}

fn announce(frontend: &Frontend, component: &Component) {
    let (choosers, identity) = (frontend.fleet.choosers(), component.identity.clone());
    match component.kind {
        Kind::Packing => choosers.packing.compiling(identity),
        Kind::Placement => choosers.placement.compiling(identity),
        Kind::Routing => frontend.hub.routing().compiling(identity),
    }
}

fn failed(frontend: &Frontend, kind: Kind, error: String) {
    let choosers = frontend.fleet.choosers();
    match kind {
        Kind::Packing => choosers.packing.compilation_failed(error),
        Kind::Placement => choosers.placement.compilation_failed(error),
        Kind::Routing => frontend.hub.routing().compilation_failed(error),
    }
}

/// Loaded, whether it decides now or rests after failures: the engine sees to the latter by itself.
fn is_loaded(frontend: &Frontend, kind: Kind) -> bool {
    let choosers = frontend.fleet.choosers();
    let state = match kind {
        Kind::Packing => choosers.packing.status().state,
        Kind::Placement => choosers.placement.status().state,
        Kind::Routing => frontend.hub.routing().status().state,
    };
    matches!(state, State::Active | State::Fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_five_minutes() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some(longer(*pause)));
        let seconds: Vec<u64> = pauses.take(11).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn what_failed_is_said_and_that_it_is_tried_again() {
        let said = told("no space", Duration::from_secs(8));
        assert!(said.starts_with("no space (tried again 8 s later"), "{said}");
    }
}
