//! What is beyond the link: a bucket with every chunk, and another worker that has them all in memory.
//!
//! The worker's socket is opened by this process in the network namespace there. The pager is threads of this process, over a store that
//! has nothing of its own. Recorded runs, which bring page by page and read chunks again and again, are on the far side.

use super::{Shape, guest::Written};
use crate::Places;
use anyhow::{Context as _, Result, ensure};
use rustix::fd::AsFd as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use warren_chunks::{
    ChunkSize, LayerKind, Name, Salts, Store, TenantKey,
    cut::{FileSource, cut},
    l1::{Local, Memory},
    l2::{Peer, PeerLimits, Peers, Service},
    l3::{Origin, OriginLimits, S3},
    learn::learn,
    linear::Linear,
    manifest::{AccessLog, Manifest},
};
use warren_pager::{
    Entry, Journal, Manner,
    fetch::Source,
    serve::{Order, serve},
};
use warren_state::linux::LinuxState;

/// Chunks in flight when all are fetched first.
const AT_ONCE: usize = 16;

fn key() -> TenantKey {
    TenantKey::new([5; 32])
}

/// Three stores over the same chunks.
pub(super) struct Far {
    runtime: Runtime,
    /// The far worker's.
    pub(super) there: Store,
    /// This side's, which has nothing but the bucket.
    pub(super) bucket: Store,
    /// The same with nothing but the worker, before a bucket of another name that is empty.
    pub(super) worker: Store,
    salts: Salts,
}

impl Far {
    pub(super) fn start(runtime: Runtime, shape: Shape<'_>) -> Result<Self> {
        let listener = listen(shape)?;
        let (there, bucket, worker) = runtime.block_on(async {
            let origin = |prefix: &str| {
                let config = S3 {
                    endpoint: Some(shape.bucket.to_owned()),
                    region: "us-east-1".into(),
                    bucket: "warren".into(),
                    prefix: prefix.into(),
                    access_key: "bench".into(),
                    secret_key: "bench-secret".into(),
                    roots: None,
                };
                Origin::s3(config, OriginLimits::default())
            };
            let there = Store::new(Local::new(Memory::new(4 << 30), None), None, origin("there")?);
            let listener = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
            let service = Service::new(there.local().clone(), 64).into_server();
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));
            let channel = Channel::from_shared(format!("http://{}", shape.worker))?.connect_lazy();
            // One alone has them, and takes as long as the link does.
            let limits = PeerLimits { deadline: Duration::from_mins(1), ..PeerLimits::default() };
            let peers = Peers::new("here".into(), vec![Peer { id: "there".into(), channel }], limits);
            let nothing = || Local::new(Memory::new(0), None);
            let bucket = Store::new(nothing(), None, origin("there")?);
            let worker = Store::new(nothing(), Some(Arc::new(peers)), origin("nothing")?);
            anyhow::Ok((there, bucket, worker))
        })?;
        Ok(Self { runtime, there, bucket, worker, salts: Salts::new([1; 32], [0; 3]) })
    }

    pub(super) fn publish(&self, written: &Written, state: &LinuxState) -> Result<Name> {
        let file = FileSource::new(File::from(written.memory.try_clone()?))?;
        let memory = Linear::new(file, state.runs.iter().map(|run| (run.gpa, run.len)))
            .context("runs that are not the memory's")?;
        let manifest = cut(&memory, ChunkSize::DEFAULT, &self.salts.newest(LayerKind::Function), |sealed| {
            self.there.local().remember(sealed.name, sealed.bytes.clone());
            self.runtime.block_on(self.there.put(sealed.name, sealed.bytes)).map(drop)
        })?;
        self.runtime.block_on(async {
            let name = self.there.publish(&manifest, &key()).await?;
            // Read once, its worker has it in memory.
            self.there.manifest(name, &key()).await?;
            Ok(name)
        })
    }

    pub(super) fn learn(&self, name: Name, log: &AccessLog) -> Result<Name> {
        self.runtime.block_on(async {
            let (name, manifest) = learn(&self.there, (name, &key()), log, &self.salts).await?;
            for chunk in manifest.names().into_iter().chain([name]) {
                self.there.read(chunk, 64 << 20).await?;
            }
            Ok(name)
        })
    }

    /// One copy, its memory brought from a store as the manner says: how long to its first response, and what it cost by then.
    pub(super) fn respond(
        &self,
        places: &Places,
        written: &Written,
        store: &Store,
        (name, manner): (Name, Manner),
        expected: &[u8],
    ) -> Result<(Duration, Entry)> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (journal, source) =
            (Journal::default(), Source::new(store.clone(), self.runtime.handle().clone(), 16));
        let order = Order { manifest: name, key: key(), manner, socket };
        let kept = journal.clone();
        let serving = thread::Builder::new().spawn(move || serve(&order, &source, &kept))?;
        let (took, answer) = written.respond(places, Some(&theirs))?;
        let entry = journal.read();
        ensure!(answer == expected, "another answer: {}", String::from_utf8_lossy(&answer));
        drop(theirs);
        serving.join().map_err(|_| anyhow::anyhow!("the pager panicked"))?;
        Ok((took, entry))
    }

    pub(super) fn manifest(&self, name: Name) -> Result<Manifest> {
        Ok(self.runtime.block_on(self.there.manifest(name, &key()))?)
    }

    /// Every chunk of the image, fetched and opened: how long that takes, and their bytes.
    pub(super) fn download(&self, store: &Store, manifest: &Manifest) -> Result<(Duration, u64)> {
        let begin = Instant::now();
        let bytes = self.runtime.block_on(async {
            let (mut flights, mut bytes) = (JoinSet::new(), 0);
            let chunks = manifest
                .parts()
                .entries
                .iter()
                .filter_map(|entry| entry.chunk.clone().map(|chunk| (chunk, entry.present.len())));
            for (chunk, pages) in chunks {
                let store = store.clone();
                flights
                    .spawn(async move { store.chunk(&chunk, pages).await.map(|plain| plain.len() as u64) });
                if flights.len() >= AT_ONCE
                    && let Some(done) = flights.join_next().await
                {
                    bytes += done??;
                }
            }
            while let Some(done) = flights.join_next().await {
                bytes += done??;
            }
            anyhow::Ok(bytes)
        })?;
        Ok((begin.elapsed(), bytes))
    }
}

/// A socket that listens beyond the link.
fn listen(shape: Shape<'_>) -> Result<TcpListener> {
    let namespace = File::open(shape.beyond).with_context(|| shape.beyond.display().to_string())?;
    let address = shape.worker;
    let there = thread::spawn(move || -> Result<TcpListener> {
        // This thread alone, which ends with it.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    there.join().map_err(|_| anyhow::anyhow!("no socket beyond the link"))?
}
