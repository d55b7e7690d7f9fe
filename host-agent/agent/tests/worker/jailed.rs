//! What is in a jail as its host sees it while it lives: the VMMs here, the pager's in `paged`.

use crate::rig::{Caller, Rig, module, until, version};
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::PathBuf};
use warren_proto::v1::SandboxState;

pub(crate) fn read(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in {status}")).trim().to_owned()
}

pub(crate) fn uid(pid: i32) -> Option<u32> {
    let status = read(pid, "status");
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// Looks at every thread of one, and at what all of them share: sealed, nobody's, and nowhere. The names of its threads.
pub(crate) fn threads_behind_the_seal(rig: &Rig, pid: i32) -> Vec<String> {
    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let name = field(&status, "Name");
        for (line, wanted) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("Groups", "")] {
            assert_eq!(field(&status, line), wanted, "{line} of {name}");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set} of {name}");
        }
        for ids in ["Uid", "Gid"] {
            let all: Vec<u32> =
                field(&status, ids).split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert!(
                all.iter().all(|id| *id == all[0] && rig.uids().contains(id)),
                "{ids} of {name}: {all:?}"
            );
        }
        names.push(name);
    }
    let own = uid(pid);
    let others = rig.jailed_processes().into_iter().filter(|other| *other != pid);
    assert!(others.into_iter().all(|other| uid(other) != own), "a user of its own");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0, "an empty root");
    assert_eq!(read(pid, "mountinfo").lines().count(), 1);
    assert_eq!(read(pid, "environ"), "");
    let devices = read(pid, "net/dev");
    let devices = devices.lines().skip(2).filter(|line| !line.trim().starts_with("lo:"));
    assert_eq!(devices.count(), 0, "a network");
    assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0, "it can be dumped");
    let limits = read(pid, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    names
}

/// What a process has open, by number.
pub(crate) fn descriptors(pid: i32) -> Vec<(u32, PathBuf, PathBuf)> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    // One that was closed meanwhile has no name.
    all.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path(), fs::read_link(entry.path()).ok()?))
    })
    .collect()
}

/// A VMM that runs an event, one whose function is idle, restored and built, and one that waits for anybody.
#[tokio::test(flavor = "multi_thread")]
async fn every_thread_of_every_vmm_is_behind_the_seal() {
    let rig = Rig::start(&["--snapshots-mib=64", "--zygotes-mib=64"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let [first, second] = ["first", "second"].map(|name| version(name, &code, |_| ()));
    caller.prepare(&first, &code, b"").await.unwrap();
    caller.prepare(&second, &code, b"").await.unwrap();
    caller.create("booted", &second).await.unwrap();
    caller.publish(&first).await.unwrap();
    caller.create("restored", &first).await.unwrap();
    caller.create("busy", &first).await.unwrap();
    until("a zygote waits", async || {
        let all = caller.list().await;
        all.into_iter().find(|sandbox| sandbox.state() == SandboxState::Zygote)
    })
    .await;
    let looked = async {
        caller.until_state("busy", SandboxState::Busy).await;
        let mut users = BTreeSet::new();
        // Those in the table: another may be on its way into its jail.
        for sandbox in caller.list().await {
            let pid = sandbox.pid;
            let names = threads_behind_the_seal(&rig, pid);
            assert!(names.iter().any(|name| name == "vcpu"), "{names:?}");
            assert!(users.insert(uid(pid)), "two with one user");
            for (number, _, link) in descriptors(pid) {
                let name = link.display().to_string();
                let right = match number {
                    0 => name == "/dev/null",
                    1 | 2 => name.starts_with("pipe:"),
                    3 => name.starts_with("socket:"),
                    // KVM and the guest program while they are needed; the agent's connections, the VM and what
                    // waits for it, and memory: nothing else that a path leads to.
                    _ => {
                        name == "/dev/kvm"
                            || link.ends_with("warren-guest")
                            || ["socket:", "anon_inode:", "/memfd:"].iter().any(|kind| name.starts_with(kind))
                    }
                };
                assert!(right, "{number} is {name}");
            }
        }
        users.len()
    };
    // It spins until its time is over.
    let (answer, looked) = tokio::join!(caller.invoke("busy", b"s"), looked);
    assert!(answer.is_err() && looked >= 4, "{looked} VMMs: {answer:?}");
}
