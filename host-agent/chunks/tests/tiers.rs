//! The tiers as one store: what is read is right whatever a tier does, what was acknowledged stays, what is garbage goes.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod common;

use bytes::Bytes;
use common::{
    block_on, hasty, object, peer,
    s3::{Mood, Scripted},
};
use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use warren_chunks::{
    ChunkSize, Image, LayerKind, Manifest, Name, Salts, Store, TenantKey,
    cut::{cut, cut_diff},
    gc::{CollectError, Generation, collect},
    image::Place,
    l1::{Disk, Local, Memory, Own},
    l2::{PeerLimits, Peers},
    l3::{Area, Origin, OriginError, Reading},
    seal::{OpenError, Sealed},
    store::{Pace, PublishError, PutError, ReadError, Scrubbed},
};

const MOST: usize = 1 << 20;

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    /// A worker with a memory, a disk and a folder for an origin.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::worker(dir.path(), "one", None);
        Self { dir, store }
    }

    fn worker(root: &Path, disk: &str, peers: Option<Arc<Peers>>) -> Store {
        let disk = Disk::open(&root.join(disk), 1 << 26).unwrap();
        Store::new(Local::new(Memory::new(1 << 24), Some(disk)), peers, origin(root))
    }

    fn origin_file(&self, area: &str, name: Name) -> PathBuf {
        self.dir.path().join("origin").join(area).join(name.shard()).join(name.to_string())
    }

    fn disk_file(&self, name: Name) -> PathBuf {
        let shard = self.dir.path().join("one").join(name.shard());
        fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()).next().unwrap()
    }

    /// Cuts an image, puts its chunks and publishes its manifest.
    async fn deploy(&self, bytes: &[u8]) -> (Name, Manifest) {
        let (manifest, chunks) = cut_up(bytes);
        for sealed in chunks {
            self.store.put(sealed.name, sealed.bytes).await.unwrap();
        }
        (self.store.publish(&manifest, &key()).await.unwrap(), manifest)
    }

    async fn collect(&self, roots: &[Name]) -> warren_chunks::gc::Collected {
        let generation = Generation { roots: roots.to_vec(), min_age: Duration::ZERO };
        collect(self.store.origin(), &generation).await.unwrap()
    }
}

fn origin(root: &Path) -> Origin {
    Origin::folder(&root.join("origin"), hasty()).unwrap()
}

fn key() -> TenantKey {
    TenantKey::new([1; 32])
}

fn cut_up(bytes: &[u8]) -> (Manifest, Vec<Sealed>) {
    let mut chunks = Vec::new();
    let domain = Salts::new([2; 32], [0; 3]).newest(LayerKind::Function);
    let keep = |sealed| {
        chunks.push(sealed);
        Ok::<_, Infallible>(())
    };
    let manifest = cut(bytes, ChunkSize::of_pages(16).unwrap(), &domain, keep).unwrap();
    (manifest, chunks)
}

/// Waits for what goes on in the background: it has no end that is told.
async fn on_disk(store: &Store, name: Name) {
    let disk = store.local().disk().unwrap();
    while !disk.names().contains(&name) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn an_image_goes_through_all_tiers_and_comes_back() {
    let world = World::new();
    block_on(async {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (name, _) = world.deploy(&bytes).await;
        // Another worker, which has nothing.
        let other = World::worker(world.dir.path(), "two", None);
        for _ in 0..2 {
            let image = Image::whole(other.manifest(name, &key()).await.unwrap()).unwrap();
            let mut back = Vec::new();
            for page in 0..image.pages() {
                match image.place(page) {
                    Place::Zero => back.extend([0; 4096]),
                    Place::In { chunk, rank, of, .. } => {
                        let plain = other.chunk(chunk, of).await.unwrap();
                        back.extend_from_slice(plain.as_chunks::<4096>().0.get(rank as usize).unwrap());
                    }
                }
            }
            back.truncate(bytes.len());
            assert_eq!(back, bytes);
        }
        let figures = other.figures();
        assert_eq!(figures.origin.misses + figures.origin.failures, 0);
        assert!(figures.memory.hits > figures.origin.hits && figures.memory.hit_ratio() > Some(0.5));
        assert!(figures.origin.p99 >= figures.origin.p50 && figures.origin.bytes > 700_000);
        // What the manifest says of a chunk and the chunk are two things.
        let image = Image::whole(other.manifest(name, &key()).await.unwrap()).unwrap();
        let Place::In { chunk, of, .. } = image.place(0) else { panic!("a page") };
        let wrong = other.chunk(chunk, of + 1).await;
        assert!(matches!(wrong, Err(ReadError::Chunk(OpenError::NotItsLength))));
        assert!(matches!(other.manifest(name, &TenantKey::new([3; 32])).await, Err(ReadError::Manifest(_))));
        assert!(matches!(other.manifest(chunk.name, &key()).await, Err(ReadError::Manifest(_))));
    });
}

#[test]
fn callers_of_one_name_share_one_flight_and_who_leaves_stops_nobody() {
    block_on(async {
        let server = Scripted::start().await;
        let store = Store::new(Local::new(Memory::new(1 << 24), None), None, server.origin(hasty()));
        let (name, sealed) = object(1, 100_000);
        server.origin(hasty()).put(name, sealed.clone()).await.unwrap();
        server.mood(Mood::First(503, 1));
        let first = tokio::spawn({
            let store = store.clone();
            async move { store.read(name, MOST).await }
        });
        while server.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.read(name, MOST).await })
            })
            .collect();
        first.abort();
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), sealed);
        }
        assert_eq!(server.asked.load(Ordering::SeqCst), 2, "one failure, one answer");
    });
}

#[test]
fn a_chunk_that_lies_is_fetched_elsewhere() {
    let world = World::new();
    block_on(async {
        let (name, sealed) = object(1, 50_000);
        world.store.put(name, sealed.clone()).await.unwrap();
        on_disk(&world.store, name).await;
        fs::write(world.disk_file(name), vec![1; 50_000]).unwrap();
        // A peer that lies is before the origin.
        let liar = peer::start("liar", peer::Kind::Garbage).await;
        let peers = Arc::new(Peers::new("self".into(), vec![liar], PeerLimits::default()));
        let dir = world.dir.path().to_owned();
        drop(world.store);
        let store = World::worker(&dir, "one", Some(peers));
        assert_eq!(store.read(name, MOST).await.unwrap(), sealed);
        let figures = store.figures();
        assert_eq!((figures.disk.damaged, figures.asked.lies, figures.origin.hits), (1, 1, 1));
        on_disk(&store, name).await;
        // The origin's own copy lies, and nobody else has one: an error, never those bytes.
        let (other, bytes) = object(2, 50_000);
        store.origin().replace(other, bytes).await.unwrap();
        fs::write(dir.join("origin/chunks").join(other.shard()).join(other.to_string()), b"lie").unwrap();
        let refused = store.read(other, MOST).await;
        assert!(matches!(&refused, Err(ReadError::Origin(error)) if matches!(**error, OriginError::Damaged)));
        assert!(matches!(store.read(object(3, 1).0, MOST).await, Err(ReadError::Absent)));
        let lie = store.put(name, Bytes::from_static(b"lie")).await;
        assert!(matches!(lie, Err(PutError::NotItsName)));
    });
}

#[test]
fn each_tier_may_be_gone_and_the_others_serve() {
    let world = World::new();
    block_on(async {
        let (name, sealed) = object(1, 50_000);
        world.store.put(name, sealed.clone()).await.unwrap();
        on_disk(&world.store, name).await;
        // The origin is gone: memory, disk and peers go on.
        let serving = peer::start("one", peer::Kind::Serving(world.store.local().clone(), 8)).await;
        let peers = || Some(Arc::new(Peers::new("two".into(), vec![serving.clone()], PeerLimits::default())));
        let empty = Scripted::start().await;
        empty.mood(Mood::Status(403));
        let local = || Local::new(Memory::new(1 << 24), None);
        let second = Store::new(local(), peers(), empty.origin(hasty()));
        assert_eq!(second.read(name, MOST).await.unwrap(), sealed);
        assert_eq!((second.figures().peers.hits, second.figures().origin.failures), (1, 0));
        let refused = second.read(object(9, 9).0, MOST).await;
        assert!(
            matches!(&refused, Err(ReadError::Origin(error)) if matches!(**error, OriginError::Forbidden(_)))
        );
        assert_eq!(second.figures().origin.failures, 1);
        // The peers are gone: the origin serves.
        let dead = peer::start("dead", peer::Kind::Dead).await;
        let peers = Some(Arc::new(Peers::new("two".into(), vec![dead], PeerLimits::default())));
        let third = Store::new(local(), peers, origin(world.dir.path()));
        assert_eq!(third.read(name, MOST).await.unwrap(), sealed);
        assert_eq!((third.figures().peers.failures, third.figures().origin.hits), (1, 1));
    });
}

#[test]
fn what_nobody_reaches_is_retired_then_deleted_and_what_is_reached_stays() {
    let world = World::new();
    block_on(async {
        let (kept, manifest) = world.deploy(&vec![1; 300_000]).await;
        let (old, old_manifest) = world.deploy(&vec![2; 300_000]).await;
        let first = world.collect(&[kept]).await;
        let gone = old_manifest.names().len() + 1;
        assert_eq!(
            (first.retired.len(), first.deleted.len(), first.reached),
            (gone, 0, manifest.names().len() + 1)
        );
        let second = world.collect(&[kept]).await;
        assert_eq!((second.deleted.len(), second.retired.len()), (gone, 0));
        assert!(second.bytes > 0 && second.deleted.contains(&old));
        let third = world.collect(&[kept]).await;
        assert_eq!((third.deleted.len(), third.retired.len(), third.restored.len()), (0, 0, 0));
        let fresh = World::worker(world.dir.path(), "fresh", None);
        for name in manifest.names() {
            fresh.read(name, MOST).await.unwrap();
        }
        // A base is reached through its diff alone.
        let base = Image::whole(manifest).unwrap();
        let domain = Salts::new([2; 32], [0; 3]).newest(LayerKind::Function);
        let mut chunks = Vec::new();
        let keep = |sealed: Sealed| {
            chunks.push(sealed);
            Ok::<_, Infallible>(())
        };
        let diff = cut_diff((kept, &base), &vec![3; 300_000][..], [0], &domain, keep).unwrap();
        assert!(matches!(world.store.publish(&diff, &key()).await, Err(PublishError::Missing(_))));
        world.store.put(chunks[0].name, chunks[0].bytes.clone()).await.unwrap();
        let diff = world.store.publish(&diff, &key()).await.unwrap();
        let last = world.collect(&[diff]).await;
        assert_eq!((last.retired.len(), last.reached), (0, third.reached + 2));
    });
}

/// Who has descriptors of two folders and nothing else reads chunks, changes nothing, and says what others have to put right.
#[test]
fn a_reader_by_descriptors_changes_nothing_and_names_what_was_retired() {
    let world = World::new();
    block_on(async {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (name, manifest) = world.deploy(&bytes).await;
        // Its path leads nowhere any more.
        let folders = Reading::open(&world.dir.path().join("origin")).unwrap();
        let moved = world.dir.path().join("moved");
        fs::rename(world.dir.path().join("origin"), &moved).unwrap();
        let origin = Origin::reading(folders, hasty());
        assert!(origin.is_read_only());
        let reader = Store::new(Local::new(Memory::new(0), None), None, origin);
        assert_eq!(reader.manifest(name, &key()).await.unwrap().names(), manifest.names());
        let (other, sealed) = object(7, 5000);
        let refused = reader.put(other, sealed).await;
        assert!(matches!(refused, Err(PutError::Origin(OriginError::Forbidden(_)))), "{refused:?}");
        for area in [Area::Live, Area::Retired] {
            let refused = reader.origin().remove(area, name).await;
            assert!(matches!(refused, Err(OriginError::Forbidden(_))), "{refused:?}");
        }
        assert!(reader.to_rescue(9).is_empty());
        fs::rename(&moved, world.dir.path().join("origin")).unwrap();

        world.collect(&[]).await;
        let first = manifest.names()[0];
        assert!(!world.origin_file("chunks", first).exists());
        reader.read(first, MOST).await.unwrap();
        assert_eq!((reader.to_rescue(9), reader.to_rescue(0)), (vec![first], vec![]));
        assert!(!world.origin_file("chunks", first).exists(), "it was only read");
        // Whose it is puts it right.
        world.store.rescue(first).await.unwrap();
        assert!(world.origin_file("chunks", first).exists());
        assert_eq!(world.store.figures().retired_reads, 1);
        world.store.rescue(first).await.unwrap();
        assert_eq!(world.store.figures().retired_reads, 1, "it is in service");
        reader.rescued(&[first]);
        assert!(reader.to_rescue(9).is_empty());
    });
}

#[test]
fn a_read_of_what_is_retired_raises_an_alarm_and_brings_it_back() {
    let world = World::new();
    block_on(async {
        let (root, manifest) = world.deploy(&vec![1; 100_000]).await;
        let names = manifest.names();
        // A root is forgotten.
        assert_eq!(world.collect(&[]).await.retired.len(), names.len() + 1);
        let reader = World::worker(world.dir.path(), "reader", None);
        reader.read(names[0], MOST).await.unwrap();
        assert_eq!(reader.figures().retired_reads, 1);
        assert!(world.origin_file("chunks", names[0]).exists(), "it is not back in service");
        // Remembered again, everything comes back, and nothing was lost.
        let next = world.collect(&[root]).await;
        assert_eq!(next.restored.len(), names.len() + 1 - 1);
        for name in names {
            reader.read(name, MOST).await.unwrap();
        }
        assert_eq!(reader.figures().retired_reads, 1);
    });
}

#[test]
fn a_publish_and_a_put_during_a_collection_are_safe() {
    let world = World::new();
    block_on(async {
        let (_, manifest) = world.deploy(&vec![1; 100_000]).await;
        // Retired just now, and published again by another function: in service again before it is acknowledged.
        world.collect(&[]).await;
        let root = world.store.publish(&manifest, &TenantKey::new([8; 32])).await.unwrap();
        for name in manifest.names() {
            assert!(world.origin_file("chunks", name).exists());
        }
        world.collect(&[root]).await;
        world.collect(&[root]).await;
        let reader = World::worker(world.dir.path(), "reader", None);
        for name in manifest.names() {
            reader.read(name, MOST).await.unwrap();
        }
        assert_eq!(reader.figures().retired_reads, 0);
    });
}

#[test]
fn without_every_root_nothing_is_collected() {
    let world = World::new();
    block_on(async {
        let (root, manifest) = world.deploy(&vec![1; 100_000]).await;
        let chunk = manifest.names()[0];
        let run = async |roots: &[Name]| {
            let generation = Generation { roots: roots.to_vec(), min_age: Duration::ZERO };
            collect(world.store.origin(), &generation).await.unwrap_err()
        };
        assert!(matches!(run(&[Name::of(b"none")]).await, CollectError::Unreadable { .. }));
        assert!(matches!(run(&[chunk]).await, CollectError::NotAManifest { .. }));
        fs::write(world.origin_file("chunks", root), b"altered").unwrap();
        assert!(matches!(run(&[root]).await, CollectError::Unreadable { .. }));
        assert!(world.origin_file("chunks", chunk).exists());
        let young = Generation { roots: Vec::new(), min_age: Duration::from_hours(1) };
        assert_eq!(collect(world.store.origin(), &young).await.unwrap().retired, []);
    });
}

#[test]
fn a_scrub_finds_and_mends_what_changed() {
    let world = World::new();
    block_on(async {
        let [(disk, first), (origin, second), (lost, third)] =
            [object(1, 9000), object(2, 9000), object(3, 9000)];
        for (name, sealed) in [(disk, &first), (origin, &second)] {
            world.store.put(name, sealed.clone()).await.unwrap();
            on_disk(&world.store, name).await;
        }
        world.store.origin().put(lost, third).await.unwrap();
        fs::write(world.disk_file(disk), b"rot").unwrap();
        for name in [origin, lost] {
            fs::write(world.origin_file("chunks", name), b"rot").unwrap();
        }
        let of_disk = world.store.scrub_disk(Pace::NONE).await;
        assert_eq!(of_disk, Scrubbed { read: 2, repaired: vec![disk], ..Scrubbed::default() });
        let mut of_origin = world.store.scrub_origin(Pace::NONE).await.unwrap();
        of_origin.repaired.sort_unstable();
        assert_eq!(of_origin, Scrubbed { read: 3, repaired: vec![origin], lost: vec![lost], unread: 0 });
        assert_eq!(fs::read(world.origin_file("chunks", origin)).unwrap(), second);
        assert!(world.origin_file("damaged", lost).exists() && !world.origin_file("chunks", lost).exists());
        assert_eq!(world.store.scrub_disk(Pace::NONE).await.repaired, []);
        assert!(matches!(world.store.local().get(disk).await, Own::Memory(_)));
        assert_eq!(world.store.origin().list(Area::Damaged).await.unwrap().len(), 1);
    });
}
