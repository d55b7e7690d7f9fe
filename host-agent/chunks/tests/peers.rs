//! The second tier over real connections: peers that serve, are slow, dead, full of work, or give garbage.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod common;

use bytes::Bytes;
use common::{block_on, object, peer};
use std::time::Duration;
use warren_chunks::{
    l1::{Local, Memory, Own},
    l2::{Answer, MAX_OBJECT_BYTES, Peer, PeerLimits, Peers, rendezvous::ranked},
};

fn limits() -> PeerLimits {
    PeerLimits { deadline: Duration::from_secs(10), ..PeerLimits::default() }
}

/// Peers in the order they are asked for object 1: the first as it is told, the second good.
async fn line(first: peer::Kind, limits: PeerLimits) -> (Peers, Local) {
    let (name, sealed) = object(1, 200_000);
    let ids = ["a", "b"];
    let order = ranked(name, ids);
    let good = Local::new(Memory::new(1 << 24), None);
    good.remember(name, sealed);
    let bad = peer::start(ids[order[0]], first).await;
    let second = peer::start(ids[order[1]], peer::Kind::Serving(good.clone(), 8)).await;
    (Peers::new("self".into(), vec![second, bad], limits), good)
}

#[test]
fn a_peer_gives_what_it_has_and_takes_what_is_its_own() {
    block_on(async {
        let local = Local::new(Memory::new(1 << 24), None);
        let dir = tempfile::tempdir().unwrap();
        let disk = warren_chunks::l1::Disk::open(dir.path(), 1 << 24).unwrap();
        let kept = Local::new(Memory::new(0), Some(disk));
        let peers = |peer: Peer| Peers::new("self".into(), vec![peer], limits());
        let (name, sealed) = object(1, MAX_OBJECT_BYTES);
        local.remember(name, sealed.clone());
        let of_memory = peers(peer::start("a", peer::Kind::Serving(local, 8)).await);
        assert_eq!(of_memory.get(name, MAX_OBJECT_BYTES).await, Answer::Hit(sealed.clone()));
        assert_eq!(of_memory.get(object(2, 10).0, MAX_OBJECT_BYTES).await, Answer::Miss);
        let of_disk = peers(peer::start("b", peer::Kind::Serving(kept.clone(), 8)).await);
        assert_eq!(of_disk.get(name, MAX_OBJECT_BYTES).await, Answer::Miss);
        of_disk.offer(name, sealed.clone()).await;
        assert_eq!(of_disk.get(name, MAX_OBJECT_BYTES).await, Answer::Hit(sealed.clone()));
        // An offer that lies is refused, and one that is too large not even made.
        of_disk.offer(object(3, 10).0, Bytes::from_static(b"something else")).await;
        assert!(matches!(kept.get(object(3, 10).0).await, Own::Miss));
        assert_eq!(of_disk.counts().failures, 1);
        assert_eq!(Peers::new("self".into(), Vec::new(), limits()).get(name, 10).await, Answer::Miss);
    });
}

#[test]
fn whatever_the_first_does_the_second_serves() {
    let (name, sealed) = object(1, 200_000);
    // Kind, hedged, lies, failures.
    let cases = [
        (peer::Kind::Dead, false, 0, true),
        (peer::Kind::Silent, true, 0, false),
        (peer::Kind::Garbage, false, 1, false),
        (peer::Kind::Endless, false, 1, false),
        (peer::Kind::Serving(Local::new(Memory::new(0), None), 8), false, 0, false),
        (peer::Kind::Serving(Local::new(Memory::new(0), None), 0), false, 0, false),
    ];
    block_on(async {
        for (kind, hedged, lies, failed) in cases {
            let label = format!("{kind:?}");
            // Only for the silent one is a hedge sooner than its end.
            let hedge_most = if hedged { Duration::from_millis(5) } else { Duration::from_secs(9) };
            let (peers, _) = line(kind, PeerLimits { hedge_most, ..limits() }).await;
            assert_eq!(peers.get(name, 200_000).await, Answer::Hit(sealed.clone()), "{label}");
            let counts = peers.counts();
            assert_eq!(
                (counts.hedged > 0, counts.hedges_won > 0, counts.lies),
                (hedged, hedged, lies),
                "{label}: {counts:?}"
            );
            assert_eq!(counts.failures > 0, failed, "{label}: {counts:?}");
        }
    });
}

#[test]
fn who_fails_often_or_lies_once_is_left_alone() {
    let (name, sealed) = object(1, 200_000);
    block_on(async {
        let (peers, _) = line(peer::Kind::Garbage, limits()).await;
        for _ in 0..5 {
            assert_eq!(peers.get(name, 200_000).await, Answer::Hit(sealed.clone()));
        }
        assert_eq!(peers.counts().lies, 1, "it was asked again");
        let (peers, _) = line(peer::Kind::Dead, limits()).await;
        for _ in 0..3 {
            assert_eq!(peers.get(name, 200_000).await, Answer::Hit(sealed.clone()));
        }
        assert_eq!(peers.counts().failures, 3);
    });
}

#[test]
fn when_nobody_answers_it_is_said_and_soon() {
    let short =
        PeerLimits { deadline: Duration::from_millis(100), hedge_most: Duration::from_millis(1), ..limits() };
    block_on(async {
        let silent = peer::start("a", peer::Kind::Silent).await;
        let dead = peer::start("b", peer::Kind::Dead).await;
        let peers = Peers::new("self".into(), vec![silent, dead], short);
        assert_eq!(peers.get(object(1, 10).0, 100).await, Answer::Failed);
    });
}
