//! Sandboxes whose memory the pager brings, and agents that come and go: the pager outlives them, as VMMs do.

use crate::{
    rig::{Caller, Rig, module, until, version},
    shared::{Origin, publish},
};
use std::{fs, path::Path};
use warren_proto::v1::{self, FunctionVersion, SnapshotOutcome};

/// A second host of a fleet whose first one has published a function; it keeps no snapshots itself, so all its starts are paged.
struct Fleet {
    origin: Origin,
    first: Rig,
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
    Some(Fleet { origin, first, second, echo })
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

/// Who keeps a snapshot can tell people which of its pages starts elsewhere touched, and in what order.
#[tokio::test(flavor = "multi_thread")]
async fn what_starts_touch_is_told_where_it_is_kept() {
    let Some(fleet) = fleet(&[]).await else { return };
    let keeps = Caller::new(&fleet.first).await;
    let key = keeps.snapshots("echo").await.remove(0).key;
    let map = async || {
        let request = v1::MapSnapshotRequest { key: key.clone(), base_key: String::new() };
        keeps.client.clone().map_snapshot(request).await.unwrap().into_inner()
    };
    let before = map().await;
    assert!(!before.windows.is_empty() && before.touches.is_none(), "{before:?}");
    let caller = Caller::new(&fleet.second).await;
    caller.create("s1", &fleet.echo).await.unwrap();
    caller.invoke("s1", b"hello").await.unwrap();
    // What was read of an entry counts for a minute: a host that begins anew reads it again.
    let mut fleet = fleet;
    let entry = fleet.origin.entry().await;
    let first = fs::read(&entry).unwrap();
    until("it is learned", async || (fs::read(&entry).ok()? != first).then_some(())).await;
    fleet.first.restart_agent();
    let keeps = Caller::new(&fleet.first).await;
    let request = v1::MapSnapshotRequest { key, base_key: String::new() };
    let map = keeps.client.clone().map_snapshot(request).await.unwrap().into_inner();
    let touches = map.touches.unwrap();
    assert_eq!(touches.starts, 1);
    let windows: u32 = touches.windows.iter().map(|one| one.pages).sum();
    assert!(touches.pages > 10 && windows == touches.pages, "{touches:?}");
    let kept: u32 = map.windows.iter().map(|one| one.filled).sum();
    assert!(touches.windows.iter().any(|one| one.first == 0) && touches.pages < kept, "{touches:?}");
}

/// A function whose memory the fleet has as a diff on another's: pages of both are brought.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_paged_with_its_base() {
    let Some(fleet) = fleet(&[]).await else { return };
    let code = module::obedient_as(2);
    let next = version("next", &code, |_| ());
    let makes = Caller::new(&fleet.first).await;
    makes.prepare(&next, &code, b"").await.unwrap();
    publish(&makes, &next, &fleet.origin).await;
    let told = makes.snapshots("next").await.remove(0);
    assert!((told.origin_new_bytes + told.origin_shared_bytes) * 4 < told.memory_bytes, "{told:?}");
    let caller = Caller::new(&fleet.second).await;
    caller.prepare(&next, &code, b"").await.unwrap();
    let created = caller.create("s1", &next).await.unwrap();
    assert!(created.restore_us > 0 && created.sandbox.unwrap().paged);
    for payload in [&b"hello"[..], b"", b"l"] {
        assert_eq!(caller.invoke("s1", payload).await.unwrap().payload, payload);
    }
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
