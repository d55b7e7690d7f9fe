//! What the tests of tiers share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod peer;
pub(crate) mod s3;

use bytes::Bytes;
use std::time::Duration;
use warren_chunks::{
    Name,
    l3::{Area, EntryName, Origin, OriginError, OriginLimits, retry::Retry},
};

/// An object that nothing else is.
pub(crate) fn object(number: u32, bytes: usize) -> (Name, Bytes) {
    // Cheap to make: a process that is killed at any moment is killed while it writes.
    let mut sealed = vec![0x11; bytes];
    sealed.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    let sealed = Bytes::from(sealed);
    (Name::of(&sealed), sealed)
}

/// Limits under which a failure is known soon.
pub(crate) fn hasty() -> OriginLimits {
    let retry = Retry { tries: 3, first: Duration::from_millis(1), longest: Duration::from_millis(2) };
    OriginLimits { deadline: Duration::from_secs(5), retry, ..OriginLimits::default() }
}

/// A runtime of a test.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// The full form is asked for.
pub(crate) fn is_full_form() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// Reads from the origin.
pub(crate) async fn get(origin: &Origin, name: Name) -> Result<Bytes, OriginError> {
    origin.get(Area::Live, name, 1 << 20).await
}

/// What any origin does, whatever it is made of.
pub(crate) async fn contract(origin: Origin, other_worker: Origin, exactly_one: bool) {
    let (name, sealed) = object(1, 100_000);
    assert!(matches!(get(&origin, name).await, Err(OriginError::Absent)));
    assert!(origin.put(name, sealed.clone()).await.unwrap());
    assert!(!other_worker.put(name, sealed.clone()).await.unwrap(), "stored twice");
    assert_eq!(get(&other_worker, name).await.unwrap(), sealed);
    assert!(matches!(origin.get(Area::Live, name, 99_999).await, Err(OriginError::Damaged)));
    let held = origin.held(Area::Live, name).await.unwrap();
    assert_eq!((held.name, held.bytes), (name, 100_000));
    assert_eq!(origin.list(Area::Live).await.unwrap().len(), 1);
    // Out of service, and back.
    origin.shift(name, Area::Live, Area::Retired).await.unwrap();
    assert!(matches!(get(&origin, name).await, Err(OriginError::Absent)));
    assert!(matches!(origin.shift(name, Area::Live, Area::Retired).await, Err(OriginError::Absent)));
    assert_eq!(origin.get(Area::Retired, name, 1 << 20).await.unwrap(), sealed);
    assert_eq!(origin.list(Area::Retired).await.unwrap().len(), 1);
    assert!(origin.put(name, sealed.clone()).await.unwrap(), "what is retired is not there");
    origin.remove(Area::Retired, name).await.unwrap();
    origin.remove(Area::Retired, name).await.unwrap();
    entries(&origin, &other_worker, exactly_one).await;
    // Two workers, one chunk, at once: each time one stores it (and only one, where the server is as good as S3), and both
    // may read it then.
    for number in 10..30 {
        let (name, sealed) = object(number, 50_000);
        let (one, two) =
            tokio::join!(origin.put(name, sealed.clone()), other_worker.put(name, sealed.clone()));
        let stored = u8::from(one.unwrap()) + u8::from(two.unwrap());
        assert!(stored == 1 || (stored == 2 && !exactly_one), "object {number}: {stored}");
        assert_eq!(get(&origin, name).await.unwrap(), sealed);
    }
    // Something else under the name: never given for it, and replaced by who has it.
    origin.replace(name, Bytes::from_static(b"something else")).await.unwrap();
    assert!(matches!(get(&origin, name).await, Err(OriginError::Damaged)));
    assert!(origin.put(name, sealed.clone()).await.unwrap());
    assert_eq!(get(&origin, name).await.unwrap(), sealed);
}

/// What is called by what it is about: the first writer's, until somebody replaces or removes it.
async fn entries(origin: &Origin, other_worker: &Origin, exactly_one: bool) {
    let name = EntryName([7; 32]);
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert!(matches!(origin.entry(name, 100).await, Err(OriginError::Absent)));
    assert!(origin.put_new_entry(name, bytes("one")).await.unwrap());
    if exactly_one {
        assert!(!other_worker.put_new_entry(name, bytes("two")).await.unwrap(), "the second took it over");
        assert_eq!(other_worker.entry(name, 100).await.unwrap(), "one");
    }
    assert!(matches!(origin.entry(name, 2).await, Err(OriginError::Damaged)), "longer than any");
    other_worker.replace_entry(name, bytes("three")).await.unwrap();
    assert_eq!(origin.entry(name, 100).await.unwrap(), "three");
    assert_eq!(origin.held_entry(name).await.unwrap().bytes, 5);
    let all = origin.entries().await.unwrap();
    assert_eq!(all.iter().map(|(name, held)| (*name, held.bytes)).collect::<Vec<_>>(), [(name, 5)]);
    assert!(origin.list(Area::Live).await.unwrap().iter().all(|held| held.name.0 != name.0), "among chunks");
    origin.remove_entry(name).await.unwrap();
    origin.remove_entry(name).await.unwrap();
    assert!(matches!(origin.entry(name, 100).await, Err(OriginError::Absent)));
}
