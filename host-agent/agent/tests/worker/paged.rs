//! Sandboxes whose memory the pager brings, and agents that come and go: the pager outlives them, as VMMs do.

use crate::{
    rig::{Caller, Rig, module, until, version},
    shared::Origin,
};
use std::{fs, path::Path};
use warren_proto::v1::{FunctionVersion, SnapshotOutcome};

/// A second host of a fleet whose first one has published a function; it keeps no snapshots itself, so all its starts are paged.
struct Fleet {
    origin: Origin,
    _first: Rig,
    second: Rig,
    echo: FunctionVersion,
}

async fn fleet(flags: &[&str]) -> Option<Fleet> {
    if !Path::new("/dev/userfaultfd").exists() {
        println!("warren-skipped: worker: no /dev/userfaultfd");
        return None;
    }
    let origin = Origin::new();
    let flag = origin.flag();
    let first = Rig::start(&["--snapshots-mib=64", "--no-pager", &flag]).await;
    let mut all = vec!["--snapshots-mib=0", &flag];
    all.extend(flags);
    let second = first.start_beside("h2", &all).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    let caller = Caller::new(&first).await;
    caller.prepare(&echo, &code, b"").await.unwrap();
    let made = caller.publish(&echo).await.unwrap();
    assert_eq!(made.outcome(), SnapshotOutcome::Made, "{}", made.reason);
    origin.entry().await;
    Caller::new(&second).await.prepare(&echo, &code, b"").await.unwrap();
    Some(Fleet { origin, _first: first, second, echo })
}

impl Fleet {
    /// The processes of pagers that read this origin.
    fn pagers(&self) -> Vec<i32> {
        let flag = self.origin.path().display().to_string();
        let is_one = |pid: &i32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("warren-pager") && words.split('\0').any(|word| word == flag)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paged_sandbox_survives_its_agent() {
    let Some(mut fleet) = fleet(&[]).await else { return };
    let caller = Caller::new(&fleet.second).await;
    let created = caller.create("s1", &fleet.echo).await.unwrap();
    assert!(created.restore_us > 0 && created.init_us == 0, "{created:?}");
    assert!(created.sandbox.unwrap().paged);
    let pagers = fleet.pagers();
    assert_eq!(pagers.len(), 1);
    fleet.second.restart_agent();
    let caller = Caller::new(&fleet.second).await;
    let adopted = caller.find("s1").await.unwrap();
    assert!(adopted.paged && adopted.restored, "{adopted:?}");
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    caller.create("s2", &fleet.echo).await.unwrap();
    assert!(caller.find("s2").await.unwrap().paged);
    assert_eq!(caller.invoke("s2", b"again").await.unwrap().payload, "again");
    assert_eq!(fleet.pagers(), pagers, "the new agent took it over");
    // An agent that ends in order takes all with it.
    assert_eq!(fleet.second.agent.terminate(), Some(0));
    until("no pager is left", async || fleet.pagers().is_empty().then_some(())).await;
    assert!(fleet.second.jailed_processes().is_empty());
    assert_eq!(fleet.second.run_files(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pager_that_nobody_needs_ends_by_itself() {
    let Some(mut fleet) = fleet(&["--leave"]).await else { return };
    let caller = Caller::new(&fleet.second).await;
    caller.create("s1", &fleet.echo).await.unwrap();
    assert!(caller.find("s1").await.unwrap().paged);
    let pagers = fleet.pagers();
    assert_eq!(fleet.second.agent.terminate(), Some(0));
    assert_eq!(fleet.pagers(), pagers, "its sandbox was left");
    assert_eq!(fleet.second.jailed_processes().len(), 1);
    fleet.second.stop_jailer();
    until("no pager is left", async || fleet.pagers().is_empty().then_some(())).await;
}
