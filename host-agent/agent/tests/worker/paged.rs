//! Sandboxes whose memory the pager brings, and agents and jailers that come and go: the pager outlives them, as VMMs do. Its jail.

use crate::{
    jailed::{descriptors, read, threads_behind_the_seal, uid},
    rig::{Caller, Rig, module, until, version},
    shared::{Origin, publish},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};
use warren_proto::v1::{self, FunctionVersion, SnapshotOutcome};
use warren_sandbox_plan::cgroup::NAME_ATTRIBUTE;

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
    // Nobody but agents reaches what lies in it by a name: the pager has another user.
    fs::set_permissions(origin.path(), fs::Permissions::from_mode(0o700)).unwrap();
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
    /// The second host's pagers, whoever is their parent.
    fn pagers(&self) -> Vec<i32> {
        self.jailed().into_iter().filter(|pid| read(*pid, "cmdline").starts_with("warren-pager")).collect()
    }

    /// Everything that runs as a user of its jails.
    fn jailed(&self) -> Vec<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_one = |pid: &i32| uid(*pid).is_some_and(|uid| self.second.uids().contains(&uid));
        pids.filter(is_one).collect()
    }

    async fn paged(&self, caller: &Caller, id: &str) {
        caller.create(id, &self.echo).await.unwrap();
        let sandbox = caller.find(id).await.unwrap();
        assert!(sandbox.paged && sandbox.restored, "{sandbox:?}");
    }
}

/// Whether a descriptor is of that folder, and of a mount from which nothing leads up.
fn is_alone(descriptor: &Path, folder: &Path) -> bool {
    let is = |path: &Path| fs::metadata(path).map(|facts| (facts.dev(), facts.ino())).unwrap();
    is(descriptor) == is(folder) && is(&descriptor.join("..")) == is(folder)
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
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
    fleet.paged(&caller, "s2").await;
    assert_eq!(caller.invoke("s2", b"again").await.unwrap().payload, "again");
    assert_eq!(fleet.pagers(), pagers, "the new agent took it over");
    // An agent that ends in order takes all with it.
    assert_eq!(fleet.second.agent.terminate(), Some(0));
    until("no pager is left", async || fleet.pagers().is_empty().then_some(())).await;
    assert!(fleet.second.jailed_processes().is_empty());
    assert_eq!(fleet.second.run_files(), [""; 0]);
}

/// What was brought, where from and how long was waited for it goes to control with every heartbeat, and what the pager may take of
/// the host's memory is promised to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_pager_does_is_told_and_its_memory_is_set_aside() {
    let Some(fleet) = fleet(&["--pager-memory-mib=64", "--pager-work-mib=512"]).await else { return };
    let control = fleet.second.control.clone();
    let told = || control.last_heartbeat().1.pager;
    let registered = fleet.second.control.registrations().pop().unwrap().resources.unwrap();
    assert_eq!(registered.memory_mib, 4096 - 64 - 512);
    let free = fleet.second.control.last_heartbeat().1.free_memory_mib;
    assert!(free <= registered.memory_mib, "{free}");
    let before = until("a pager", async || told().filter(|pager| pager.pid > 0)).await;
    assert_eq!((before.memory_mib, before.begun, before.served, before.faults), (576, 1, 0, 0), "{before:?}");
    assert!(fleet.first.control.last_heartbeat().1.pager.is_none(), "it has none");

    let caller = Caller::new(&fleet.second).await;
    fleet.paged(&caller, "s1").await;
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    let first = until("it is told", async || told().filter(|pager| pager.chunk_pages > 0)).await;
    assert_eq!((first.serving, first.served), (1, 1), "{first:?}");
    assert!(first.waits > 0 && first.waits <= first.faults && first.longest_wait_us > 0, "{first:?}");
    assert!(first.longest_wait_us <= first.waited_us, "{first:?}");
    // A first start records: no loading set yet, a page for each that was waited for, each chunk out of the origin once.
    assert_eq!((first.loading_set_pages, first.ahead_pages, first.failed_chunks), (0, 0, 0), "{first:?}");
    let origin = first.origin.unwrap();
    assert!(
        origin.hits > 0 && origin.bytes > 0 && origin.p50_us > 0 && origin.p50_us <= origin.p99_us,
        "{origin:?}"
    );
    let hits = [first.memory, first.disk, first.agent, first.neighbours, first.origin];
    let hits: u64 = hits.iter().flatten().map(|tier| tier.hits).sum();
    assert!(hits >= first.chunks, "{first:?}");

    // Another pager in its place begins anew, and is the second.
    let [pid] = fleet.pagers()[..] else { panic!("{:?}", fleet.pagers()) };
    kill(pid);
    let second =
        until("another one", async || told().filter(|pager| pager.begun == 2 && pager.pid > 0)).await;
    assert!(second.served <= 1 && second.pid != first.pid, "{second:?}");
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

/// The next jailer finds it in its cgroup, and ends it when it is asked to; the one after it is its own child.
#[tokio::test(flavor = "multi_thread")]
async fn a_paged_sandbox_survives_its_jailer() {
    let Some(mut fleet) = fleet(&[]).await else { return };
    let caller = Caller::new(&fleet.second).await;
    fleet.paged(&caller, "s1").await;
    let pagers = fleet.pagers();
    fleet.second.restart_jailer();
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    fleet.paged(&caller, "s2").await;
    assert_eq!(caller.invoke("s2", b"again").await.unwrap().payload, "again");
    assert_eq!(fleet.pagers(), pagers);
    // Jailer and agent at once.
    fleet.second.kill_jailer();
    fleet.second.agent.kill();
    fleet.second.restart_jailer();
    fleet.second.restart_agent();
    let caller = Caller::new(&fleet.second).await;
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    assert_eq!(fleet.pagers(), pagers);
    // A pager that is not its jailer's child.
    kill(pagers[0]);
    until("another pager is there", async || fleet.pagers().into_iter().find(|pid| !pagers.contains(pid)))
        .await;
    until("its sandboxes are gone", async || caller.find("s1").await.is_none().then_some(())).await;
    fleet.paged(&caller, "s3").await;
    assert_eq!(caller.invoke("s3", b"hello").await.unwrap().payload, "hello");
    // A jailer that is told to end takes all with it, this one's child or not.
    fleet.second.stop_jailer();
    until("nothing is left", async || fleet.jailed().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pager_that_nobody_needs_ends_by_itself() {
    let Some(mut fleet) = fleet(&["--leave"]).await else { return };
    let caller = Caller::new(&fleet.second).await;
    fleet.paged(&caller, "s1").await;
    let pagers = fleet.pagers();
    assert_eq!(fleet.second.agent.terminate(), Some(0));
    assert_eq!(fleet.pagers(), pagers, "its sandbox was left");
    let left = fleet.jailed();
    assert_eq!(left.len(), 2, "the sandbox and the pager");
    left.into_iter().filter(|pid| !pagers.contains(pid)).for_each(kill);
    until("no pager is left", async || fleet.pagers().is_empty().then_some(())).await;
}

/// Every thread of it while it serves: sealed, nobody's, and with nothing open but its plan and what VMs and the agent gave it.
#[tokio::test(flavor = "multi_thread")]
async fn the_pager_is_in_a_jail_of_its_own() {
    let Some(fleet) = fleet(&[]).await else { return };
    let caller = Caller::new(&fleet.second).await;
    fleet.paged(&caller, "s1").await;
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    let [pid] = fleet.pagers()[..] else { panic!("{:?}", fleet.pagers()) };
    let all = fleet.jailed();
    assert_eq!(all.len(), 2, "it, and the VMM that it serves");
    for other in all {
        threads_behind_the_seal(&fleet.second, other);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert!(threads > 2, "its main thread, one that serves, those that read");
    let group = fleet.second.cgroup_of(uid(pid).unwrap());
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), format!("{pid}\n"), "{group:?}");
    let mut name = [0; 64];
    let said = rustix::fs::getxattr(&group, NAME_ATTRIBUTE, &mut name).unwrap();
    assert_eq!(&name[..said], b"warren-pager");

    let origin = fleet.origin.path();
    let cache = fleet.second.dir.path().join("agent/pager/chunks");
    let [chunks, retired] = ["chunks", "retired"].map(|area| origin.join(area));
    let own = uid(pid);
    for (number, path, link) in descriptors(pid) {
        let name = link.display().to_string();
        let right = match number {
            0 => link == Path::new("/dev/null"),
            1 | 2 => name.starts_with("pipe:"),
            3 => name.starts_with("socket:"),
            4 => is_alone(&path, &chunks),
            5 => is_alone(&path, &retired),
            6 => is_alone(&path, &cache),
            // The agent's connection and VMs' sockets, their userfaultfds, bells; files of the three folders, whose names begin
            // there: `/lock` and, while they are read or written, `/tmp/..` and `/ab/..`.
            _ => {
                ["socket:", "anon_inode:[userfaultfd]", "anon_inode:[eventfd]", "/lock", "/tmp/"]
                    .iter()
                    .any(|kind| name.starts_with(kind))
                    || name.len() >= 64 + 4
            }
        };
        assert!(right, "{number} is {name}");
    }
    let above = fs::metadata(cache.parent().unwrap()).unwrap();
    assert_eq!(above.permissions().mode() & 0o777, 0o700, "others reach its cache");
    let made = fs::metadata(cache.join("lock")).unwrap();
    assert_eq!(Some(made.uid()), own, "it is its own that is there");
}
