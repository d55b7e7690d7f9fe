//! A deploy: compiled on a worker first, its snapshot made and verified there, then durable, then answered.
//!
//! An update that changes nothing (same code, files and settings) makes no version: it answers with what is there.
//! Two deploys of one name at once: both compile, the registry's compare-and-set lets one win, the other is ABORTED.

use crate::{Frontend, catalog::FunctionEntry, intake::Intake, publish::Watcher, validate};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};
use warren_placement::{NoPlace, cannot_run, unix_ms, worker_error};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        CreateFunctionRequest, DeployPhase, FunctionConfig, FunctionVersion, Kind, PrepareVersionRequest,
        UpdateFunctionRequest,
    },
};
use warren_store::{BlobError, Digest, Revision, StoreError};
use warren_validation::{
    bad_request,
    function::{self, snap_start},
};

/// Longest a worker may take over one compilation.
pub(crate) const PREPARE_TIMEOUT: Duration = Duration::from_mins(5);

impl Frontend {
    /// Makes a function.
    pub(crate) async fn create_function(
        &self,
        request: CreateFunctionRequest,
        watcher: &Watcher,
    ) -> Result<Arc<FunctionEntry>, WireError> {
        function::name(&request.name)?;
        let config = function::config(request.config)?;
        let intake = Intake::of(config.kind(), Some(request.code), Some(request.task)).await?;
        if self.catalog.get(&request.name).is_some() {
            let message = format!("function {:?} exists; `warren fn update` changes it", request.name);
            return Err(WireError::new(Code::AlreadyExists, reason::FUNCTION_EXISTS, Fault::Caller, message));
        }
        let spec = spec(request.name, 1, config, &intake);
        self.deploy(None, spec, intake, watcher).await
    }

    /// Adds a version.
    pub(crate) async fn update_function(
        &self,
        request: UpdateFunctionRequest,
        watcher: &Watcher,
    ) -> Result<Arc<FunctionEntry>, WireError> {
        let seen =
            self.catalog.get(&request.name).ok_or_else(|| validate::no_such_function(&request.name))?;
        if request.expected_revision != 0 && request.expected_revision != seen.revision.0 {
            return Err(conflict(&request.name, Some(seen.revision)));
        }
        let latest = &seen.latest.spec;
        let config = match request.config {
            Some(config) => function::config(Some(config))?,
            None => config_of(latest),
        };
        let linux = config.kind() == Kind::Linux;
        if linux != (latest.kind() == Kind::Linux) && request.code.is_none() {
            return Err(bad_request("a function that becomes one of another kind needs other code"));
        }
        let intake = Intake::of(config.kind(), request.code, request.task).await?;
        let mut spec = spec(request.name, latest.version.saturating_add(1), config, &intake);
        if intake.code.is_none() || (linux && intake.task.is_none()) {
            (spec.code_digest, spec.code_bytes) = (latest.code_digest.clone(), latest.code_bytes);
        }
        if intake.task.is_none() {
            spec.task_digest.clone_from(&latest.task_digest);
        }
        // A Linux function may have got another build of its runtime: only the worker knows.
        if !linux && same(latest, &spec) {
            return Ok(seen);
        }
        let entry = self.deploy(Some(&seen), spec, intake, watcher).await?;
        if entry.revision == seen.revision {
            return Ok(seen);
        }
        self.hub.drain(&seen.latest);
        // Of the oldest versions, those that made room for this one.
        seen.versions
            .iter()
            .filter(|(number, _)| !entry.versions.contains_key(*number))
            .for_each(|(_, gone)| self.hub.drain(gone));
        Ok(entry)
    }

    /// Removes a function; what runs is let finish.
    pub async fn delete_function(&self, name: &str, expected: u64) -> Result<(), WireError> {
        let seen = self.catalog.get(name).ok_or_else(|| validate::no_such_function(name))?;
        if expected != 0 && expected != seen.revision.0 {
            return Err(conflict(name, Some(seen.revision)));
        }
        self.catalog.remove(&seen).await.map_err(|error| stored(name, error))?;
        self.apply_limits();
        for version in seen.versions.values() {
            self.hub.drain(version);
        }
        Ok(())
    }

    async fn deploy(
        &self,
        seen: Option<&Arc<FunctionEntry>>,
        mut spec: FunctionVersion,
        intake: Intake,
        watcher: &Watcher,
    ) -> Result<Arc<FunctionEntry>, WireError> {
        self.check_reservation(&spec)?;
        let name = spec.name.clone();
        let code = self.bytes_of(&spec.code_digest, intake.code).await?;
        let task = self.bytes_of(&spec.task_digest, intake.task).await?;
        let worker = self.fleet.any_for(&spec).map_err(no_place)?;
        let request =
            PrepareVersionRequest { version: Some(spec.clone()), code: code.clone(), task: task.clone() };
        watcher.enter(DeployPhase::Preparing, worker.id());
        let mut client = worker.client();
        let prepared = tokio::time::timeout(PREPARE_TIMEOUT, client.prepare_version(request))
            .await
            .map_err(|_| Status::unavailable("the worker did not finish in time"))
            .and_then(|prepared| prepared)
            .map_err(|status| {
                worker_error(&status, "the worker was lost while it compiled; nothing was changed")
            })?;
        let prepared = prepared.into_inner();
        (spec.world, spec.runtime_digest) = (prepared.world, prepared.runtime_digest);
        if let Some(seen) = seen.filter(|seen| same(&seen.latest.spec, &spec)) {
            return Ok(Arc::clone(seen));
        }
        self.publish(&worker, &mut spec, watcher).await?;
        self.fleet.holds(worker.id(), &spec);
        self.keep(code).await?;
        self.keep(task).await?;
        let entry = self
            .catalog
            .add_version(seen.map(|seen| &**seen), spec)
            .await
            .map_err(|error| stored(&name, error))?;
        self.apply_limits();
        Ok(entry)
    }

    /// The bytes themselves, or those kept under this digest.
    async fn bytes_of(&self, digest: &str, given: Option<Bytes>) -> Result<Bytes, WireError> {
        match given {
            Some(bytes) => Ok(bytes),
            None if digest.is_empty() => Ok(Bytes::new()),
            None => self.blob(digest).await,
        }
    }

    /// A blob by its digest.
    pub async fn blob(&self, digest: &str) -> Result<Bytes, WireError> {
        let Some(digest) = Digest::from_hex(digest) else {
            return Err(bad_request("digest must be 64 hex digits"));
        };
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.get(digest)).await
    }

    /// Removes blobs that no version needs and that were not put for so long: a deploy under way has its blobs, and no
    /// version yet.
    pub async fn sweep_blobs(&self, unused_for: Duration) -> Result<usize, WireError> {
        let keep = self.catalog.digests().iter().filter_map(|digest| Digest::from_hex(digest)).collect();
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.sweep(&keep, unused_for)).await
    }

    async fn keep(&self, bytes: Bytes) -> Result<(), WireError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.put(&bytes)).await.map(drop)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, WireError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| blob_error(&error)),
        Err(_stopped) => Err(store_failed("the blob store stopped")),
    }
}

/// Nobody to prepare the version.
fn no_place(none: NoPlace) -> WireError {
    match none {
        NoPlace::NoWorker | NoPlace::NoRoom { .. } => {
            let message = "no worker is ready to compile the function; see `warren hosts`, then try again";
            WireError::new(Code::Unavailable, reason::NO_WORKER_READY, Fault::System, message)
                .retryable(Some(Duration::from_secs(1)))
        }
        none => cannot_run(&none),
    }
}

fn spec(name: String, version: u64, config: FunctionConfig, intake: &Intake) -> FunctionVersion {
    let kind = config.kind();
    let (code, task) =
        (intake.code.as_deref().unwrap_or_default(), intake.task.as_deref().unwrap_or_default());
    // What people call a Linux function's code are its files.
    let shown = if kind == Kind::Linux { task } else { code };
    FunctionVersion {
        name,
        version,
        limits: config.limits,
        env: config.env,
        args: config.args,
        json_response: config.json_response,
        code_digest: digest_of(code),
        code_bytes: u64::try_from(shown.len()).unwrap_or(u64::MAX),
        task_digest: digest_of(task),
        created_unix_ms: unix_ms(),
        kind: kind.into(),
        runtime: config.runtime,
        handler: config.handler,
        network: config.network,
        snap_start: config.snap_start,
        ..FunctionVersion::default()
    }
}

/// Empty for no bytes: a function without files has no digest of nothing.
fn digest_of(bytes: &[u8]) -> String {
    if bytes.is_empty() { String::new() } else { Digest::of(bytes).to_string() }
}

fn config_of(spec: &FunctionVersion) -> FunctionConfig {
    FunctionConfig {
        limits: spec.limits,
        env: spec.env.clone(),
        args: spec.args.clone(),
        json_response: spec.json_response,
        kind: spec.kind,
        runtime: spec.runtime.clone(),
        handler: spec.handler.clone(),
        network: spec.network,
        // Of before there was a choice, it was not said.
        snap_start: snap_start(spec.kind(), spec.snap_start()).into(),
    }
}

fn same(latest: &FunctionVersion, spec: &FunctionVersion) -> bool {
    latest.code_digest == spec.code_digest
        && latest.task_digest == spec.task_digest
        && latest.runtime_digest == spec.runtime_digest
        && config_of(latest) == config_of(spec)
}

fn conflict(name: &str, current: Option<Revision>) -> WireError {
    let now = current.map_or_else(|| "deleted".to_owned(), |revision| format!("at revision {}", revision.0));
    let message =
        format!("function {name:?} was changed by somebody else meanwhile: it is {now}; look and try again");
    WireError::new(Code::Aborted, reason::REVISION_CONFLICT, Fault::Caller, message)
}

pub(crate) fn stored(name: &str, error: StoreError) -> WireError {
    match error {
        StoreError::Conflict { current } => conflict(name, current),
        StoreError::Full => disk_full(),
        other => store_failed(&other.to_string()),
    }
}

fn blob_error(error: &BlobError) -> WireError {
    match error {
        BlobError::Full => disk_full(),
        BlobError::Absent => {
            WireError::new(Code::NotFound, reason::NO_SUCH_BLOB, Fault::Caller, "there is no such blob")
        }
        BlobError::Damaged(_) | BlobError::Io(_) => {
            tracing::error!(%error, source = ?std::error::Error::source(error), "the blob store failed");
            store_failed(&error.to_string())
        }
    }
}

fn disk_full() -> WireError {
    let message = "the control layer's disk is full; nothing was changed; make room and try again";
    WireError::new(Code::ResourceExhausted, reason::DISK_FULL, Fault::System, message)
        .retryable(Some(Duration::from_secs(5)))
}

fn store_failed(what: &str) -> WireError {
    let message = format!("the control layer could not make the change durable: {what}");
    WireError::new(Code::Internal, reason::STORE_FAILED, Fault::System, message).retryable(None)
}
