//! The third tier, over a folder and over an S3 server that does as it is told.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod common;

use common::{
    block_on, contract, get, hasty, object,
    s3::{Mood, Scripted},
};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};
use warren_chunks::l3::{Area, Origin, OriginError, OriginLimits};

fn folder(root: &Path) -> Origin {
    Origin::folder(root, hasty()).unwrap()
}

#[test]
fn a_folder_keeps_the_contract_and_its_objects() {
    let dir = tempfile::tempdir().unwrap();
    block_on(contract(folder(dir.path()), folder(dir.path()), true));
    // One that died in the middle of a write, long ago, and one that writes now.
    for (name, age) in [("1-1", 7200), ("2-1", 0)] {
        let file = fs::File::create(dir.path().join("tmp").join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    let origin = folder(dir.path());
    let left: Vec<_> =
        fs::read_dir(dir.path().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["2-1"]);
    assert_eq!(block_on(origin.list(Area::Live)).unwrap().len(), 21);
}

#[test]
fn a_put_makes_what_is_old_young_again() {
    let dir = tempfile::tempdir().unwrap();
    let limits = OriginLimits { refresh_after: Duration::from_hours(1), ..hasty() };
    let origin = Origin::folder(dir.path(), limits).unwrap();
    let (name, sealed) = object(1, 10);
    block_on(async {
        origin.put(name, sealed.clone()).await.unwrap();
        let path = dir.path().join("chunks").join(name.shard()).join(name.to_string());
        let long_ago = SystemTime::now() - Duration::from_hours(2);
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert!(!origin.put(name, sealed).await.unwrap());
        let since = origin.held(Area::Live, name).await.unwrap().since;
        assert!(since.duration_since(long_ago).unwrap() > Duration::from_secs(7000));
    });
}

#[test]
fn a_full_file_system_is_an_error_of_its_own_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=4m", "warren-chunks-test"]).arg(dir.path());
    if !mount.status().is_ok_and(|status| status.success()) {
        println!("warren-skipped: chunks::full: no small file system can be mounted here");
        return;
    }
    let origin = folder(dir.path());
    let disk = warren_chunks::l1::Disk::open(&dir.path().join("l1"), 1 << 30).unwrap();
    let (name, sealed) = object(1, 500_000);
    block_on(async {
        origin.put(name, sealed.clone()).await.unwrap();
        let mut refused = None;
        for number in 2..20 {
            let (name, sealed) = object(number, 500_000);
            if let Err(error) = origin.put(name, sealed).await {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(OriginError::Full)), "{refused:?}");
        let (other, bytes) = object(50, 500_000);
        assert!(matches!(disk.put(other, &bytes), Err(warren_chunks::l1::DiskError::Full)));
        assert!(matches!(disk.get(other), Ok(warren_chunks::l1::Found::Miss)));
        assert_eq!(get(&origin, name).await.unwrap(), sealed);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "half an object stays");
    });
    drop((origin, disk));
    Command::new("umount").arg("--lazy").arg(dir.path()).status().unwrap();
}

#[test]
fn each_mood_of_a_server_has_its_own_error() {
    type Is = fn(&OriginError) -> bool;
    let quick = OriginLimits { deadline: Duration::from_millis(200), ..hasty() };
    // Mood, limits, what it is, how often it was asked.
    let cases: [(Mood, OriginLimits, Is, usize); 8] = [
        (Mood::Status(404), hasty(), |error| matches!(error, OriginError::Absent), 1),
        (Mood::Status(403), hasty(), |error| matches!(error, OriginError::Forbidden(_)), 1),
        (Mood::Status(401), hasty(), |error| matches!(error, OriginError::Forbidden(_)), 1),
        (Mood::Status(507), hasty(), |error| matches!(error, OriginError::Full), 1),
        (Mood::Status(503), hasty(), |error| matches!(error, OriginError::Unavailable(_)), 3),
        (Mood::Status(500), hasty(), |error| matches!(error, OriginError::Unavailable(_)), 3),
        (Mood::Silent, quick, |error| matches!(error, OriginError::Slow), 3),
        (Mood::Lying, hasty(), |error| matches!(error, OriginError::Damaged), 1),
    ];
    block_on(async {
        let server = Scripted::start().await;
        let (name, sealed) = object(1, 100_000);
        server.origin(hasty()).put(name, sealed.clone()).await.unwrap();
        for (mood, limits, is, asked) in cases {
            server.mood(mood);
            let error = get(&server.origin(limits), name).await.unwrap_err();
            assert!(is(&error), "{mood:?}: {error:?}");
            assert_eq!(server.asked.load(Ordering::SeqCst), asked, "{mood:?}");
            if !matches!(mood, Mood::Lying | Mood::Status(404)) {
                let error = server.origin(limits).put(name, sealed.clone()).await.unwrap_err();
                assert!(is(&error), "put, {mood:?}: {error:?}");
                let error = server.origin(limits).list(Area::Live).await.unwrap_err();
                assert!(is(&error), "list, {mood:?}: {error:?}");
            }
        }
        // Failures that pass are not seen.
        for code in [503, 500] {
            server.mood(Mood::First(code, 2));
            assert_eq!(get(&server.origin(hasty()), name).await.unwrap(), sealed);
        }
        // An answer that ends in the middle is no chunk.
        server.mood(Mood::Cut);
        assert!(get(&server.origin(quick), name).await.is_err());
    });
}

#[test]
fn nobody_there_is_unavailable() {
    block_on(async {
        let mut server = Scripted::start().await;
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        server.endpoint = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = get(&server.origin(hasty()), object(1, 10).0).await.unwrap_err();
        assert!(matches!(error, OriginError::Unavailable(_)), "{error:?}");
    });
}

#[test]
fn an_origin_that_does_not_answer_holds_a_bounded_number_of_callers() {
    let limits = OriginLimits { at_once: 2, waiting: 3, deadline: Duration::from_mins(1), ..hasty() };
    block_on(async {
        let server = Scripted::start().await;
        server.mood(Mood::Silent);
        let origin = std::sync::Arc::new(server.origin(limits));
        let (said, mut refused) = tokio::sync::mpsc::channel(16);
        let callers: Vec<_> = (0..9)
            .map(|number| {
                let (origin, said) = (std::sync::Arc::clone(&origin), said.clone());
                tokio::spawn(async move {
                    let error = get(&origin, object(number, 10).0).await.unwrap_err();
                    said.send(matches!(error, OriginError::Overloaded)).await.unwrap();
                })
            })
            .collect();
        // Two are served, three wait, four are told at once.
        for _ in 0..4 {
            assert!(refused.recv().await.unwrap());
        }
        assert_eq!(server.asked.load(Ordering::SeqCst).min(2), server.asked.load(Ordering::SeqCst));
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        for caller in callers {
            let _ended = caller.await;
        }
        // Callers that left gave their places back.
        server.mood(Mood::Status(404));
        assert!(matches!(get(&origin, object(1, 10).0).await, Err(OriginError::Absent)));
    });
}
