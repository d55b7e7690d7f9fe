//! Cold starts from a snapshot that the fleet has and this host does not: the agent's own parts in this process, with the real jailer,
//! VMM, guest, compiler and pager.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::manual_assert,
    reason = "a step that fails here fails the test"
)]

#[path = "../../../pager/tests/paged/kept.rs"]
mod kept;
#[path = "../../../chunks/tests/common/moto.rs"]
mod moto;
#[path = "../worker/rig/process.rs"]
#[allow(dead_code, reason = "the other test program's")]
mod process;
mod rig;

use kept::BYTES;
use rig::{Rig, expected_answer, until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use warren_agent::{
    sandbox::{InvokeError, Sandbox},
    snapshot::Snapshots,
};
use warren_proto::{error::WireError, reason};

/// Leaves a test on a machine that lacks what it needs, and says so.
macro_rules! needs {
    () => {
        for device in ["/dev/kvm", "/dev/userfaultfd"] {
            if !std::path::Path::new(device).exists() {
                println!("warren-skipped: paging: no {device}");
                return;
            }
        }
    };
}

mod sources;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_fleet_has_is_started_page_by_page() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    let (sandbox, timings) = rig.create("s1").await.unwrap();
    assert!(timings.restore_us > 0 && timings.init_us == 0, "{timings:?}");
    let wire = sandbox.on_wire("h1");
    assert!(wire.restored && wire.paged, "{wire:?}");
    all(&rig, &sandbox).await;
    let known = until("its pages are counted", async || {
        rig.host.pager.known().filter(|known| known.figures.serving == 1 && known.figures.origin.hits > 0)
    })
    .await;
    assert!(known.figures.origin.bytes > 0, "{known:?}");
    rig.destroy(&sandbox).await;
    until("it is served no more", async || {
        rig.host.pager.known().filter(|known| known.figures.serving == 0 && known.figures.served == 1)
    })
    .await;
    assert_eq!(rig.host.ends.all().get("pager-lost"), None);
}

/// What first starts touch becomes the fleet's loading set; what brings nothing new changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn first_starts_are_learned_from() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    let first = rig.entry().await.unwrap();
    let (sandbox, _) = rig.create("s1").await.unwrap();
    rig.check(&sandbox, 1 << 20, 100_000).await;
    let learned =
        until("its accesses are learned", async || rig.entry().await.filter(|entry| entry.sequence == 1))
            .await;
    assert_ne!(learned.memory, first.memory, "another manifest");
    assert_eq!(learned.head.memory(), first.head.memory(), "of the same memory");
    rig.destroy(&sandbox).await;
    // The same again: recorded, and nothing new in it.
    let (sandbox, _) = rig.create("s2").await.unwrap();
    rig.check(&sandbox, 1 << 20, 100_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.destroy(&sandbox).await;
    assert_eq!(rig.entry().await.unwrap().memory, learned.memory, "a log without news was published");
    let (sandbox, _) = rig.create("s3").await.unwrap();
    rig.check(&sandbox, 1 << 20, 100_000).await;
    rig.destroy(&sandbox).await;
}

/// `kill -9` of the pager while calls run: what is answered is right, what is not is the system's fault and may be tried again, and
/// nothing hangs. The next start is paged by another pager.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pager_ends_its_sandboxes_by_name() {
    needs!();
    let rig = Arc::new(Rig::start().await);
    rig.publish().await;
    let rounds: u64 = if std::env::var_os("WARREN_SOAK").is_some() { 30 } else { 4 };
    let (mut answers, mut lost) = (0_u64, 0_u64);
    for round in 0..rounds {
        let mut load = Vec::new();
        for number in 0..4_u32 {
            let (sandbox, _) = rig.create(&format!("s{round}-{number}")).await.unwrap();
            assert!(sandbox.on_wire("h1").paged);
            let rig = Arc::clone(&rig);
            load.push(tokio::spawn(async move {
                let mut answered = 0_u64;
                for step in (0..).map(|step: u32| (step * 7 + number) % 63 * 65_536) {
                    match rig.invoke(&sandbox, step, 60_000).await {
                        Ok(answer) => {
                            assert!(answer == expected_answer(step, 60_000), "a wrong answer");
                            answered += 1;
                        }
                        Err(error) => {
                            assert!(
                                matches!(
                                    error,
                                    InvokeError::Lost(_)
                                        | InvokeError::LostBeforeStart(_)
                                        | InvokeError::Busy(_)
                                ),
                                "{error:?}"
                            );
                            let wire = WireError::from(error);
                            assert!(wire.retryable, "{wire:?}");
                            let (exit, log) = (sandbox.wait_gone().await, sandbox.vmm_log.text());
                            let named = log.contains("end: pager: the pager is gone");
                            assert!(named, "{wire:?} {exit}: {log}");
                            return answered;
                        }
                    }
                }
                unreachable!("it is called until it ends");
            }));
        }
        tokio::time::sleep(Duration::from_millis(3 * (round % 7))).await;
        let pid = rig.pager().await;
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        for one in load {
            answers += one.await.unwrap();
            lost += 1;
        }
        until("another pager is there", async || {
            rig.host.pager.known().filter(|known| known.pid.is_some_and(|new| new != pid))
        })
        .await;
    }
    println!("{rounds} pagers killed, {lost} sandboxes ended by name, {answers} answers, all right");
    assert_eq!(rig.host.ends.all().get("pager-lost"), Some(&(rounds * 4)), "{:?}", rig.host.ends.all());
    let (sandbox, _) = rig.create("after").await.unwrap();
    rig.check(&sandbox, 0, 5000).await;
    rig.destroy(&sandbox).await;
}

/// A pager that does not answer any more is ended, and with it those who wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pager_is_as_good_as_dead() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    let (sandbox, _) = rig.create("s1").await.unwrap();
    let pid = rig.pager().await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    let error = rig.invoke(&sandbox, 2 << 20, 5000).await.unwrap_err();
    assert_eq!(WireError::from(error).reason, reason::SANDBOX_LOST);
    sandbox.wait_gone().await;
    assert_eq!(rig.host.ends.all().get("pager-lost"), Some(&1));
    let (sandbox, _) = rig.create("s2").await.unwrap();
    assert!(sandbox.on_wire("h1").paged);
    rig.check(&sandbox, 0, 5000).await;
    rig.destroy(&sandbox).await;
}

/// The pager only reads the origin: what garbage collection took out of service and a VM needs, the agent puts back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_retired_and_is_read_comes_back_into_service() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    // What is learned is published, and that alone brings back what it names: here nothing is learned any more.
    for id in ["s1", "s2"] {
        let (sandbox, _) = rig.create(id).await.unwrap();
        rig.check(&sandbox, 1 << 20, 100_000).await;
        until("its accesses are learned", async || rig.entry().await.filter(|entry| entry.sequence == 1))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.destroy(&sandbox).await;
    }
    let chunks = rig.chunks().await;
    for chunk in &chunks {
        let retired = retired(chunk);
        fs::create_dir_all(retired.parent().unwrap()).unwrap();
        fs::rename(chunk, retired).unwrap();
    }
    tokio::spawn(Snapshots::rescue(Arc::clone(&rig.host)));
    let (sandbox, _) = rig.create("s3").await.unwrap();
    assert!(sandbox.on_wire("h1").paged);
    all(&rig, &sandbox).await;
    // Those that it read before it has itself.
    until("some are in service", async || chunks.iter().any(|chunk| chunk.is_file()).then_some(())).await;
    rig.destroy(&sandbox).await;
}

/// Every byte of its file.
async fn all(rig: &Rig, sandbox: &Arc<Sandbox>) {
    for part in 0..4 {
        rig.check(sandbox, part * (BYTES / 4), BYTES / 4).await;
    }
}

fn retired(chunk: &Path) -> PathBuf {
    let area = chunk.ancestors().nth(2).unwrap();
    area.with_file_name("retired").join(chunk.strip_prefix(area).unwrap())
}

/// What one pager fetched the next one has, though it is another user.
#[tokio::test(flavor = "multi_thread")]
async fn the_cache_outlives_a_pager() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    let (sandbox, _) = rig.create("s1").await.unwrap();
    all(&rig, &sandbox).await;
    rig.destroy(&sandbox).await;
    let pid = rig.pager().await;
    let owner = owner(pid);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let next = until("another pager is there", async || {
        rig.host.pager.known().and_then(|known| known.pid).filter(|new| *new != pid)
    })
    .await;
    assert_ne!(self::owner(next), owner, "a user id rests");
    let (sandbox, _) = rig.create("s2").await.unwrap();
    all(&rig, &sandbox).await;
    let hits = until("it is counted", async || {
        rig.host.pager.known().map(|known| known.figures.disk.hits).filter(|hits| *hits > 0)
    })
    .await;
    println!("{hits} chunks from the disk of the pager before");
    rig.destroy(&sandbox).await;
}

fn owner(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    ids.split_whitespace().next().unwrap().parse().unwrap()
}

/// A chunk that is none any more ends who needs it; the same start is not tried the same way again.
#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_chunk_is_a_named_end_and_the_next_start_boots() {
    needs!();
    let rig = Rig::start().await;
    rig.publish().await;
    for chunk in rig.chunks().await {
        let mut bytes = fs::read(&chunk).unwrap();
        bytes[1000] ^= 4;
        fs::write(chunk, bytes).unwrap();
    }
    let (sandbox, _) = rig.create("s1").await.unwrap();
    let error = rig.invoke(&sandbox, 0, 100).await.unwrap_err();
    assert!(WireError::from(error).retryable);
    sandbox.wait_gone().await;
    assert!(sandbox.vmm_log.text().contains("cannot be had"), "{}", sandbox.vmm_log.text());
    assert_eq!(rig.host.ends.all().get("pager-lost"), Some(&1));
    let (mut number, mut booted) = (2, None);
    // The agent hears why a moment after the end.
    while booted.is_none() {
        let (sandbox, timings) = rig.create(&format!("s{number}")).await.unwrap();
        number += 1;
        assert!(number < 50, "it is paged again and again");
        if timings.restore_us == 0 {
            booted = Some(sandbox);
        } else {
            rig.destroy(&sandbox).await;
        }
    }
    let booted = booted.unwrap();
    let wire = booted.on_wire("h1");
    assert!(!wire.paged && !wire.restored, "{wire:?}");
    rig.destroy(&booted).await;
}
