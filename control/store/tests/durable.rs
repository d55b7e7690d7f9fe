//! What is answered is on the disk: a process killed in the middle of writing loses nothing that it acknowledged; a
//! full disk is said, leaves nothing half written, and heals.

#![allow(clippy::unwrap_used, reason = "a test's panics are its report")]

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use warren_store::{BlobError, Blobs, Digest, Embedded, Expect, Journal, Registry, Sequence};

/// Set in the child: where to write.
const CHILD_DIR: &str = "WARREN_STORE_TEST_DIR";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Not a test by itself: the process that is killed. Says each acknowledged number.
#[test]
fn child_that_writes() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    runtime().block_on(async {
        let store = Embedded::open(Path::new(&dir)).unwrap();
        let mut last = Sequence(0);
        for number in 0..u64::MAX {
            let value = number.to_be_bytes().to_vec();
            store.put(&format!("n/{number:08}"), Expect::Absent, value.clone().into()).await.unwrap();
            last = store.append("n", last, vec![value.into()]).await.unwrap();
            println!("acknowledged {number}");
        }
    });
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    for round in 1..=3 {
        let dir = TempDir::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_writes", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut numbers = lines.by_ref().map_while(Result::ok).filter_map(|line| {
            line.rsplit_once("acknowledged ").and_then(|(_, number)| number.parse::<u64>().ok())
        });
        while said < 20 * round {
            said = numbers.next().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let said = numbers.last().unwrap_or(said);
        runtime().block_on(async {
            let store = Embedded::open(dir.path()).unwrap();
            let kept = store.list("n/").await.unwrap();
            assert!(kept.len() as u64 > said, "{} kept, {said} said", kept.len());
            for (at, (key, entry)) in kept.iter().enumerate() {
                assert_eq!(*key, format!("n/{at:08}"), "one is missing in the middle");
                assert_eq!(entry.value.as_ref(), (at as u64).to_be_bytes());
            }
            let (records, last) = store.replay("n").await.unwrap();
            assert!(records.len() as u64 > said && last.0 == records.len() as u64);
        });
    }
}

#[test]
fn blobs_come_back_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    for size in [0, 1, 4096, 3 << 20] {
        let bytes = vec![7_u8; size];
        let digest = blobs.put(&bytes).unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(blobs.get(digest).unwrap(), bytes);
        assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
    }
    assert!(matches!(blobs.get(Digest::of(b"never put")), Err(BlobError::Absent)));
}

#[test]
fn a_damaged_blob_is_told_and_can_be_put_again() {
    let dir = TempDir::new().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let digest = blobs.put(b"code").unwrap();
    fs::write(dir.path().join(digest.to_string()), b"rot").unwrap();
    assert!(matches!(blobs.get(digest), Err(BlobError::Damaged(which)) if which == digest));
    blobs.put(b"code").unwrap();
    assert_eq!(blobs.get(digest).unwrap().as_ref(), b"code");
}

#[test]
fn leftovers_are_cleared_and_unwanted_blobs_swept() {
    let dir = TempDir::new().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let (kept, unwanted) = (blobs.put(b"kept").unwrap(), blobs.put(b"unwanted").unwrap());
    fs::write(dir.path().join(".new-0"), b"half").unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    assert!(!dir.path().join(".new-0").exists());
    assert_eq!(blobs.sweep(&HashSet::from([kept]), Duration::ZERO).unwrap(), 1);
    assert!(blobs.get(kept).is_ok() && matches!(blobs.get(unwanted), Err(BlobError::Absent)));
}

#[test]
fn a_blob_is_as_old_as_the_last_time_it_was_put() {
    let dir = TempDir::new().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let digests = [blobs.put(b"old").unwrap(), blobs.put(b"put again").unwrap()];
    let (hour, long_ago) = (Duration::from_hours(1), std::time::SystemTime::now() - Duration::from_hours(3));
    for digest in digests {
        let file = fs::File::options().write(true).open(dir.path().join(digest.to_string())).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    // A deploy under way has put its code and is not named yet.
    blobs.put(b"put again").unwrap();
    assert_eq!(blobs.sweep(&HashSet::new(), hour).unwrap(), 1);
    assert!(matches!(blobs.get(digests[0]), Err(BlobError::Absent)) && blobs.get(digests[1]).is_ok());
}
