//! Makes versions startable here; everybody who asks for the same one at once shares the work.

use super::{
    compile::{Compiler, in_background},
    error::PrepareError,
    sealed::{CodeCache, LinuxVersion, SealedCode, SealedVersion, Startable, TaskCache},
    spec::{VersionSpec, What},
    task::{self, check_archive},
};
use crate::{
    fleet::ControlClient,
    linux::{Kernel, Offer, Runtime},
    memfd::SealedFile,
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, future::Shared};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use warren_abi::boot::World as GuestWorld;
use warren_artefact::{Artefact, ArtefactKey, Digest, Purpose, World};
use warren_vmm_protocol::LoadSpec;

/// How long init may take, as in Lambda.
pub(crate) const INIT_TIMEOUT_MS: u32 = 10_000;
/// Most bytes of a module.
const MAX_CODE_BYTES: usize = 64 << 20;

/// What preparing found or did.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Ready to be mapped.
    pub version: Startable,
    /// Whether an artefact was there already.
    pub cached: bool,
    /// Time of the compilation, if one was made.
    pub compile: Duration,
}

type Answer = Result<(Arc<SealedCode>, Option<Duration>), PrepareError>;
type InFlight = Shared<BoxFuture<'static, Answer>>;

/// The versions of this host.
#[derive(Debug)]
pub struct Versions {
    compiler: Arc<Compiler>,
    control: ControlClient,
    code: CodeCache,
    tasks: TaskCache,
    task_dir: PathBuf,
    offer: Arc<Offer>,
    in_flight: Mutex<HashMap<ArtefactKey, InFlight>>,
}

impl Versions {
    /// Archives are kept in `task_dir`.
    pub fn new(
        compiler: Arc<Compiler>,
        control: ControlClient,
        task_dir: PathBuf,
        offer: Arc<Offer>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&task_dir)?;
        Ok(Self {
            compiler,
            control,
            code: CodeCache::default(),
            tasks: TaskCache::default(),
            task_dir,
            offer,
            in_flight: Mutex::default(),
        })
    }

    /// The compiler, for policies.
    #[must_use]
    pub const fn compiler(&self) -> &Arc<Compiler> {
        &self.compiler
    }

    /// Where archives are kept.
    #[must_use]
    pub fn task_dir(&self) -> &Path {
        &self.task_dir
    }

    /// Makes a version startable. Empty bytes mean: use what is kept, or fetch by digest.
    pub async fn prepare(
        self: &Arc<Self>,
        spec: &VersionSpec,
        code: Bytes,
        task: Bytes,
    ) -> Result<Prepared, PrepareError> {
        let digest = match &spec.what {
            What::Wasm { code } => *code,
            What::Linux { runtime, build, handler } => {
                // What cannot run here is not fetched either.
                self.offer.check()?;
                let task = self.task(spec.task, task, task::MAX_DISK).await?;
                let (runtime, kernel) = self.runtime(runtime.clone(), build.clone()).await?;
                let version = LinuxVersion { runtime, kernel, handler: handler.clone(), task };
                return Ok(Prepared {
                    version: Startable::Linux(version),
                    cached: true,
                    compile: Duration::ZERO,
                });
            }
        };
        let task = self.task(spec.task, task, task::MAX_MAPPED).await?;
        let (code, compiled) = self.code(digest, code).await?;
        if code.memory.initial_bytes > spec.memory_bytes() {
            let needed_mib = code.memory.initial_bytes.div_ceil(1 << 20);
            return Err(PrepareError::MemoryDemand { needed_mib, has_mib: spec.memory_mib });
        }
        let version = Startable::Wasm(SealedVersion { code, task });
        Ok(Prepared { version, cached: compiled.is_none(), compile: compiled.unwrap_or_default() })
    }

    async fn runtime(
        &self,
        name: String,
        build: Option<String>,
    ) -> Result<(Arc<Runtime>, Arc<Kernel>), PrepareError> {
        let offer = Arc::clone(&self.offer);
        let found = in_background(move || {
            let runtime = offer.runtime(&name, build.as_deref())?;
            let kernel = offer.kernel(&runtime.manifest)?;
            Ok::<_, PrepareError>((Arc::new(runtime), kernel))
        });
        found.await
    }

    /// A policy's artefact, kept or compiled; the engine verifies it against the builder key.
    pub async fn policy(&self, component: Bytes) -> Result<(Bytes, Duration), PrepareError> {
        check_size(component.len())?;
        let compiler = Arc::clone(&self.compiler);
        let module = component.clone();
        let kept = in_background(move || {
            compiler.kept(ArtefactKey::new(Digest::of(&module), Purpose::Policy, compiler.isa()))
        });
        let began = Instant::now();
        let artefact = match kept.await? {
            Some(artefact) => artefact,
            None => self.compiler.compile(component, Purpose::Policy).await?,
        };
        Ok((Bytes::copy_from_slice(artefact.envelope()), began.elapsed()))
    }

    async fn code(self: &Arc<Self>, digest: Digest, given: Bytes) -> Answer {
        let key = ArtefactKey::new(digest, Purpose::Function, self.compiler.isa());
        check_size(given.len())?;
        let given = verified("code", digest, given).await?;
        if let Some(code) = self.code.get(key) {
            return Ok((code, None));
        }
        self.shared(key, digest, given).await
    }

    /// Joins the work on `key`, or starts it. The work is a task of its own: it outlives a caller who goes away.
    fn shared(self: &Arc<Self>, key: ArtefactKey, digest: Digest, given: Bytes) -> InFlight {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = in_flight.get(&key) {
            return running.clone();
        }
        let versions = Arc::clone(self);
        let work = tokio::spawn(async move {
            let answer = versions.make(key, digest, given).await;
            versions.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            answer
        });
        let shared = async move { work.await.unwrap_or(Err(PrepareError::Internal)) }.boxed().shared();
        in_flight.insert(key, shared.clone());
        shared
    }

    async fn make(self: &Arc<Self>, key: ArtefactKey, digest: Digest, given: Bytes) -> Answer {
        let compiler = Arc::clone(&self.compiler);
        if let Some(artefact) = in_background(move || compiler.kept(key)).await? {
            return self.seal(key, artefact).await.map(|code| (code, None));
        }
        let module = if given.is_empty() {
            verified("code", digest, self.fetch(digest, MAX_CODE_BYTES).await?).await?
        } else {
            given
        };
        let began = Instant::now();
        let artefact = self.compiler.compile(module, Purpose::Function).await?;
        let took = began.elapsed();
        self.seal(key, artefact).await.map(|code| (code, Some(took)))
    }

    async fn seal(
        self: &Arc<Self>,
        key: ArtefactKey,
        artefact: Artefact,
    ) -> Result<Arc<SealedCode>, PrepareError> {
        let versions = Arc::clone(self);
        in_background(move || {
            let metadata = artefact.metadata();
            if !matches!(metadata.world, World::Preview1 | World::Function) {
                return Err(PrepareError::WrongWorld(format!("{:?}", metadata.world)));
            }
            let file = SealedFile::shared("function", artefact.code())?;
            let code = SealedCode {
                file,
                digest: metadata.code,
                world: metadata.world,
                isa: metadata.isa,
                memory: metadata.memory,
            };
            Ok(versions.code.insert(key, code))
        })
        .await
    }

    /// The archive of files, of at most `most` bytes: also one that is kept may have come for another kind of function.
    async fn task(
        self: &Arc<Self>,
        digest: Option<Digest>,
        given: Bytes,
        most: usize,
    ) -> Result<Option<Arc<SealedFile>>, PrepareError> {
        let file = self.any_task(digest, given, most).await?;
        match file.as_ref().map(|file| usize::try_from(file.len()).unwrap_or(usize::MAX)) {
            Some(len) if len > most => Err(task::TaskError::TooLarge { len, most }.into()),
            _ => Ok(file),
        }
    }

    async fn any_task(
        self: &Arc<Self>,
        digest: Option<Digest>,
        given: Bytes,
        most: usize,
    ) -> Result<Option<Arc<SealedFile>>, PrepareError> {
        let Some(digest) = digest else {
            return if given.is_empty() { Ok(None) } else { Err(unnamed(&given)) };
        };
        let given = verified("files", digest, given).await?;
        if let Some(kept) = self.tasks.get(digest) {
            return Ok(Some(kept));
        }
        let versions = Arc::clone(self);
        if let Some(kept) = in_background(move || versions.kept_task(digest)).await? {
            return Ok(Some(kept));
        }
        let archive = if given.is_empty() {
            verified("files", digest, self.fetch(digest, most).await?).await?
        } else {
            given
        };
        let versions = Arc::clone(self);
        in_background(move || {
            check_archive(&archive, most)?;
            let path = versions.task_path(digest);
            let fresh = path.with_extension(format!("new-{}", std::process::id()));
            let written = std::fs::write(&fresh, &archive).and_then(|()| std::fs::rename(&fresh, &path));
            if written.is_err() {
                let _ = std::fs::remove_file(&fresh);
            }
            written?;
            Ok(Some(versions.tasks.insert(digest, SealedFile::new("task", &archive)?)))
        })
        .await
    }

    /// A kept archive was checked before it was kept; its digest says that it is still the same.
    fn kept_task(&self, digest: Digest) -> Result<Option<Arc<SealedFile>>, PrepareError> {
        let bytes = match std::fs::read(self.task_path(digest)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if Digest::of(&bytes) != digest {
            tracing::warn!(%digest, "a kept archive is damaged and will be fetched again");
            return Ok(None);
        }
        Ok(Some(self.tasks.insert(digest, SealedFile::new("task", &bytes)?)))
    }

    async fn fetch(&self, digest: Digest, limit: usize) -> Result<Bytes, PrepareError> {
        let fetched = self.control.fetch_blob(&digest.to_string(), limit).await;
        fetched.map_err(|message| PrepareError::Fetch { digest, message })
    }

    fn task_path(&self, digest: Digest) -> PathBuf {
        self.task_dir.join(format!("{digest}.tar"))
    }
}

/// How a guest is told of a world.
pub(crate) fn guest_world(world: World) -> Result<GuestWorld, PrepareError> {
    match world {
        World::Preview1 => Ok(GuestWorld::WasiPreview1),
        World::Function => Ok(GuestWorld::Component),
        other => Err(PrepareError::WrongWorld(format!("{other:?}"))),
    }
}

/// What a VMM is told of a version that it loads, under this label.
pub fn load_spec(label: &str, spec: &VersionSpec, version: &SealedVersion) -> Result<LoadSpec, PrepareError> {
    Ok(LoadSpec {
        function: spec.for_guest(guest_world(version.code.world)?),
        memory_bytes: spec.memory_bytes(),
        isa: version.code.isa,
        code_len: version.code.file.len(),
        task_len: version.task.as_ref().map_or(0, |task| task.len()),
        init_timeout_ms: INIT_TIMEOUT_MS,
        label: label.to_owned(),
    })
}

fn check_size(len: usize) -> Result<(), PrepareError> {
    if len > MAX_CODE_BYTES {
        let limit = MAX_CODE_BYTES as u64;
        return Err(PrepareError::Compile(warren_artefact::CompileError::TooLarge { limit }));
    }
    Ok(())
}

fn unnamed(given: &[u8]) -> PrepareError {
    PrepareError::Digest { what: "files", found: Digest::of(given), named: Digest([0; 32]) }
}

/// Lets bytes through that have the digest; empty ones stay empty.
async fn verified(what: &'static str, named: Digest, bytes: Bytes) -> Result<Bytes, PrepareError> {
    if bytes.is_empty() {
        return Ok(bytes);
    }
    in_background(move || match Digest::of(&bytes) {
        found if found == named => Ok(bytes),
        found => Err(PrepareError::Digest { what, found, named }),
    })
    .await
}
