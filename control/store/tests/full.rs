//! A full disk: the journal goes on, the registry refuses, nothing is lost, and room makes it whole again.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

use bytes::Bytes;
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};
use warren_store::{Embedded, Expect, Journal as _, Registry as _, Sequence, StoreError};

/// A small file system of this test's own.
struct Small(PathBuf);

impl Small {
    /// `None`, and said, where this user cannot mount.
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap().keep();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=16m", "warren-store-test"]).arg(&place);
        if command.status().is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        println!("warren-skipped: store::full: no small file system can be mounted here");
        let _ = std::fs::remove_dir(&place);
        None
    }

    fn fill(&self) {
        let mut file = File::create(self.0.join("ballast")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            let block = vec![0_u8; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Appends, and trims now and then, as the counting does.
async fn appends(store: &Embedded, mut last: Sequence, count: u64) -> Sequence {
    for number in 0..count {
        let record = Bytes::from(vec![u8::try_from(number % 251).unwrap(); 64]);
        last = store.append("counting", last, vec![record]).await.unwrap();
        if number % 128 == 127 {
            store.trim("counting", last).await.unwrap();
        }
    }
    last
}

async fn put(store: &Embedded, key: &str, bytes: usize) -> Result<(), StoreError> {
    store.put(key, Expect::Absent, Bytes::from(vec![7; bytes])).await.map(drop)
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir).unwrap()
}

#[tokio::test]
async fn the_journal_goes_on_and_the_registry_refuses() {
    let Some(small) = Small::mount() else { return };
    let store = open(&small.store());
    put(&store, "before", 100_000).await.unwrap();
    let last = appends(&store, Sequence(0), 10).await;
    small.fill();
    let last = appends(&store, last, 1_000).await;
    // What fits into the file as it is, fits; the first that would take the journal's room is refused, and all after it.
    let mut fitted = 0;
    while put(&store, &format!("fits-{fitted}"), 100_000).await.is_ok() {
        fitted += 1;
        assert!(fitted < 100, "a full disk holds ten megabytes more");
    }
    let last = appends(&store, last, 1_000).await;
    for round in 0..3 {
        let refused = put(&store, &format!("full-{round}"), 100_000).await;
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        // A refusal costs the journal nothing.
        assert_eq!(store.replay("counting").await.unwrap().1, last);
    }
    let last = appends(&store, last, 10).await;
    // A new life begins on the full disk.
    store.close().await;
    let store = open(&small.store());
    let last = appends(&store, last, 500).await;
    let before = store.get("before").await.unwrap().unwrap();
    assert_eq!(before.value.len(), 100_000);
    small.empty();
    put(&store, "after", 100_000).await.unwrap();
    store.delete("before", before.revision).await.unwrap();
    appends(&store, last, 10).await;
    assert_eq!(store.list("").await.unwrap().len(), 1 + fitted);
}
