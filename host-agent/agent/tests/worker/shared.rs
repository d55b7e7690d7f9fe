//! Snapshots that hosts of one fleet share: two agents, each with a jailer and a data directory of its own, and one origin.

use crate::rig::{Caller, Rig, module, until, version};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use warren_proto::v1::{FunctionVersion, SnapshotOutcome};

/// The user that agents run as.
const AGENT_UID: u32 = 64_001;

/// A folder that every agent can write.
struct Origin(TempDir);

impl Origin {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wo").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        Self(dir)
    }

    fn flag(&self) -> String {
        format!("--snapshot-origin={}", self.0.path().display())
    }

    /// Everything in an area.
    fn files(&self, area: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.0.path().join(area), &mut found).unwrap();
        found
    }

    /// The one entry, once it is there.
    async fn entry(&self) -> PathBuf {
        until("an entry", async || self.files("entries").pop()).await
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
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
