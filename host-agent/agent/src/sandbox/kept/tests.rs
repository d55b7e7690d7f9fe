use super::*;
use crate::sandbox::grants::{Grant, StaleGrant};
use proptest::prelude::*;

fn open(dir: &Path) -> (Arc<KeptFence>, GrantLedger) {
    let ledger = GrantLedger::default();
    (KeptFence::open(&dir.join("epochs"), ledger.clone()).unwrap(), ledger)
}

fn stale<T: std::fmt::Debug>(outcome: Result<T, FenceError>) -> Stale {
    match outcome {
        Err(FenceError::Stale(stale)) => stale,
        other => panic!("not stale: {other:?}"),
    }
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (fence, _) = open(dir.path());
    fence.register(3).await.unwrap();
    fence.admit(1, 5).await.unwrap();
    fence.grant(4).await.unwrap();
    drop(fence);
    let (fence, ledger) = open(dir.path());
    assert_eq!(stale(fence.register(2).await).current, 3);
    assert_eq!(stale(fence.admit(1, 4).await), Stale { partition: 1, offered: 4, current: 5 });
    assert_eq!(stale(fence.admit(2, 2).await).current, 3);
    fence.admit(2, 3).await.unwrap();
    let old = ledger.enter(Grant { id: 1, epoch: 3 }).unwrap_err();
    assert_eq!(old, StaleGrant { offered: 3, current: 4 });
    ledger.enter(Grant { id: 1, epoch: 4 }).unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_let_through() {
    let (fence, ledger) = open(tempfile::tempdir().unwrap().path());
    // A descriptor that cannot be written stands in for a failing disk.
    fence.slots.lock().await.file = Arc::new(File::open("/dev/null").unwrap());
    assert!(matches!(fence.grant(9).await, Err(FenceError::NotKept(_))));
    assert!(matches!(fence.admit(0, 9).await, Err(FenceError::NotKept(_))));
    assert_eq!((fence.known().current(0), ledger.epoch()), (0, 0));
}

/// Damages bytes of the file and says what the next start makes of it.
async fn damaged(range: std::ops::Range<u64>) -> io::Result<u64> {
    let dir = tempfile::tempdir().unwrap();
    let (fence, _) = open(dir.path());
    for epoch in 1..=4 {
        fence.register(epoch).await.unwrap();
    }
    drop(fence);
    let path = dir.path().join("epochs");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for at in range {
        file.write_all_at(&[0x5a], at).unwrap();
    }
    let fence = KeptFence::open(&path, GrantLedger::default())?;
    let floor = fence.known().floor();
    Ok(floor)
}

#[tokio::test]
async fn a_torn_write_costs_its_own_slot() {
    assert_eq!(damaged(0..0).await.unwrap(), 4);
    // Turn 4 stands in slot 0: an interrupted turn 6 would have torn it, with turn 5 in the other.
    assert_eq!(damaged(0..10).await.unwrap(), 3);
    assert_eq!(damaged(4096..4100).await.unwrap(), 4);
    let both = damaged(0..8192).await.unwrap_err();
    assert!(both.to_string().contains("damaged"), "{both}");
}

#[tokio::test]
async fn a_first_write_cut_short_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (fence, _) = open(dir.path());
    fence.register(1).await.unwrap();
    drop(fence);
    let file = OpenOptions::new().write(true).open(dir.path().join("epochs")).unwrap();
    file.write_all_at(&[0x5a; 100], 4096).unwrap();
    let (fence, _) = open(dir.path());
    assert_eq!(fence.known().floor(), 0);
}

#[tokio::test]
async fn everything_it_may_hold_fits_a_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (fence, _) = open(dir.path());
    for partition in 0..200 {
        fence.admit(u32::MAX - partition, u64::MAX - 200 + u64::from(partition)).await.unwrap();
    }
}

proptest! {
    /// Whatever is asked and however often the agent restarts, nothing that was let through makes way for older.
    #[test]
    fn model(steps in proptest::collection::vec((0_u8..4, 0_u32..2, 0_u64..12), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (mut fence, mut ledger) = open(dir.path());
            let (mut floor, mut grants, mut newest) = (0, 0, [0_u64; 2]);
            for (what, partition, epoch) in steps {
                let seen = newest[partition as usize].max(floor);
                match what {
                    0 => {
                        prop_assert_eq!(fence.register(epoch).await.is_ok(), epoch >= floor);
                        floor = floor.max(epoch);
                    }
                    1 => {
                        prop_assert_eq!(fence.admit(partition, epoch).await.is_ok(), epoch >= seen);
                        newest[partition as usize] = seen.max(epoch);
                    }
                    2 => {
                        fence.grant(epoch).await.unwrap();
                        let known = floor.max(grants);
                        prop_assert_eq!(ledger.enter(Grant { id: 1, epoch }).is_ok(), epoch >= known);
                        grants = known.max(epoch);
                    }
                    _ => {
                        drop(fence);
                        (fence, ledger) = open(dir.path());
                    }
                }
            }
            Ok(())
        })?;
    }
}
