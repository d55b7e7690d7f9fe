//! Snapshots that hosts of one fleet share: two agents, each with a jailer and a data directory of its own, and one origin.

use crate::rig::{Caller, Rig, expect, module, until, version};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use tonic::Code;
use warren_proto::{
    error::Fault,
    reason,
    v1::{self, FunctionVersion, OriginCopy, Snapshot, SnapshotOutcome},
};

/// The user that agents run as.
const AGENT_UID: u32 = 64_001;

/// A folder that every agent can write, in one that only root can.
pub(crate) struct Origin(TempDir);

impl Origin {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wo").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let origin = Self(dir);
        fs::create_dir(origin.path()).unwrap();
        chown(origin.path(), Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        origin
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("origin")
    }

    pub(crate) fn flag(&self) -> String {
        format!("--snapshot-origin={}", self.path().display())
    }

    /// Everything in an area.
    pub(crate) fn files(&self, area: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.path().join(area), &mut found).unwrap();
        found
    }

    /// The one entry, once it is there.
    pub(crate) async fn entry(&self) -> PathBuf {
        until("an entry", async || self.files("entries").pop()).await
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Where a case mounted something.
        let _ = Command::new("umount").arg("-q").arg(self.path()).status();
    }
}

pub(crate) fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// A host whose function `echo` is prepared, not started.
async fn prepared(rig: &Rig) -> (Caller, FunctionVersion) {
    let caller = Caller::new(rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    (caller, echo)
}

/// What the first host makes, the second starts from, though it never booted that function.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_host_made_another_starts_from() {
    let origin = Origin::new();
    let flags = ["--snapshots-mib=64", &origin.flag()];
    let first = Rig::start(&flags).await;
    let second = first.start_beside("h2", &flags).await;
    let (caller, echo) = prepared(&first).await;
    let made = caller.publish(&echo).await.unwrap();
    assert_eq!(made.outcome(), SnapshotOutcome::Made, "{}", made.reason);
    origin.entry().await;
    let (other, echo) = prepared(&second).await;
    assert!(other.snapshots("echo").await.is_empty(), "it has one already");
    let restored = other.create("s1", &echo).await.unwrap();
    assert!(restored.restore_us > 0 && restored.init_us == 0, "{restored:?}");
    let here = caller.create("s1", &echo).await.unwrap();
    assert!(here.restore_us > 0, "{here:?}");
    for payload in [&b"hello"[..], b"", b"l"] {
        let (one, two) =
            (caller.invoke("s1", payload).await.unwrap(), other.invoke("s1", payload).await.unwrap());
        assert_eq!(one.payload, two.payload);
    }
    let (here, there) = (caller.snapshots("echo").await, other.snapshots("echo").await);
    assert_eq!((here.len(), there.len()), (1, 1));
    assert_eq!(here[0].memory_digest, there[0].memory_digest, "it is another snapshot");
}

/// Two hosts of a fleet that share.
pub(crate) struct Two {
    pub(crate) origin: Origin,
    pub(crate) first: Rig,
    pub(crate) second: Rig,
    pub(crate) makes: Caller,
    pub(crate) takes: Caller,
    pub(crate) code: Vec<u8>,
}

impl Two {
    pub(crate) async fn start() -> Self {
        let origin = Origin::new();
        let flags = ["--snapshots-mib=64", "--no-pager", &origin.flag()];
        let first = Rig::start(&flags).await;
        let second = first.start_beside("h2", &flags).await;
        let (makes, takes) = (Caller::new(&first).await, Caller::new(&second).await);
        Self { origin, first, second, makes, takes, code: module::obedient() }
    }

    pub(crate) async fn prepare(&self, caller: &Caller, name: &str) -> FunctionVersion {
        let function = version(name, &self.code, |_| ());
        caller.prepare(&function, &self.code, b"").await.unwrap();
        function
    }

    /// The first host makes one and publishes it: its entry's file.
    pub(crate) async fn publish(&self, name: &str) -> PathBuf {
        publish(&self.makes, &self.prepare(&self.makes, name).await, &self.origin).await
    }
}

/// Has one made, waits for the fleet's copy, gives its entry's file.
pub(crate) async fn publish(caller: &Caller, function: &FunctionVersion, origin: &Origin) -> PathBuf {
    let made = caller.publish(function).await.unwrap();
    assert_eq!(made.outcome(), SnapshotOutcome::Made, "{}", made.reason);
    until("the fleet's copy", async || copy(caller, &function.name, OriginCopy::There).await).await;
    origin.path().join("entries").join(&made.key[..2]).join(&made.key)
}

/// Whether the fleet's copy of a function's snapshot is so far, as its host tells.
pub(crate) async fn copy(caller: &Caller, function: &str, state: OriginCopy) -> Option<Snapshot> {
    caller.snapshots(function).await.into_iter().find(|one| one.origin() == state)
}

pub(crate) fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    // In place: its owner stays the agent's user.
    fs::write(path, bytes).unwrap();
}

/// Entries that are not good, and good ones whose chunks are not: the same start boots, and another copy takes the place.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_believed_is_not_served_and_is_replaced() {
    let two = Two::start().await;
    // Of another fleet, with the same functions: the same keys.
    let theirs = Origin::new();
    let stranger = Rig::start(&["--snapshots-mib=64", "--no-pager", &theirs.flag()]).await;
    let foreign = Caller::new(&stranger).await;
    let other = two.publish("other").await;
    let all: Vec<_> = two.origin.files("chunks");
    for case in [
        "flipped",
        "short",
        "empty",
        "long",
        "others",
        "foreign",
        "no-manifest",
        "chunk-flipped",
        "chunk-gone",
    ] {
        let entry = two.publish(case).await;
        let own: Vec<_> = two.origin.files("chunks").into_iter().filter(|path| !all.contains(path)).collect();
        let is_manifest = |path: &PathBuf| fs::read(path).unwrap().starts_with(b"WRNCHMAN");
        match case {
            "flipped" => flip(&entry, |len| len / 2),
            "short" => fs::write(&entry, &fs::read(&entry).unwrap()[..100]).unwrap(),
            "empty" => fs::write(&entry, b"").unwrap(),
            "long" => fs::write(&entry, vec![0; 1 << 20]).unwrap(),
            "others" => fs::write(&entry, fs::read(&other).unwrap()).unwrap(),
            "foreign" => {
                let function = two.prepare(&foreign, case).await;
                let there = publish(&foreign, &function, &theirs).await;
                assert_eq!(there.file_name(), entry.file_name(), "not of this key");
                fs::write(&entry, fs::read(there).unwrap()).unwrap();
            }
            "no-manifest" => {
                own.iter().filter(|path| is_manifest(path)).for_each(|path| fs::remove_file(path).unwrap());
            }
            // Of every function: what one of them has of another is flipped as well.
            "chunk-flipped" => {
                let chunks = two.origin.files("chunks").into_iter().filter(|path| !is_manifest(path));
                chunks.for_each(|path| flip(&path, |len| len - 1));
            }
            _ => {
                let chunks = two.origin.files("chunks").into_iter().filter(|path| !is_manifest(path));
                chunks.for_each(|path| fs::remove_file(path).unwrap());
            }
        }
        let damaged = fs::read(&entry).unwrap();
        let function = two.prepare(&two.takes, case).await;
        let booted = two.takes.create(case, &function).await.unwrap();
        assert!(booted.restore_us == 0 && booted.init_us > 0, "{case}: {booted:?}");
        assert_eq!(two.takes.invoke(case, b"hello").await.unwrap().payload, "hello");
        let copied = until(case, async || copy(&two.takes, case, OriginCopy::There).await).await;
        assert!(fs::read(&entry).unwrap() != damaged, "{case}: it is still what it was");
        // Now it is good: a host that has nothing starts from it.
        let third =
            two.first.start_beside("h3", &["--snapshots-mib=64", "--no-pager", &two.origin.flag()]).await;
        let caller = Caller::new(&third).await;
        let function = two.prepare(&caller, case).await;
        // Who publishes has more patience than a cold start, which a busy machine lets boot.
        assert_eq!(caller.publish(&function).await.unwrap().outcome(), SnapshotOutcome::Made, "{case}");
        let restored = caller.create(case, &function).await.unwrap();
        assert!(restored.restore_us > 0, "{case}: {restored:?}");
        assert_eq!(caller.invoke(case, b"hello").await.unwrap().payload, "hello");
        assert_eq!(caller.snapshots(case).await[0].memory_digest, copied.memory_digest, "{case}");
    }
    drop(two.second);
}

/// Whatever the origin does, functions start, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_fails_costs_nothing_but_the_copy() {
    for case in ["gone", "file", "full", "forbidden"] {
        let origin = Origin::new();
        let place = origin.path();
        let run = |command: &str| {
            let done = Command::new("sh").arg("-ec").arg(command).arg(&place).status().unwrap();
            assert!(done.success(), "{command}");
        };
        match case {
            "file" => run("rmdir \"$0\"; echo > \"$0\""),
            "full" => run("mount -t tmpfs -o size=4m,mode=777 none \"$0\"; \
                 ! dd if=/dev/zero of=\"$0/ballast\" bs=64k 2> /dev/null"),
            "forbidden" => run("chown 0:0 \"$0\"; chmod 500 \"$0\""),
            _ => {}
        }
        let rig = Rig::start(&["--snapshots-mib=64", "--no-pager", &origin.flag()]).await;
        if case == "gone" {
            let caller = Caller::new(&rig).await;
            let (code, before) = (module::variant(1), version("before", &module::variant(1), |_| ()));
            caller.prepare(&before, &code, b"").await.unwrap();
            publish(&caller, &before, &origin).await;
            run("rm -r \"$0\"");
        }
        let (caller, echo) = prepared(&rig).await;
        let booted = caller.create("s0", &echo).await.unwrap();
        assert_eq!(booted.restore_us, 0, "{case}");
        assert_eq!(caller.invoke("s0", b"hello").await.unwrap().payload, "hello");
        let made = caller.publish(&echo).await.unwrap();
        assert_eq!(made.outcome(), SnapshotOutcome::Made, "{case}: {}", made.reason);
        assert!(caller.create("s1", &echo).await.unwrap().restore_us > 0, "{case}");
        let told = until(case, async || copy(&caller, "echo", OriginCopy::Failed).await).await;
        assert!(!told.origin_reason.is_empty(), "{case}");
        // Well again, and another one is made: both go there.
        match case {
            "full" => run("rm \"$0/ballast\""),
            "file" => run("rm \"$0\"; mkdir \"$0\"; chown 64001 \"$0\""),
            "gone" => run("mkdir \"$0\"; chown 64001 \"$0\""),
            _ => run("chown 64001 \"$0\"; chmod 700 \"$0\""),
        }
        let code = module::obedient();
        let next = version("next", &code, |_| ());
        caller.prepare(&next, &code, b"").await.unwrap();
        caller.publish(&next).await.unwrap();
        for function in ["echo", "next"] {
            until(case, async || copy(&caller, function, OriginCopy::There).await).await;
        }
    }
}

/// Two hosts make the same at once: one entry stands, both say so, and a third starts from it.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_make_one_at_once_have_one_entry() {
    let two = Two::start().await;
    for round in 0..4 {
        let name = format!("f{round}");
        let (one, other) = (two.prepare(&two.makes, &name).await, two.prepare(&two.takes, &name).await);
        let (here, there) =
            tokio::join!(publish(&two.makes, &one, &two.origin), publish(&two.takes, &other, &two.origin));
        assert_eq!(here, there);
        assert_eq!(two.origin.files("entries").len(), round + 1);
    }
    let third = two.first.start_beside("h3", &["--snapshots-mib=64", "--no-pager", &two.origin.flag()]).await;
    let caller = Caller::new(&third).await;
    let function = two.prepare(&caller, "f0").await;
    assert!(caller.create("s1", &function).await.unwrap().restore_us > 0);
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
}

/// Removed by an operator, it is gone for the fleet.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_removed_from_the_origin() {
    let two = Two::start().await;
    let entry = two.publish("echo").await;
    let key = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let remove = async |caller: &Caller| {
        let request = v1::RemoveSnapshotRequest { key: key.clone(), here_only: false };
        caller.client.clone().remove_snapshot(request).await
    };
    // By a host that never had it.
    remove(&two.takes).await.unwrap();
    assert!(!entry.exists());
    expect(remove(&two.takes).await, Code::NotFound, reason::NO_SUCH_SNAPSHOT, Fault::Caller);
    let echo = two.prepare(&two.takes, "echo").await;
    assert_eq!(two.takes.create("s1", &echo).await.unwrap().restore_us, 0);
}
