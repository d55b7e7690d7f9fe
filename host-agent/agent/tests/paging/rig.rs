//! A host whose agent is this process: the jailer and all that it starts are real, so is the pager.

use crate::{
    kept::{KEEPER, expected},
    process::Process,
};
use bytes::Bytes;
use clap::Parser as _;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{self, Seek as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use warren_agent::{
    config::Config,
    host::Host,
    memfd::{SealedFile, unsealed},
    sandbox::{
        CreateError, InvokeError, Sandbox,
        birth::{Timings, create},
        door::Door,
        invoke::{Invocation, run},
        machine::Cause,
    },
    snapshot::{FleetSnapshot, Found, Place, SealedSnapshot, Shelf, Snapshots},
    version::{SealedVersion, Startable, VersionSpec, load_spec},
    vmm::{ControlChannel, InvokeChannel, Progress},
    zygote::Class,
};
use warren_artefact::{Part, SigningKey, SnapshotHead, SnapshotOf, snapshot::copy};
use warren_chunks::{
    Store,
    l1::{Local, Memory},
    l3::{Origin, OriginLimits, S3},
};
use warren_identity::{HostId, ensure_local_at};
use warren_proto::v1;
use warren_sandbox_plan::request::{Program, Spawn};
use warren_vmm_protocol::{InvokeRequest, Outcome};

/// Everything a test waits for happens within this, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Rig {
    dir: TempDir,
    jailer: Process,
    origin: Place,
    pub(crate) host: Arc<Host>,
    version: v1::FunctionVersion,
    spec: VersionSpec,
    requests: AtomicU32,
}

pub(crate) fn expected_answer(offset: u32, len: u32) -> Vec<u8> {
    expected(offset, len)
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_over(None).await
    }

    /// The same with a bucket where the fleet has a folder.
    pub(crate) async fn start_over(bucket: Option<S3>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() % 1000 * 16 + NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        let dir = tempfile::Builder::new().prefix("wp").tempdir().unwrap();
        let path = dir.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let host = Some(HostId::new("h1").unwrap());
        ensure_local_at(&path.join("identity"), host, std::time::SystemTime::now()).unwrap();
        for folder in ["run", "origin"] {
            std::fs::create_dir(path.join(folder)).unwrap();
        }
        let jailer = jailer(path, number);
        let folder = || Place::Folder(path.join("origin"));
        let origin = bucket.map_or_else(folder, |bucket| Place::S3(Box::new(bucket)));
        let host = open(path, "second", &["--snapshots-mib=0"], Some(&origin));
        tokio::spawn(Snapshots::bring_chunks(Arc::clone(&host)));
        let limits = v1::FunctionLimits {
            memory_mib: 128,
            timeout_ms: 20_000,
            tmp_mib: 16,
            reserved_concurrency: None,
        };
        let module = wat::parse_str(KEEPER).unwrap();
        let version = v1::FunctionVersion {
            name: "keeper".to_owned(),
            version: 1,
            code_digest: blake3::hash(&module).to_hex().to_string(),
            code_bytes: module.len() as u64,
            limits: Some(limits),
            ..v1::FunctionVersion::default()
        };
        let spec = VersionSpec::check(Some(&version)).unwrap();
        host.versions.prepare(&spec, Bytes::from(module), Bytes::new()).await.unwrap();
        Self { dir, jailer, origin, host, version, spec, requests: AtomicU32::new(0) }
    }

    /// Has another host publish what a fleet would: here a snapshot of a keeper that has written its file.
    pub(crate) async fn publish(&self) {
        let Self { dir, spec, .. } = self;
        let first = open(dir.path(), "first", &["--snapshots-mib=64"], None);
        let module = Bytes::from(wat::parse_str(KEEPER).unwrap());
        let startable = first.versions.prepare(spec, module, Bytes::new()).await.unwrap().version;
        // What it makes by itself says what exactly one has to be of.
        let made = first.snapshots.publish(&first, spec, &startable).await.unwrap();
        let Some(Found::Kept(kept)) = first.snapshots.find(&first, spec, &startable).await else {
            panic!("it is not kept")
        };
        first.snapshots.remove(&made.to_string(), false).await.unwrap();
        let Startable::Wasm(version) = &startable else { panic!("it is no Wasm function") };
        let written = written(&first, spec, kept.head.of().clone(), version).await;
        let data = dir.path().join("first");
        let files = Shelf::open(data.join("snapshots"), 64 << 20).unwrap();
        files.put(&written, &SigningKey::load_or_create(&data.join("builder.key")).unwrap()).unwrap();
        drop(first);
        let flags = ["--snapshots-mib=64", "--no-pager"];
        let sharing = open(dir.path(), "first", &flags, Some(&self.origin));
        Snapshots::share_all(&sharing);
        until("the fleet has it", async || self.entry().await).await;
    }

    /// What the fleet has.
    pub(crate) async fn entry(&self) -> Option<Arc<FleetSnapshot>> {
        let Self { host, spec, .. } = self;
        let startable = host.versions.prepare(spec, Bytes::new(), Bytes::new()).await.unwrap().version;
        match host.snapshots.find(host, spec, &startable).await {
            Some(Found::Fleet(fleet)) => Some(fleet),
            Some(Found::Kept(_)) => panic!("this host keeps none"),
            None => None,
        }
    }

    /// Where the origin has the chunks of memory, and nothing else.
    pub(crate) async fn chunks(&self) -> Vec<PathBuf> {
        let entry = self.entry().await.unwrap();
        let place = Origin::folder(&self.dir.path().join("origin"), OriginLimits::default()).unwrap();
        let store = Store::new(Local::new(Memory::new(0), None), None, place);
        let names = store.manifest(entry.memory, &entry.key).await.unwrap().names();
        let area = self.dir.path().join("origin/chunks");
        let found: Vec<_> = names
            .into_iter()
            .map(|name| area.join(name.shard()).join(name.to_string()))
            .filter(|path| path.is_file())
            .collect();
        assert!(!found.is_empty(), "no chunk where they are looked for");
        found
    }

    pub(crate) async fn create(&self, id: &str) -> Result<(Arc<Sandbox>, Timings), CreateError> {
        let request = v1::CreateSandboxRequest {
            sandbox_id: id.to_owned(),
            version: Some(self.version.clone()),
            partition: 0,
            epoch: 1,
        };
        create(&self.host, request).await
    }

    /// So many bytes of its file.
    pub(crate) async fn invoke(
        &self,
        sandbox: &Arc<Sandbox>,
        offset: u32,
        len: u32,
    ) -> Result<Bytes, InvokeError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = v1::InvokeSandboxRequest {
            sandbox_id: sandbox.about.id.to_string(),
            request_id: format!("r-{number}"),
            payload: [offset.to_le_bytes(), len.to_le_bytes()].concat().into(),
            grant_id: 7,
            grant_epoch: 1,
            ..v1::InvokeSandboxRequest::default()
        };
        let invocation = Invocation::check(request, sandbox.about.timeout_ms)?;
        let begun = invocation.begin(&self.host, sandbox).await?;
        run(Arc::clone(&self.host), begun, invocation, None).await.map(|answer| answer.payload)
    }

    pub(crate) async fn check(&self, sandbox: &Arc<Sandbox>, offset: u32, len: u32) {
        let answer = self.invoke(sandbox, offset, len).await.unwrap();
        assert!(answer == expected(offset, len), "{len} bytes at {offset} are others");
    }

    pub(crate) async fn destroy(&self, sandbox: &Arc<Sandbox>) {
        sandbox.kill(Cause::Destroyed("test".to_owned()));
        sandbox.wait_gone().await;
    }

    /// Another pager, whose cache has nothing in it.
    pub(crate) async fn pager_without_cache(&self) {
        let pid = self.pager().await;
        kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
        // It writes no more, and the next one does not read yet.
        for shard in std::fs::read_dir(self.dir.path().join("second/pager/chunks")).unwrap() {
            let shard = shard.unwrap().path();
            if shard.is_dir() {
                std::fs::remove_dir_all(shard).unwrap();
            }
        }
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        until("another pager is there", async || {
            self.host.pager.known().filter(|known| known.pid.is_some_and(|new| new != pid))
        })
        .await;
    }

    /// The pager's process.
    pub(crate) async fn pager(&self) -> i32 {
        until("the pager is there", async || self.host.pager.known()?.pid).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // It ends every VM, and the pager.
        self.jailer.terminate();
    }
}

/// Asks again and again until it is so; the pause only yields the processor.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A snapshot of a keeper that has written its file, of what a host's own would be of.
async fn written(
    host: &Arc<Host>,
    spec: &VersionSpec,
    of: SnapshotOf,
    version: &SealedVersion,
) -> SealedSnapshot {
    let name = host.run.name("keeper").unwrap();
    let Door { socket, theirs, log: _log } = host.run.door(&name).unwrap();
    let limits = Class::of_wasm(spec.memory_mib, version).limits();
    host.jailer.spawn(Spawn { name: name.clone(), program: Program::Vmm, limits }, theirs).await.unwrap();
    let mut control = ControlChannel::connect(&socket).await.unwrap();
    let load = load_spec(name.as_str(), spec, version).unwrap();
    control.load(load, &[version.code.file.as_fd()]).await.unwrap();
    let mut channel = InvokeChannel::connect(&socket).await.unwrap();
    let request =
        InvokeRequest { id: "write".into(), timeout_ms: 20_000, context: b"{}".to_vec(), payload_len: 8 };
    channel.send(&request, &[0; 8]).await.unwrap();
    let done = loop {
        if let Progress::Done(done, _) = channel.next().await.unwrap() {
            break done;
        }
    };
    assert_eq!(done.outcome, Outcome::Response);
    let mut memory = unsealed("memory").unwrap();
    memory.set_len(64 << 20).unwrap();
    let (state, len) = control.snapshot(memory.as_fd()).await.unwrap();
    host.jailer.kill_until_gone(&name).await;
    host.run.remove(&name);
    memory.set_len(len).unwrap();
    memory.rewind().unwrap();
    let mut part = None;
    let memory = SealedFile::filled("snapshot", |sealed| {
        part = Some(copy(&mut memory, sealed)?);
        Ok::<_, io::Error>(())
    });
    let head = SnapshotHead::new(of, state, part.unwrap(), Part::of(b""), 0);
    SealedSnapshot { head, memory: memory.unwrap(), disk: None }
}

/// An agent's own parts, over a data directory of its own.
fn open(dir: &Path, data: &str, flags: &[&str], origin: Option<&Place>) -> Arc<Host> {
    let place = |name: &str, path: &str| format!("--{name}={}", dir.join(path).display());
    let common = [place("data", data), place("identity", "identity"), place("jailer", "run/jailer.sock")];
    let words = ["warren-agent", "--memory-mib=4096", "--zygotes-mib=0"].into_iter();
    let mut config =
        Config::parse_from(words.chain(common.iter().map(String::as_str)).chain(flags.iter().copied()));
    config.snapshot_origin = origin.cloned();
    Host::open(&config).unwrap()
}

fn jailer(dir: &Path, number: u32) -> Process {
    let mut command = Command::new(binary("warren-jailer"));
    command.arg("serve").arg("--socket").arg(dir.join("run/jailer.sock"));
    command.arg("--state").arg(dir.join("jailer")).args(["--agent-uid=0", "--slots=256"]);
    command.arg("--uid-base").arg((2_000_000 + number * 256).to_string());
    for (flag, name) in [
        ("--vmm", "warren-vmm"),
        ("--guest", "warren-guest"),
        ("--compile", "warren-compile"),
        ("--pager", "warren-pager"),
    ] {
        command.arg(flag).arg(binary(name));
    }
    Process::start("jailer", command)
}

/// A program of this build: what cargo made of it last, or what `cargo xtask build` collected.
fn binary(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Path::new(env!("CARGO_BIN_EXE_warren-agent")).with_file_name(name);
    let collected =
        std::env::var_os("WARREN_BIN").map_or_else(|| root.join("target/warren/bin"), PathBuf::from);
    let guest = root.join("vmm/guest/target/x86_64-unknown-none/release").join(name);
    let places = [built, collected.join(name), guest];
    let found = places.iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo xtask build`")).clone()
}
