//! A store of a process that has no network, and asks another for what it cannot reach.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod common;

use bytes::Bytes;
use common::{block_on, hasty, object};
use futures::future::BoxFuture;
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use warren_chunks::{
    Name, Store,
    l1::{Disk, Local, Memory, Own},
    l3::{Origin, OriginError},
    store::{Fetched, Proxy, ReadError, Whence},
};

const MOST: usize = 1 << 20;

fn origin(root: &Path) -> Origin {
    Origin::folder(&root.join("origin"), hasty()).unwrap()
}

fn worker(root: &Path) -> Store {
    Store::new(Local::new(Memory::new(1 << 20), None), None, origin(root))
}

async fn until_on_disk(store: &Store, name: Name) {
    while !matches!(store.local().get(name).await, Own::Disk(_)) {
        tokio::task::yield_now().await;
    }
}

/// Another worker's store, asked as an agent is by who has no network.
#[derive(Debug)]
struct Through {
    store: Store,
    lies: AtomicBool,
}

impl Proxy for Through {
    fn fetch(&self, name: Name, most: usize) -> BoxFuture<'_, Result<Fetched, OriginError>> {
        Box::pin(async move {
            if self.lies.load(Ordering::SeqCst) {
                return Ok(Fetched { sealed: Bytes::from_static(b"garbage"), from: Whence::Origin });
            }
            self.store.find(name, most).await.map_err(|error| match error {
                ReadError::Absent => OriginError::Absent,
                error => OriginError::Unavailable(Arc::new(error)),
            })
        })
    }
}

/// What neither its own tiers nor the origin's folders have comes through the proxy, and is held against its name there too.
#[test]
fn who_has_no_network_reads_through_who_has() {
    let there = tempfile::tempdir().unwrap();
    block_on(async {
        let theirs = worker(there.path());
        let here = tempfile::tempdir().unwrap();
        let proxy = Arc::new(Through { store: theirs.clone(), lies: false.into() });
        let disk = Disk::open(&here.path().join("disk"), 1 << 26).unwrap();
        let local = Local::new(Memory::new(0), Some(disk));
        let store = Store::behind(proxy.clone(), local, origin(here.path()));
        let (name, sealed) = object(1, 50_000);
        assert!(matches!(store.read(name, MOST).await, Err(ReadError::Absent)));
        theirs.origin().put(name, sealed.clone()).await.unwrap();
        let fetched = store.find(name, MOST).await.unwrap();
        assert_eq!((&fetched.sealed, fetched.from), (&sealed, Whence::Origin));
        until_on_disk(&store, name).await;
        assert_eq!(store.find(name, MOST).await.unwrap().from, Whence::Disk);
        let figures = store.figures();
        let counted = (figures.proxy.misses, figures.proxy.hits, figures.origin.hits, figures.origin.misses);
        assert_eq!(counted, (1, 0, 1, 0), "{figures:?}");
        // An origin that is in reach comes first; where it lies, the proxy is the second source.
        let (other, bytes) = object(2, 50_000);
        theirs.put(other, bytes.clone()).await.unwrap();
        store.origin().put(other, bytes.clone()).await.unwrap();
        let place = here.path().join("origin/chunks").join(other.shard()).join(other.to_string());
        fs::write(place, b"lie").unwrap();
        assert_eq!(store.read(other, MOST).await.unwrap(), bytes);
        assert_eq!((store.figures().origin.damaged, store.figures().proxy.hits), (1, 1));
        // It lies: an error, never those bytes.
        proxy.lies.store(true, Ordering::SeqCst);
        let (third, _) = object(3, 50_000);
        let damaged = |read: Result<Bytes, ReadError>| {
            assert!(
                matches!(&read, Err(ReadError::Origin(error)) if matches!(**error, OriginError::Damaged))
            );
        };
        damaged(store.read(third, MOST).await);
        assert_eq!(store.figures().proxy.damaged, 1);
    });
}
