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
    v1::{self, FunctionLimits, SandboxState},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vmm_refuses_is_removed_and_the_same_start_boots() {
    let mut rig = Rig::start(&["--snapshots-mib=64"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    let place = rig.dir.path().join("agent/snapshots");
    let path = until("a snapshot is made", async || snapshots(&place).pop()).await;
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
