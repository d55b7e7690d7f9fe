//! Snapshots that are good for all this host can tell, and that a VMM does not take.

use crate::rig::{Caller, Rig, expect, module, until, version};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};
use tonic::Code;
use warren_artefact::{Part, SigningKey, SnapshotHead};
use warren_proto::{
    error::Fault,
    v1::{self, FunctionLimits, SandboxState, SnapStart, SnapshotOutcome, SnapshotState},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vmm_refuses_is_removed_and_the_same_start_boots() {
    let mut rig = Rig::start(&["--snapshots-mib=64"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    let place = rig.dir.path().join("agent/snapshots");
    assert!(snapshots(&place).is_empty(), "nobody has asked for one");
    let made = caller.publish(&echo).await.unwrap();
    assert_eq!(made.outcome(), SnapshotOutcome::Made, "{}", made.reason);
    let path = snapshots(&place).pop().unwrap();
    let restored = caller.create("s1", &echo).await.unwrap();
    assert!(restored.restore_us > 0 && restored.init_us == 0, "{restored:?}");
    assert!(restored.sandbox.unwrap().restored);
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");

    // What is in memory was judged already: only a new agent looks at the file. It knows where the adopted one came from.
    rig.restart_agent();
    let caller = Caller::new(&rig).await;
    assert!(caller.find("s1").await.unwrap().restored);
    alter_state(&path, &rig.dir.path().join("agent/builder.key"));
    let booted = caller.create("s2", &echo).await.unwrap();
    assert!(booted.restore_us == 0 && booted.init_us > 0, "{booted:?}");
    assert!(!booted.sandbox.unwrap().restored);
    assert_eq!(caller.invoke("s2", b"hello").await.unwrap().payload, "hello");
    assert!(snapshots(&place).is_empty(), "it is still there");
    for id in ["s1", "s2"] {
        caller.destroy(id, 1).await.unwrap();
    }
    assert_eq!(rig.run_files(), [""; 0]);
    until("no VMM is left", async || rig.jailed_processes().is_empty().then_some(())).await;
}

/// What waits for nobody in particular is given up for whoever comes: all of a host's memory can be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_takes_memory_back_from_zygotes() {
    let rig = Rig::start(&["--snapshots-mib=64", "--zygotes-mib=64"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.publish(&echo).await.unwrap();
    let zygotes = async || -> Vec<v1::Sandbox> {
        let all = caller.list().await.into_iter();
        all.filter(|sandbox| sandbox.state() == SandboxState::Zygote).collect()
    };
    let waiting = until("a zygote waits", async || zygotes().await.pop()).await;
    // Every MiB of the rig's 4,096: its own memory, and what a sandbox takes beyond.
    let large = version("large", &code, |version| {
        version.limits = Some(FunctionLimits { memory_mib: 4096 - 32, ..FunctionLimits::default() });
    });
    caller.prepare(&large, &code, b"").await.unwrap();
    caller.create("s1", &large).await.unwrap();
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    assert!(zygotes().await.is_empty(), "{waiting:?} was there, and now {:?}", zygotes().await);
    until("its VMM is gone", async || (rig.jailed_processes().len() == 1).then_some(())).await;
    expect(caller.create("s2", &echo).await, Code::ResourceExhausted, "HOST_FULL", Fault::System);
    caller.destroy("s1", 1).await.unwrap();
    caller.create("s2", &echo).await.unwrap();
}

/// Whoever publishes hears how it ended, everybody who does so at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_hears_the_outcome() {
    let rig = Rig::start(&["--snapshots-mib=64"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    let all = futures::future::join_all((0..4).map(|_| caller.publish(&echo))).await;
    let keys: Vec<_> = all.into_iter().map(|made| made.unwrap().key).collect();
    assert!(keys[0].len() == 64 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(snapshots(&rig.dir.path().join("agent/snapshots")).len(), 1);

    let off = version("off", &code, |version| version.set_snap_start(SnapStart::Off));
    caller.prepare(&off, &code, b"").await.unwrap();
    let large = version("large", &code, |version| {
        version.limits = Some(FunctionLimits { memory_mib: 1025, ..FunctionLimits::default() });
    });
    caller.prepare(&large, &code, b"").await.unwrap();
    for (version, words) in [(&off, "off"), (&large, "1024 MiB")] {
        let made = caller.publish(version).await.unwrap();
        assert_eq!(made.outcome(), SnapshotOutcome::Cannot, "{}", made.reason);
        assert!(made.reason.contains(words), "{}", made.reason);
    }
    // Off is off for cold starts, too: they boot, and none is made for the next one.
    for id in ["s1", "s2"] {
        assert_eq!(caller.create(id, &off).await.unwrap().restore_us, 0);
        caller.destroy(id, 1).await.unwrap();
    }
    assert!(caller.snapshots("off").await.is_empty());
}

/// After an upgrade of the guest program: what is kept is told as outdated and not served, and as control has it made again, the next
/// start begins from the new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_host_calls_the_old_outdated_and_makes_the_new() {
    let mut rig = Rig::start(&["--snapshots-mib=64"]).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    let caller = Caller::new(&rig).await;
    caller.prepare(&echo, &code, b"").await.unwrap();
    let old = caller.publish(&echo).await.unwrap().key;
    assert!(caller.create("s1", &echo).await.unwrap().restore_us > 0);
    rig.upgrade_guest();
    let caller = Caller::new(&rig).await;
    let listed = caller.snapshots("echo").await;
    let told: Vec<_> = listed.iter().map(|one| (one.state(), one.key == old)).collect();
    assert_eq!(told, [(SnapshotState::Outdated, true)]);
    assert!(listed[0].reason.contains("guest program"), "{}", listed[0].reason);
    caller.prepare(&echo, b"", b"").await.unwrap();
    let made = caller.publish(&echo).await.unwrap();
    assert_eq!((made.outcome(), made.key == old), (SnapshotOutcome::Made, false));
    let gone = v1::RemoveSnapshotRequest { key: old, here_only: true };
    caller.client.clone().remove_snapshot(gone).await.unwrap();
    let listed = caller.snapshots("echo").await;
    assert_eq!((listed.len(), listed[0].state()), (1, SnapshotState::Kept));
    assert!(caller.create("s2", &echo).await.unwrap().restore_us > 0);
    assert_eq!(caller.invoke("s2", b"hello").await.unwrap().payload, "hello");
}

fn snapshots(place: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "snapshot")).collect()
}

/// Flips a bit of the VMM's state, and signs that with the host's own key.
fn alter_state(path: &Path, key: &Path) {
    // A key is its owner's alone: the agent's is not read by another user, not even root.
    let own = key.with_extension("copy");
    fs::copy(key, &own).unwrap();
    let key = SigningKey::load_or_create(&own).unwrap();
    fs::remove_file(own).unwrap();
    let mut file = File::open(path).unwrap();
    let head = SnapshotHead::read_any(&mut file, &[key.verifying_key()]).unwrap();
    let mut memory = Vec::new();
    file.read_to_end(&mut memory).unwrap();
    let mut state = head.state().to_vec();
    state[40] ^= 1;
    let altered = SnapshotHead::new(head.of().clone(), state, Part::of(&memory), Part::of(b""), 0);
    let mut file = File::options().write(true).truncate(true).open(path).unwrap();
    altered.write(&key, &mut file).unwrap();
    file.write_all(&memory).unwrap();
}
