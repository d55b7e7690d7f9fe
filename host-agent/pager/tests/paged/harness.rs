//! A `warren-pager` process over a folder for an origin, with the test in the agent's place. (The monitor's tests of Linux guests
//! have it too.)

use crate::support::real::image;
use crate::support::vmm::{send_with, try_receive};
use crate::support::{Vmm, life::Snapshot};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, socketpair,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use warren_chunks::{
    ChunkSize, Image, LayerKind, Manifest, Name, Salts, Store, TenantKey,
    cut::{FileSource, Source, cut},
    image::Place,
    l1::{Local, Memory},
    l3::{Origin, OriginLimits},
    learn::learn,
    linear::Linear,
    pages::PAGE_BYTES,
};
use warren_pager::{
    Entry, Manner, packet,
    protocol::{PACKET_MAX, PROTOCOL_VERSION, Reply, Request, Serve, decode, encode},
};
use warren_state::wasm::{Run, WasmState};
use warren_vmm_protocol::{ControlReply, ControlRequest, RestoreSpec};

const KEY: [u8; 32] = [9; 32];

/// Pager, origin and what is published there.
pub(crate) struct Harness {
    pub(crate) folder: TempDir,
    runtime: Runtime,
    store: Store,
    pub(crate) pager: Child,
    agent: OwnedFd,
}

pub(crate) fn key() -> TenantKey {
    TenantKey::new(KEY)
}

pub(crate) fn salts() -> Salts {
    Salts::new([3; 32], [0; 3])
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Both ends of the socket between a VMM and the pager.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

impl Harness {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(async { store(&folder.path().join("origin")) });
        let (pager, agent) = spawn(folder.path(), &[]);
        Self { folder, runtime, store, pager, agent }
    }

    /// Another pager over the same origin: it has nothing in memory. With more flags, another kind of one.
    pub(crate) fn again(&mut self, flags: &[&str]) {
        self.stop();
        (self.pager, self.agent) = spawn(self.folder.path(), flags);
    }

    fn stop(&mut self) {
        self.pager.kill().unwrap();
        self.pager.wait().unwrap();
    }

    /// Cuts a snapshot's memory into chunks, all of it at the origin before this is back.
    pub(crate) fn publish(&self, snapshot: &Snapshot) -> Name {
        let state: WasmState = warren_state::open(&snapshot.state).unwrap();
        self.publish_runs(snapshot, &state.runs)
    }

    /// The same of any kind of guest, whose snapshot's memory has these runs.
    pub(crate) fn publish_runs(&self, snapshot: &Snapshot, runs: &[Run]) -> Name {
        let file = FileSource::new(snapshot.memory.try_clone().unwrap().into()).unwrap();
        self.publish_image(&Linear::new(file, runs.iter().map(|run| (run.gpa, run.len))).unwrap())
    }

    /// The same of a disk, as it is in its file now.
    #[allow(dead_code, reason = "Wasm guests have none")]
    pub(crate) fn publish_disk(&self, disk: &OwnedFd) -> Name {
        self.publish_image(&FileSource::new(disk.try_clone().unwrap().into()).unwrap())
    }

    fn publish_image(&self, image: &impl Source) -> Name {
        let mut chunks = Vec::new();
        let manifest = cut(image, ChunkSize::DEFAULT, &salts().newest(LayerKind::Function), |sealed| {
            chunks.push(sealed);
            Ok::<(), std::convert::Infallible>(())
        });
        self.runtime.block_on(async {
            for sealed in chunks {
                self.store.put(sealed.name, sealed.bytes).await.unwrap();
            }
            self.store.publish(&manifest.unwrap(), &key()).await.unwrap()
        })
    }

    pub(crate) fn manifest(&self, name: Name) -> Manifest {
        self.runtime.block_on(self.store.manifest(name, &key())).unwrap()
    }

    /// The manifest with what one more resume touched.
    pub(crate) fn learned(&self, name: Name, entry: &Entry) -> Name {
        let log = entry.log().unwrap();
        self.runtime.block_on(learn(&self.store, (name, &key()), &log, &salts())).unwrap().0
    }

    /// A page of an image without a base.
    pub(crate) fn page(&self, name: Name, page: u32) -> Vec<u8> {
        let image = Image::whole(self.manifest(name)).unwrap();
        let Place::In { chunk, rank, of, .. } = image.place(page) else { return vec![0; PAGE_BYTES] };
        let plain = self.runtime.block_on(self.store.chunk(chunk, of)).unwrap();
        plain[rank as usize * PAGE_BYTES..][..PAGE_BYTES].to_vec()
    }

    /// Where the origin has an object.
    pub(crate) fn file_of(&self, name: Name) -> PathBuf {
        let name = name.to_string();
        let mut folders = vec![self.folder.path().join("origin")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with(&name) {
                    return entry.path();
                }
            }
        }
        panic!("{name} is not at the origin");
    }

    /// Moves an origin's objects out of the pager's reach: the folder where they are, for an agent that brings them.
    #[allow(dead_code, reason = "not of every kind of guest")]
    pub(crate) fn move_away(&self) -> PathBuf {
        let (here, there) = (self.folder.path().join("origin/chunks"), self.folder.path().join("far"));
        std::fs::rename(&here, &there).unwrap();
        std::fs::create_dir(here).unwrap();
        there
    }

    /// The socket by which the pager asks for what it cannot reach.
    #[allow(dead_code, reason = "not of every kind of guest")]
    pub(crate) fn attach(&self) -> OwnedFd {
        let (ours, theirs) = pair();
        assert!(matches!(self.ask(&Request::Upstream, &[&theirs]), Reply::Figures { .. }));
        ours
    }

    pub(crate) fn ask(&self, request: &Request, descriptors: &[&OwnedFd]) -> Reply {
        ask(&self.agent, request, descriptors)
    }

    /// Has the pager serve who has the other end.
    pub(crate) fn serve(&self, name: Name, manner: Manner, socket: &OwnedFd) -> u64 {
        let serve = Serve { manifest: name.0, key: KEY, manner };
        match self.ask(&Request::Serve(serve), &[socket]) {
            Reply::Serving { id } => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn report(&self, id: u64) -> Entry {
        self.ask(&Request::Report { id }, &[]).entry().unwrap()
    }

    /// Waits for the end of serving a VM, and says why that was.
    pub(crate) fn over(&self, id: u64) -> String {
        for _ in 0..6000 {
            if let Some(why) = self.report(id).ended {
                return why;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("it is served still");
    }

    /// A VM that the pager serves, restored, and what it is called there.
    pub(crate) fn restored(
        &self,
        name: Name,
        manner: Manner,
        snapshot: &Snapshot,
        code: &OwnedFd,
    ) -> (Vmm, u64) {
        let (ours, theirs) = pair();
        let id = self.serve(name, manner, &ours);
        let vmm = Vmm::spawn_with(image(), &["--restore", "--paged"]);
        let reply = restore(&mut vmm.control(), snapshot, &[&theirs, code]);
        assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
        (vmm, id)
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn ask(agent: &OwnedFd, request: &Request, descriptors: &[&OwnedFd]) -> Reply {
    let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    packet::send(agent, &encode(request).unwrap(), &borrowed).unwrap();
    decode(&packet::receive(agent, PACKET_MAX).unwrap().unwrap().bytes).unwrap()
}

/// Asks a VMM to restore with these descriptors.
pub(crate) fn restore(
    control: &mut UnixStream,
    snapshot: &Snapshot,
    descriptors: &[&OwnedFd],
) -> Option<ControlReply> {
    let spec = RestoreSpec { state: snapshot.state.clone(), label: "test-function".into() };
    send_with(control, &ControlRequest::RestorePaged(spec), descriptors);
    try_receive(control)
}

fn store(origin: &Path) -> Store {
    let origin = Origin::folder(origin, OriginLimits::default()).unwrap();
    Store::new(Local::new(Memory::new(0), None), None, origin)
}

fn spawn(folder: &Path, flags: &[&str]) -> (Child, OwnedFd) {
    let path = folder.join("pager.sock");
    let _ = std::fs::remove_file(&path);
    let address = SocketAddrUnix::new(&path).unwrap();
    let listener = seqpacket();
    bind(&listener, &address).unwrap();
    listen(&listener, 8).unwrap();
    let built = option_env!("CARGO_BIN_EXE_warren-pager").map(PathBuf::from);
    // Of a test of another crate it names the program.
    let program = std::env::var_os("WARREN_PAGER").map(PathBuf::from).or(built);
    let child = Command::new(program.unwrap())
        .arg("serve")
        .arg(format!("--origin={}", folder.join("origin").display()))
        .args(flags)
        .env_clear()
        .stdin(Stdio::from(listener))
        .spawn()
        .unwrap();
    let agent = seqpacket();
    connect(&agent, &address).unwrap();
    let reply = ask(&agent, &Request::Hello { version: PROTOCOL_VERSION }, &[]);
    assert_eq!(reply, Reply::Hello { version: PROTOCOL_VERSION });
    (child, agent)
}
