//! Snapshots that the pager cannot reach: the origin is a bucket, and the agent brings what it asks for.

use crate::{all, moto::Moto, rig::Rig, rig::until};
use warren_proto::error::WireError;

async fn over_a_bucket() -> (Moto, Rig) {
    let moto = Moto::start();
    moto.make_bucket("fleet");
    let rig = Rig::start_over(Some(moto.bucket("fleet", "a"))).await;
    rig.publish().await;
    (moto, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_bucket_is_started_page_by_page_and_learned() {
    needs!();
    let (_moto, rig) = over_a_bucket().await;
    let (sandbox, timings) = rig.create("s1").await.unwrap();
    assert!(timings.restore_us > 0 && timings.init_us == 0, "{timings:?}");
    let wire = sandbox.on_wire("h1");
    assert!(wire.restored && wire.paged, "{wire:?}");
    all(&rig, &sandbox).await;
    until("its accesses are learned", async || rig.entry().await.filter(|entry| entry.sequence == 1)).await;
    let known = until("its chunks are counted", async || {
        rig.host.pager.known().filter(|known| known.figures.origin.bytes > u64::from(crate::BYTES))
    })
    .await;
    assert_eq!((known.figures.origin.misses, known.figures.origin.failures), (0, 0), "{known:?}");
    rig.destroy(&sandbox).await;
    // What was learned is the next one's loading set.
    let (sandbox, _) = rig.create("s2").await.unwrap();
    all(&rig, &sandbox).await;
    rig.destroy(&sandbox).await;
    assert_eq!(rig.host.ends.all().get("pager-lost"), None);
}

/// `kill -9` of the bucket's server while a VM needs chunks that nobody has here: its end by name, and no wrong byte; what was
/// fetched before is served on.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_gone_is_a_named_end_and_what_is_here_is_served() {
    needs!();
    let (mut moto, rig) = over_a_bucket().await;
    let (sandbox, _) = rig.create("s1").await.unwrap();
    rig.check(&sandbox, 0, 100_000).await;
    moto.kill();
    rig.check(&sandbox, 0, 100_000).await;
    let error = rig.invoke(&sandbox, 2 << 20, 1 << 20).await.unwrap_err();
    assert!(WireError::from(error).retryable);
    sandbox.wait_gone().await;
    let log = sandbox.vmm_log.text();
    assert!(log.contains("end: pager: chunk") && log.contains("the origin is unavailable"), "{log}");
    assert_eq!(rig.host.ends.all().get("pager-lost"), Some(&1));
    // The next one boots, or begins from what there is: whichever, it lives.
    let (next, _) = rig.create("s2").await.unwrap();
    rig.destroy(&next).await;
}

/// What the agent has itself it brings without the origin: a pager that is new, with a cache that is empty.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_has_itself_needs_no_origin() {
    needs!();
    let (mut moto, rig) = over_a_bucket().await;
    let (sandbox, _) = rig.create("s1").await.unwrap();
    all(&rig, &sandbox).await;
    rig.destroy(&sandbox).await;
    moto.kill();
    rig.pager_without_cache().await;
    let (sandbox, _) = rig.create("s2").await.unwrap();
    assert!(sandbox.on_wire("h1").paged);
    all(&rig, &sandbox).await;
    let hits = until("its chunks are counted", async || {
        rig.host.pager.known().map(|known| known.figures.agent.hits).filter(|hits| *hits > 0)
    })
    .await;
    assert!(hits > 4, "{hits}");
    rig.destroy(&sandbox).await;
}
