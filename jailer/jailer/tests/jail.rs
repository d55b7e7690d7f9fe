//! What a program finds in its jail: as it sees it itself, as the host sees it, and what its limits do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

mod common;

use common::{Jailer, LIMITS, PAGER, Running, compile, memory, named, open_folder, own_mounts, packet_pair};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
};
use warren_sandbox_plan::request::{CompilePurpose, ExitStatus, Limits, PAGER_NAME, Reply, Request, Spawn};

#[test]
fn the_jail_from_inside() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let mut running = client.spawn("inside");
    let report = running.report();
    let uid = jailer.uid_base;
    assert_eq!((running.jailed.uid, running.jailed.slot), (uid, 0));
    let expected = json!({
        "args": ["warren-vmm", "run"],
        "environment": 0,
        "pid": 1, "parent": null, "session": 1,
        "uid": uid, "euid": uid, "gid": uid, "egid": uid, "groups": 0,
        "no_new_privs": true, "dumpable": false,
        "effective": 0, "permitted": 0, "inheritable": 0, "bounding": 0, "ambient": 0,
        // NOROOT and NO_CAP_AMBIENT_RAISE, every one locked, KEEP_CAPS and NO_SETUID_FIXUP off.
        "securebits": 0b1110_1011,
        "descriptors": [0, 1, 2, 3, 4, 5],
        "hostname": "warren", "domain": "",
    });
    for (fact, value) in expected.as_object().unwrap() {
        assert_eq!(&report[fact], value, "{fact}");
    }
    let root = json!({
        "entries": 0, "cwd": "/", "read_only": true, "nosuid": true, "nodev": true, "noexec": true
    });
    assert_eq!(report["root"], root);
    for (limit, value) in [("CORE", 0), ("NOFILE", 64), ("FSIZE", 0), ("NPROC", 16), ("MEMLOCK", 0)] {
        assert_eq!(report["limits"][limit], json!([value, value]), "{limit}");
    }
    for (attempt, result) in report["attempts"].as_object().unwrap() {
        assert_ne!(result, "DONE", "{attempt} was possible in the jail");
    }
    assert_eq!(running.tell("kvm"), "12", "the inherited /dev/kvm answers");
    assert_eq!(client.kill("inside"), Some(ExitStatus::Signal(9)));
    jailer.assert_clean();
}

#[test]
fn the_jail_from_outside() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let (mut one, mut two) = (client.spawn("one"), client.spawn("two"));
    one.report();
    two.report();
    assert_ne!(one.jailed.uid, two.jailed.uid);
    let link =
        |pid: &dyn std::fmt::Display, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    // A host may have user namespaces turned off: then the plan says so, and the rest holds as well.
    let allowed = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap();
    let user = if allowed.trim() == "0" { None } else { Some("user") };
    for name in ["mnt", "pid", "ipc", "uts", "cgroup"].into_iter().chain(user) {
        let name = format!("ns/{name}");
        let [a, b, here] = [link(&one.jailed.pid, &name), link(&two.jailed.pid, &name), link(&"self", &name)];
        assert!(a != b && a != here && b != here, "{name} is of the jail alone: {a:?} {b:?} {here:?}");
    }
    let [a, b, here] =
        [link(&one.jailed.pid, "ns/net"), link(&two.jailed.pid, "ns/net"), link(&"self", "ns/net")];
    assert!(a == b && a != here, "the empty network namespace is shared among jails and not the host's");

    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", one.jailed.pid)).unwrap();
    assert_eq!(
        read("net/dev")
            .lines()
            .skip(2)
            .map(|line| line.trim().split(':').next().unwrap())
            .collect::<Vec<_>>(),
        ["lo"]
    );
    assert_eq!(read("mountinfo").lines().count(), 1, "one mount: the empty root");
    assert_eq!(read("environ"), "");
    if user.is_some() {
        let uid = one.jailed.uid.to_string();
        assert_eq!(read("uid_map").split_whitespace().collect::<Vec<_>>(), [&uid, &uid, "1"]);
    }
    for (field, wanted) in [
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
        ("Groups", ""),
        ("Umask", "0077"),
    ] {
        assert_eq!(status(one.jailed.pid, field), wanted, "{field}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{}/root", one.jailed.pid)).unwrap().count(), 0);
    // Belonging to root: neither its own uid nor anyone else may look into it.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", one.jailed.pid)).unwrap().uid(), 0);
    client.kill("one");
    client.kill("two");
    jailer.assert_clean();
}

/// The limits are in the kernel's files, in every hierarchy, and the process is in every one of them.
#[test]
fn the_limits_are_set_where_the_plan_says() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let limits = Limits { cpu_hard: true, memory_bytes: (48 << 20) - 5, ..LIMITS };
    let running = client.try_spawn("limits", limits).unwrap();
    let groups = jailer.cgroups();
    assert_eq!(groups.len(), jailer.cgroup_parents().len());
    assert_eq!(common::name_of(&groups[0]).as_deref(), Some("limits"), "the record of whose it is");
    let mut seen = Vec::new();
    for group in &groups {
        assert!(group.ends_with("0000"), "{}", group.display());
        let read = |file: &str| fs::read_to_string(group.join(file)).ok().map(|text| text.trim().to_owned());
        assert_eq!(read("cgroup.procs"), Some(running.jailed.pid.to_string()), "{}", group.display());
        // v1 and v2 names; a host has one set of them.
        for (file, value) in [
            ("memory.limit_in_bytes", "50331648"),
            ("memory.max", "50331648"),
            ("memory.memsw.limit_in_bytes", "50331648"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "16"),
            ("cpu.shares", "512"),
            ("cpu.weight", "500"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.max", "50000 100000"),
        ] {
            if let Some(got) = read(file) {
                assert_eq!(got, value, "{file}");
                seen.push(file.split('.').next().unwrap());
            }
        }
    }
    for controller in ["memory", "pids", "cpu"] {
        assert!(seen.contains(&controller), "{controller} is limited somewhere");
    }
    client.kill("limits");
    jailer.assert_clean();
}

/// Each takes all it can of one thing; it alone feels it.
#[test]
fn a_greedy_program_meets_its_limits() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let mut bystander = client.spawn("bystander");
    bystander.report();

    let mut memory = client.spawn("memory");
    memory.report();
    memory.tell("memory");
    memory.wait_for_end();
    assert_eq!(client.kill("memory"), Some(ExitStatus::Signal(9)), "its cgroup's OOM killer ended it");

    let mut threads = client.spawn("threads");
    threads.report();
    assert_eq!(threads.tell("threads"), "15", "16 tasks with the first");
    let mut files = client.spawn("files");
    files.report();
    assert_eq!(files.tell("files"), "57", "64 with the six given and the connection");

    assert_eq!(bystander.tell("kvm"), "12");
    for name in ["threads", "files", "bystander"] {
        client.kill(name);
    }
    jailer.assert_clean();
}

#[test]
fn a_compilation_has_its_own_table() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (module, output) = (memory(b"module", true), memory(b"", false));
    let program = compile(CompilePurpose::Policy, 5);
    let limits = Limits { cpu_seconds: 3, ..LIMITS };
    let spawn = Request::Spawn(Spawn { name: named("c"), program, limits });
    let (reply, pidfds) = client.ask(&spawn, &[module.as_fd(), output.as_fd(), write.as_fd()]);
    assert!(matches!(reply, Reply::Spawned(_)), "{reply:?}");
    drop(write);
    let mut line = String::new();
    BufReader::new(File::from(read)).read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(report["args"], json!(["warren-compile", "jailed", "--purpose", "policy", "--isa", "5"]));
    assert_eq!(report["descriptors"], json!([0, 1, 2, 3, 4]));
    assert_eq!(report["limits"]["CPU"], json!([3, 3]));
    assert_eq!(report["limits"]["FSIZE"], json!([512 << 20, 512 << 20]));
    assert_ne!(report["limits"]["AS"][1], Value::Null);
    // The probe cannot accept on a memfd and ends by itself.
    wait(&pidfds[0]);
    assert_eq!(client.kill("c"), Some(ExitStatus::Code(0)), "how it ended is still known");
    jailer.assert_clean();
}

/// The one program that gets folders: those and no other, and of a user that owns none of them.
#[test]
fn the_pager_has_its_own_table() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (socket, _agent) = packet_pair();
    let dir = open_folder(jailer.folder.path());
    let spawn = Request::Spawn(Spawn { name: named(PAGER_NAME), program: PAGER, limits: LIMITS });
    let mounts = own_mounts();
    let fds = [socket.as_fd(), write.as_fd(), dir.as_fd(), dir.as_fd(), dir.as_fd(), mounts.as_fd()];
    let (reply, pidfds) = client.ask(&spawn, &fds);
    assert!(matches!(&reply, Reply::Spawned(done) if done.uid == jailer.uid_base), "{reply:?}");
    drop(write);
    let mut line = String::new();
    BufReader::new(File::from(read)).read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(report["args"], json!(["warren-pager", "jailed", "--cache-mib=16", "--memory-mib=8"]));
    assert_eq!(report["descriptors"], json!([0, 1, 2, 3, 4, 5, 6]));
    for (limit, value) in [("CORE", 0), ("NOFILE", 6400), ("FSIZE", 64 << 20), ("NPROC", 16)] {
        assert_eq!(report["limits"][limit], json!([value, value]), "{limit}");
    }
    for (fact, value) in [("uid", json!(jailer.uid_base)), ("groups", json!(0)), ("dumpable", json!(false))] {
        assert_eq!(report[fact], value, "{fact}");
    }
    for (attempt, result) in report["attempts"].as_object().unwrap() {
        assert_ne!(result, "DONE", "{attempt} was possible in the jail");
    }
    // The probe cannot accept there and ends by itself.
    wait(&pidfds[0]);
    assert_eq!(client.kill(PAGER_NAME), Some(ExitStatus::Code(0)));
    jailer.assert_clean();
}

/// Two jails share no file offset: reading one's guest image leaves the other's at its beginning.
#[test]
fn jails_share_no_open_file() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let (one, two) = (client.spawn("one"), client.spawn("two"));
    let here = |running: &Running, number: i32| {
        let taken =
            rustix::process::pidfd_getfd(&running.pidfd, number, rustix::process::PidfdGetfdFlags::empty());
        taken.unwrap_or_else(|error| panic!("{number}: {error}"))
    };
    for number in [4, 5] {
        let (a, b) = (here(&one, number), here(&two, number));
        let append = rustix::fs::OFlags::APPEND;
        rustix::fs::fcntl_setfl(&a, append).unwrap();
        assert!(
            !rustix::fs::fcntl_getfl(&b).unwrap().contains(append),
            "{number} is shared: {}",
            a.as_raw_fd()
        );
    }
    let image = here(&one, 5);
    assert!(rustix::io::write(&image, b"x").is_err(), "the guest image is not writable");
    client.kill("one");
    client.kill("two");
}

fn wait(pidfd: impl AsFd) {
    let mut waiting = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut waiting, Some(&limit)), Ok(1));
}

fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field}")).trim().to_owned()
}
