//! The life of jails: what ends them, what is left, and what another jailer finds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

mod common;

use common::{Client, Jailer, LIMITS, compile, memory, named};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::Signal,
};
use std::{collections::HashSet, os::fd::AsFd};
use warren_sandbox_plan::request::{CompilePurpose, ExitStatus, LIST_PAGE, Reply, Request, Spawn};

#[test]
fn kill_is_idempotent_and_tells_how_it_ended() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    assert_eq!(client.kill("never-was"), None);
    // Held: without a reader of its log the probe ends by itself.
    let _a = client.spawn("a");
    assert_eq!(client.kill("a"), Some(ExitStatus::Signal(9)));
    assert_eq!(client.kill("a"), Some(ExitStatus::Signal(9)));
    let b = client.spawn("b");
    b.tell("exit");
    b.wait_for_end();
    assert_eq!(client.kill("b"), Some(ExitStatus::Code(7)));
    assert!(client.list().is_empty());
    jailer.assert_clean();
}

#[test]
fn a_name_is_taken_while_it_lives() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let first = client.spawn("a");
    assert!(matches!(client.try_spawn("a", LIMITS).err(), Some(Reply::Failed { retryable: false, .. })));
    assert_eq!(client.list(), [first.jailed]);
    client.kill("a");
    client.spawn("a");
    client.kill("a");
    jailer.assert_clean();
}

#[test]
fn slots_run_out_and_come_back() {
    let jailer = Jailer::start(&["--slots", "3"]);
    let mut client = jailer.connect();
    let running: Vec<_> = ["a", "b", "c"].into_iter().map(|name| client.spawn(name)).collect();
    let uids: HashSet<u32> = running.iter().map(|one| one.jailed.uid).collect();
    assert_eq!(uids.len(), 3);
    let refused = client.try_spawn("d", LIMITS).err();
    assert!(matches!(refused, Some(Reply::Failed { retryable: true, .. })), "{refused:?}");
    client.kill("b");
    assert_eq!(client.spawn("d").jailed.slot, 1);
    assert_eq!(client.list().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
}

/// A list longer than a page arrives whole, in order.
#[test]
fn a_long_list_has_pages() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let running: Vec<_> = (0..=LIST_PAGE).map(|number| client.spawn(&format!("n{number:03}"))).collect();
    let listed = client.list();
    assert_eq!(listed.len(), running.len());
    assert!(listed.iter().zip(&running).all(|(listed, running)| *listed == running.jailed));
}

#[test]
fn two_hundred_jails_leave_nothing() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let cycle = |client: &mut Client, number: u32| {
        let name = format!("n{number}");
        let running = client.spawn(&name);
        if number.is_multiple_of(2) {
            running.tell("exit");
            running.wait_for_end();
        }
        client.kill(&name).unwrap();
        running.jailed.spawn_us
    };
    cycle(&mut client, 0);
    let files = jailer.open_files(&mut client);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut times: Vec<u64> = (1..=200).map(|number| cycle(&mut client, number)).collect();
    jailer.assert_clean();
    assert_eq!(jailer.open_files(&mut client), files, "the jailer's descriptors stay as they are");
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "no mount reaches the host");
    times.sort_unstable();
    eprintln!("spawn of the probe: p50 {} us, p99 {} us", times[100], times[198]);
}

/// Slots, and those that are kept ready. One is enough to see that a spawn that failed gave it back; where one that was ready
/// fails by itself, it is cleared away behind the next request, which has another.
const READY: [(&str, &str); 2] = [("1", "0"), ("4", "1")];

/// Whatever step of the plan fails, nothing is left, the slot is free and the jailer goes on.
#[test]
fn a_failure_at_any_step_leaves_nothing() {
    common::require_root();
    let plan = std::process::Command::new(&common::programs().jailer).arg("plan").output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    // The numbered lines: "   3  map-user          uid ...".
    let words = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let steps: Vec<String> = words
        .filter(|words| words.len() > 1 && words[0].parse::<u32>().is_ok())
        .map(|words| words[1].to_owned())
        .collect();
    assert!(steps.len() >= 15 && steps.last().is_some_and(|step| step == "exec"), "{steps:?}");
    for (step, (slots, ready)) in steps.iter().flat_map(|step| READY.map(|ready| (step, ready))) {
        let step = step.as_str();
        let jailer = Jailer::start(&["--fail-at", step, "--slots", slots, "--ready-slots", ready]);
        let mut client = jailer.connect();
        let files = jailer.open_files(&mut client);
        for _ in 0..3 {
            match client.try_spawn("a", LIMITS).err() {
                Some(Reply::Failed { step: failed, .. }) => assert_eq!(failed, step),
                other => panic!("{step}: {other:?}"),
            }
            jailer.assert_clean();
        }
        assert_eq!(jailer.open_files(&mut client), files, "{step}");
        assert!(client.list().is_empty());
    }
}

/// Whose process is killed before its program has begun may be asked for again: nothing has run, and nothing is left.
#[test]
fn who_is_killed_before_exec_may_be_asked_for_again() {
    common::require_root();
    let steps = ["map-user", "attach", "session", "limits", "exec"].into_iter();
    for (step, (slots, ready)) in steps.flat_map(|step| READY.map(|ready| (step, ready))) {
        let jailer = Jailer::start(&["--kill-at", step, "--slots", slots, "--ready-slots", ready]);
        let mut client = jailer.connect();
        let files = jailer.open_files(&mut client);
        for _ in 0..3 {
            match client.try_spawn("a", LIMITS).err() {
                Some(Reply::Failed { retryable: true, message, .. }) => {
                    assert!(message.contains("killed before"), "{step}: {message}");
                }
                other => panic!("{step}: {other:?}"),
            }
            jailer.assert_clean();
        }
        assert_eq!(jailer.open_files(&mut client), files, "{step}");
        assert!(client.list().is_empty());
    }
}

#[test]
fn a_new_jailer_adopts_what_lives_and_clears_what_does_not() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let mut lives = client.spawn("lives");
    lives.report();
    let dies = client.spawn("dies");
    let (pid, slot, uid) = (lives.jailed.pid, lives.jailed.slot, lives.jailed.uid);
    // What a jailer that crashed in the middle of a spawn leaves: a directory in one hierarchy, nothing in it; and what an earlier
    // one, whose directories were called otherwise, has left so. And one that is no jailer's: it stays.
    for half in ["0777", "0778.half"] {
        std::fs::create_dir(jailer.cgroup_parents()[0].join(half)).unwrap();
    }
    let foreign = jailer.cgroup_parents()[0].join("foreign");
    std::fs::create_dir(&foreign).unwrap();

    let held = jailer.pid();
    rustix::process::kill_process(held, Signal::KILL).unwrap();
    dies.tell("exit");
    dies.wait_for_end();
    let mut jailer = jailer.restart_after_crash(&[]);
    assert!(jailer.ready.contains("adopted=1"), "{}", jailer.ready);
    assert!(foreign.exists());
    std::fs::remove_dir(&foreign).unwrap();
    let mut client = jailer.connect();
    let listed = client.list();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].pid, listed[0].slot, listed[0].uid), (pid, slot, uid));
    assert_eq!(lives.tell("kvm"), "12", "it has noticed nothing");
    assert_eq!(jailer.cgroups().len(), jailer.cgroup_parents().len());

    // Its slot is taken, its name is taken, a Kill ends it and its end is seen though it is nobody's child here.
    let other = client.spawn("other");
    assert_ne!(other.jailed.slot, slot);
    assert!(client.try_spawn("lives", LIMITS).is_err());
    assert_eq!(client.kill("lives"), None, "how an adopted one ended is not for the jailer to know");
    lives.wait_for_end();
    client.kill("other");
    jailer.assert_clean();
    assert!(jailer.stop(Signal::TERM).success());
}

/// A jailer killed at any moment of its work, spawns and kills included: the next one lists exactly what lives.
#[test]
fn a_crash_at_any_moment_leaves_nothing_unknown() {
    let mut jailer = Jailer::start(&[]);
    for round in 0..12_u64 {
        let mut client = jailer.connect();
        let busy = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let mut alive = true;
            for number in 0.. {
                if !alive {
                    return kept;
                }
                let name = format!("r{round}-{number}");
                match client.try_start(&name, LIMITS) {
                    Some(Ok(running)) => kept.push(running),
                    _ => alive = false,
                }
                if number % 3 == 0 {
                    alive &= client.try_ask(&Request::Kill { name: named(&name) }, &[]).is_some();
                }
            }
            kept
        });
        // Not a synchronisation: the moment is meant to be arbitrary, and every one is right.
        std::thread::sleep(std::time::Duration::from_micros(700 * round * round % 9973));
        rustix::process::kill_process(jailer.pid(), Signal::KILL).unwrap();
        let kept = busy.join().unwrap();
        jailer = jailer.restart_after_crash(&[]);
        let mut client = jailer.connect();
        let listed = client.list();
        let directories: HashSet<String> = jailer
            .cgroups()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        let named: HashSet<String> = listed.iter().map(|one| format!("{:04}", one.slot)).collect();
        let first = &jailer.cgroup_parents()[0];
        for one in &listed {
            let name = common::name_of(&first.join(format!("{:04}", one.slot)));
            assert_eq!(name.as_deref(), Some(one.name.as_str()), "round {round}");
        }
        assert_eq!(directories, named, "round {round}");
        assert_eq!(jailer.cgroups().len(), listed.len() * jailer.cgroup_parents().len());
        // Complete, so with the slot's own uid. (One whose Spawned nobody has read may end at any time: its log's reader
        // is gone.)
        assert!(listed.iter().all(|one| one.uid % 10_000 == one.slot), "{listed:?}");
        for one in &listed {
            client.kill(one.name.as_str());
        }
        jailer.assert_clean();
        drop(kept);
    }
}

/// Slots are made ready while nothing is asked for, taken by who asks, and made again; who kills one that waits costs nobody
/// anything; and they go with their jailer, however it goes.
#[test]
fn slots_wait_for_who_asks() {
    let mut jailer = Jailer::start(&["--ready-slots", "3", "--slots", "4"]);
    let mut client = jailer.connect();
    let ready = |jailer: &Jailer, count: usize| {
        let all =
            || Some(jailer.ready_slots()).filter(|ready| ready.len() == count).ok_or(jailer.ready_slots());
        common::until("slots are ready", all)
    };
    let before = ready(&jailer, 3);
    let taken = client.spawn("a");
    assert!(before.contains(&taken.jailed.pid), "{} of {before:?}", taken.jailed.pid);
    assert_eq!(taken.jailed.slot, 0);
    // Four slots, one of them taken.
    let waiting = ready(&jailer, 3);
    // It is not dumpable, has its jailer's descriptors no more, and is where its program will be.
    let kept = std::fs::read_dir(format!("/proc/{}/fd", waiting[0])).unwrap().count();
    assert_eq!(kept, 1 + jailer.cgroup_parents().len(), "where it is told, and the lock of each parent");
    for pid in &waiting {
        rustix::process::kill_process(rustix::process::Pid::from_raw(*pid).unwrap(), Signal::KILL).unwrap();
    }
    common::until("they are dead", || {
        let left = jailer.ready_slots();
        if left.iter().any(|pid| waiting.contains(pid)) { Err(left) } else { Ok(()) }
    });
    // All slots can be had, with those that were killed; and no more.
    let others: Vec<_> = ["b", "c", "d"].into_iter().map(|name| client.spawn(name)).collect();
    let refused = client.try_spawn("e", LIMITS).err();
    assert!(matches!(refused, Some(Reply::Failed { retryable: true, .. })), "{refused:?}");
    assert_eq!(jailer.ready_slots(), [0; 0]);
    client.kill("b");
    ready(&jailer, 1);
    drop((others, taken));
    for signal in [Signal::KILL, Signal::HUP, Signal::TERM] {
        let before = jailer.ready_slots();
        jailer.stop(signal);
        common::until("who waited has gone", || {
            let there = |pid: &&i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
            let left: Vec<_> = before.iter().filter(there).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        jailer = jailer.restart_after_crash(&["--ready-slots", "1", "--slots", "4"]);
        assert!(ready(&jailer, 1).iter().all(|pid| !before.contains(pid)));
    }
    for jailed in jailer.connect().list() {
        jailer.connect().kill(jailed.name.as_str());
    }
    jailer.assert_clean();
}

#[test]
fn an_adopted_jail_that_ends_by_itself_is_cleared_away() {
    let jailer = Jailer::start(&[]);
    let orphan = jailer.connect().spawn("orphan");
    let jailer = jailer.restart_after_crash(&[]);
    let mut client = jailer.connect();
    orphan.tell("exit");
    orphan.wait_for_end();
    assert_eq!(client.kill("orphan"), None);
    jailer.assert_clean();
}

#[test]
fn sigterm_ends_everything_and_sighup_leaves_it() {
    let mut jailer = Jailer::start(&[]);
    let running = jailer.connect().spawn("a");
    assert!(jailer.stop(Signal::HUP).success());
    assert!(!jailer.socket().exists());
    assert_eq!(running.tell("kvm"), "12");
    let mut jailer = jailer.restart_after_crash(&[]);
    assert!(jailer.ready.contains("adopted=1"));
    let parents = jailer.cgroup_parents();
    assert!(jailer.stop(Signal::TERM).success());
    running.wait_for_end();
    assert!(!jailer.socket().exists());
    assert!(parents.iter().all(|parent| !parent.exists()), "the parents go with the last jail");
    assert!(jailer.jailed_processes().is_empty());
}

#[test]
fn one_jailer_a_state_directory() {
    let jailer = Jailer::start(&[]);
    let second = std::process::Command::new(&common::programs().jailer)
        .args(["serve", "--agent-uid", "0"])
        .arg("--socket")
        .arg(jailer.folder.path().join("second.sock"))
        .arg("--state")
        .arg(jailer.folder.path().join("state"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another jailer works in"), "{second:?}");
}

/// A host without the program: that kind of spawn is refused, clearly and for good; the other kind works.
#[test]
fn a_missing_program_refuses_only_its_own_spawns() {
    let jailer = Jailer::start(&["--vmm", "/nowhere/warren-vmm"]);
    let mut client = jailer.connect();
    match client.try_spawn("a", LIMITS).err() {
        Some(Reply::Failed { message, retryable: false, .. }) => {
            assert!(message.contains("/nowhere/warren-vmm"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let spawn = Spawn { name: named("c"), program: compile(CompilePurpose::Function, 0), limits: LIMITS };
    let (module, output) = (memory(b"", true), memory(b"", false));
    let (reply, _) = client.ask(&Request::Spawn(spawn), &[module.as_fd(), output.as_fd(), write.as_fd()]);
    assert!(matches!(reply, Reply::Spawned(_)), "{reply:?}");
    client.kill("c");
    jailer.assert_clean();
}

/// A pipe is there as long as its writer: who comes later reads what is written from then on, also by way of another jailer.
#[test]
fn the_log_of_a_living_jail_can_be_had_again() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let mut running = client.spawn("a");
    running.report();
    let log = |client: &mut Client, name: &str| {
        let (reply, mut fds) = client.ask(&Request::Log { name: named(name) }, &[]);
        (reply, fds.pop())
    };
    assert!(matches!(log(&mut client, "nobody"), (Reply::Failed { .. }, None)));
    drop(running.log);
    let jailer = jailer.restart_after_crash(&[]);
    let mut client = jailer.connect();
    let (Reply::Log, Some(read)) = log(&mut client, "a") else { panic!("no log") };
    assert_eq!(rustix::io::read(&read, &mut [0; 8]), Err(rustix::io::Errno::AGAIN), "its writer lives");
    client.kill("a");
    assert_eq!(rustix::io::read(&read, &mut [0; 8]), Ok(0), "its writer is gone");
    assert!(matches!(log(&mut client, "a"), (Reply::Failed { .. }, None)));
    jailer.assert_clean();
}
