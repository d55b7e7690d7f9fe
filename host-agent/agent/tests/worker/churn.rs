//! Sandboxes come and go by the thousand, half of them killed at a moment that nobody chose; nothing of any is left. The full form is
//! `cargo xtask soak worker`.

use crate::rig::{Caller, Rig, full_form, module, until, version};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use warren_proto::v1::FunctionVersion;

/// Sandboxes that are made at once.
const AT_ONCE: usize = 6;
/// Slots that a jailer keeps ready.
const READY_SLOTS: usize = 4;
/// Growth of resident memory that is none: what an allocator keeps.
const FLAT: u64 = 6 << 20;

/// Moments without a pattern.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// How they ended.
#[derive(Default)]
struct Ends {
    destroyed: AtomicUsize,
    killed: AtomicUsize,
}

fn count(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// What a host shows of its sandboxes, in all places where something could stay.
fn traces(rig: &Rig) -> BTreeMap<&'static str, usize> {
    let dir = rig.dir.path();
    let folders = |parent: PathBuf| {
        fs::read_dir(parent).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir())
    };
    let lines = |file: String| fs::read_to_string(file).unwrap().lines().count();
    let uids = rig.uids();
    let owned = |status: &str| {
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        uid.and_then(|uid| uid.parse().ok()).is_some_and(|uid: u32| uids.contains(&uid))
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        // One that ends meanwhile is none.
        fs::read_to_string(entry.ok()?.path().join("status")).ok()
    });
    BTreeMap::from([
        ("cgroups", rig.cgroup_parents().into_iter().map(|parent| folders(parent).count()).sum()),
        ("processes below the jailer, zombies too", rig.jailers_processes().len()),
        ("processes with a jail's user", processes.filter(|status| owned(status)).count()),
        ("the agent's open files", count(format!("/proc/{}/fd", rig.agent.pid()))),
        ("the jailer's open files", count(format!("/proc/{}/fd", rig.jailer_pid()))),
        ("the host's mounts", lines("/proc/self/mountinfo".into())),
        ("the jailer's mounts", lines(format!("/proc/{}/mountinfo", rig.jailer_pid()))),
        ("network links", count("/sys/class/net")),
        ("sockets and records", rig.run_files().len()),
        ("the jailer's state", count(dir.join("jailer"))),
    ])
}

/// Makes one after the other and ends each: every second one is killed, while it idles or works.
async fn come_and_go(rig: &Rig, echo: &FunctionVersion, ends: &Ends, (worker, of): (usize, usize)) {
    let caller = Caller::new(rig).await;
    let mut chance = Chance(worker as u64);
    for number in 0..of {
        let id = format!("w{worker}-{of}-{number}");
        caller.create(&id, echo).await.unwrap();
        if number % 2 == 1 {
            let pid = caller.find(&id).await.and_then(|sandbox| Pid::from_raw(sandbox.pid));
            let moment = Duration::from_micros(chance.below(3000));
            let kill = async {
                tokio::time::sleep(moment).await;
                let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            };
            // Whatever it answers, or does not.
            let _ = tokio::join!(caller.invoke(&id, b"x"), kill);
            ends.killed.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(caller.invoke(&id, b"x").await.unwrap().payload, "x");
            caller.destroy(&id, 1).await.unwrap();
            ends.destroyed.fetch_add(1, Ordering::Relaxed);
        }
        caller.until_gone(&id).await;
    }
}

async fn round(rig: &Rig, echo: &FunctionVersion, each: usize) -> Ends {
    let ends = Ends::default();
    let workers = (0..AT_ONCE).map(|worker| come_and_go(rig, echo, &ends, (worker, each)));
    futures::future::join_all(workers).await;
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_come_and_go_and_nothing_is_left() {
    let rig = Rig::start(&["--snapshots-mib=256"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.publish(&echo).await.unwrap();
    let all = if full_form() { 10_008 } else { 1_008 };
    // What is kept for good is there after some.
    round(&rig, &echo, 24).await;
    let before = until("all is reclaimed and slots are ready again", async || {
        let seen = traces(&rig);
        let ready = rig.jailers_processes().len() - rig.jailed_processes().len();
        (rig.run_files().is_empty() && ready == READY_SLOTS && seen == traces(&rig)).then_some(seen)
    })
    .await;
    let memory = || [rig.agent.rss_bytes(), rig.jailer_rss_bytes()];
    let held = memory();
    let ends = round(&rig, &echo, all / AT_ONCE).await;
    let (destroyed, killed) = (ends.destroyed.into_inner(), ends.killed.into_inner());
    assert_eq!((destroyed, killed), (all / AT_ONCE / 2 * AT_ONCE, all / AT_ONCE / 2 * AT_ONCE));
    // Who was killed is reclaimed behind it.
    until("nothing of any is left", async || (traces(&rig) == before).then_some(())).await;
    for (what, (before, after)) in ["agent", "jailer"].iter().zip(held.iter().zip(memory())) {
        assert!(after < before + FLAT, "the {what}'s resident memory grew from {before} to {after}");
    }
    println!("{destroyed} destroyed, {killed} killed; {before:?}; resident {held:?}, {:?} then", memory());
    caller.create("last", &echo).await.unwrap();
    assert_eq!(caller.invoke("last", b"x").await.unwrap().payload, "x");
}
