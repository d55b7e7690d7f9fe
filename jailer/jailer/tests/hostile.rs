//! A hostile peer on the jailer's socket: every packet gets an error or a closed connection, nothing is started, no
//! descriptor stays, and the next good peer is served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

mod common;

use common::{Client, Jailer, LIMITS, PAGER, compile, memory, named, open_folder, own_mounts, packet_pair};
use proptest::{prelude::*, test_runner::TestRunner};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::{
    fd::{AsFd, BorrowedFd},
    unix::fs::MetadataExt,
};
use warren_sandbox_plan::{
    packet::encode,
    request::{
        CompilePurpose, JAILER_PROTOCOL_VERSION, Limits, MAX_PACKET, MAX_PAGER_TASKS, MAX_TASKS, PAGER_NAME,
        Program, Reply, Request, Spawn,
    },
};

fn spawn(program: Program, limits: Limits) -> Request {
    Request::Spawn(Spawn { name: named("h"), program, limits })
}

/// Sends one packet on a fresh, greeted connection and says what came back.
fn provoke(jailer: &Jailer, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Option<Reply> {
    let mut client = jailer.connect();
    client.send_raw(packet, fds).unwrap();
    client.receive().map(|(reply, _)| reply)
}

#[test]
fn table_of_bad_packets() {
    let jailer = Jailer::start(&[]);
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = null.as_fd();
    let hello = encode(&Request::Hello { version: JAILER_PROTOCOL_VERSION }).unwrap();
    let list = encode(&Request::List).unwrap();
    let vmm = encode(&spawn(Program::Vmm, LIMITS)).unwrap();
    let build = encode(&spawn(compile(CompilePurpose::Function, 0), LIMITS)).unwrap();
    let longest = vec![0xff; MAX_PACKET];
    let longer = vec![0; MAX_PACKET + 1];
    let trailing = [list.as_slice(), &[0]].concat();
    let mut client = jailer.connect();
    let files = jailer.open_files(&mut client);
    let cases: Vec<(&str, &[u8], Vec<BorrowedFd<'_>>)> = vec![
        ("garbage", &[0xff; 40], vec![]),
        ("longest", &longest, vec![]),
        ("longer than longest", &longer, vec![]),
        ("empty", &[], vec![]),
        ("trailing bytes", &trailing, vec![]),
        ("truncated", &vmm[..vmm.len() - 1], vec![fd, fd]),
        ("hello again", &hello, vec![]),
        ("list with a descriptor", &list, vec![fd]),
        ("vmm with one descriptor", &vmm, vec![fd]),
        ("vmm with three descriptors", &vmm, vec![fd; 3]),
        ("compile with two descriptors", &build, vec![fd; 2]),
        ("spawn with none", &vmm, vec![]),
        ("nine descriptors", &vmm, vec![fd; 9]),
        ("sixty-four descriptors", &vmm, vec![fd; 64]),
    ];
    for (case, packet, fds) in cases {
        let reply = provoke(&jailer, packet, &fds);
        assert!(matches!(reply, None | Some(Reply::Failed { retryable: false, .. })), "{case}: {reply:?}");
    }
    assert_eq!(client.list(), []);
    assert_eq!(jailer.open_files(&mut client), files, "descriptors that came along are closed again");
    jailer.assert_clean();
}

#[test]
fn nothing_before_hello_and_no_other_version() {
    let jailer = Jailer::start(&[]);
    for request in [Request::List, Request::Kill { name: named("a") }, Request::Hello { version: 99 }] {
        let mut client = Client::connect(&jailer.socket());
        assert!(matches!(client.ask(&request, &[]).0, Reply::Failed { .. }));
        assert!(client.receive().is_none(), "and the connection is closed");
    }
}

#[test]
fn another_user_is_not_served() {
    let jailer = Jailer::start(&["--agent-uid", "64001"]);
    let mut client = Client::connect(&jailer.socket());
    // The jailer may have closed it before or after this is sent.
    let hello = encode(&Request::Hello { version: JAILER_PROTOCOL_VERSION }).unwrap();
    let _ = client.send_raw(&hello, &[]);
    assert!(client.receive().is_none());
    let meta = std::fs::metadata(jailer.socket()).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (64001, 0o600));
}

#[test]
fn descriptors_of_the_wrong_kind_are_refused() {
    let jailer = Jailer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempfile()).unwrap();
    let (_read, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (sealed, open) = (memory(b"m", true), memory(b"m", false));
    let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let vmm = encode(&spawn(Program::Vmm, LIMITS)).unwrap();
    let build = encode(&spawn(compile(CompilePurpose::Function, 0), LIMITS)).unwrap();
    let (packets, _agent) = packet_pair();
    let folder_fd = open_folder(folder.path());
    let named_pager = Spawn { name: named(PAGER_NAME), program: PAGER, limits: LIMITS };
    let pager = encode(&Request::Spawn(named_pager)).unwrap();
    let (mounts, network) = (own_mounts(), std::fs::File::open("/proc/self/ns/net").unwrap());
    let (socket, log, dir, mnt) = (packets.as_fd(), pipe.as_fd(), folder_fd.as_fd(), mounts.as_fd());
    let cases: [(&str, &[u8], &[BorrowedFd<'_>]); 16] = [
        ("a file as a mount namespace", &pager, &[socket, log, dir, dir, dir, file.as_fd()]),
        ("another namespace", &pager, &[socket, log, dir, dir, dir, network.as_fd()]),
        ("a stream socket as the pager's", &pager, &[listener.as_fd(), log, dir, dir, dir, mnt]),
        ("a file as the pager's socket", &pager, &[file.as_fd(), log, dir, dir, dir, mnt]),
        ("a file as a folder", &pager, &[socket, log, dir, file.as_fd(), dir, mnt]),
        ("a memfd as a folder", &pager, &[socket, log, dir, dir, open.as_fd(), mnt]),
        ("a folder that was not opened as one", &pager, &[socket, log, directory.as_fd(), dir, dir, mnt]),
        ("a directory as control socket", &vmm, &[directory.as_fd(), pipe.as_fd()]),
        ("a TCP listener", &vmm, &[tcp.as_fd(), pipe.as_fd()]),
        ("a socket that does not listen", &vmm, &[pair.as_fd(), pipe.as_fd()]),
        ("a directory as log", &vmm, &[listener.as_fd(), directory.as_fd()]),
        ("a file as log", &vmm, &[listener.as_fd(), file.as_fd()]),
        ("an unsealed module", &build, &[open.as_fd(), open.as_fd(), pipe.as_fd()]),
        ("a file as module", &build, &[file.as_fd(), open.as_fd(), pipe.as_fd()]),
        ("a directory as output", &build, &[sealed.as_fd(), directory.as_fd(), pipe.as_fd()]),
        ("a pipe as output", &build, &[sealed.as_fd(), pipe.as_fd(), pipe.as_fd()]),
    ];
    for (case, packet, fds) in cases {
        let reply = provoke(&jailer, packet, fds);
        assert!(matches!(reply, Some(Reply::Failed { retryable: false, .. })), "{case}: {reply:?}");
    }
    jailer.assert_clean();
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    for (case, limits) in [
        ("no memory", Limits { memory_bytes: 0, ..LIMITS }),
        ("no cpu", Limits { cpu_millis: 0, ..LIMITS }),
        ("no tasks", Limits { pids: 0, ..LIMITS }),
        ("all memory there can be", Limits { memory_bytes: u64::MAX, ..LIMITS }),
        ("all tasks there can be", Limits { pids: u32::MAX, ..LIMITS }),
        ("a task more than any jail gets", Limits { pids: MAX_TASKS + 1, ..LIMITS }),
    ] {
        let reply = client.try_spawn("l", limits).err();
        assert!(matches!(reply, Some(Reply::Failed { .. })), "{case}: {reply:?}");
        jailer.assert_clean();
    }
}

/// So there is one at a time, also after a jailer was killed: a name says which program it is.
#[test]
fn the_pagers_name_and_the_pager_belong_together() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let reply = client.try_spawn(PAGER_NAME, LIMITS).err();
    assert!(matches!(&reply, Some(Reply::Failed { message, .. }) if message.contains("pager")), "{reply:?}");
    let (packets, _agent) = packet_pair();
    let (_read, log) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let dir = open_folder(jailer.folder.path());
    let mounts = own_mounts();
    let fds = [packets.as_fd(), log.as_fd(), dir.as_fd(), dir.as_fd(), dir.as_fd(), mounts.as_fd()];
    let reply = client.ask(&spawn(PAGER, LIMITS), &fds).0;
    assert!(matches!(&reply, Reply::Failed { message, .. } if message.contains("pager")), "{reply:?}");
    let name = named(PAGER_NAME);
    let limits = Limits { pids: MAX_PAGER_TASKS + 1, ..LIMITS };
    let reply = client.ask(&Request::Spawn(Spawn { name, program: PAGER, limits }), &fds).0;
    assert!(matches!(&reply, Reply::Failed { message, .. } if message.contains("pids")), "{reply:?}");
    jailer.assert_clean();
}

/// Random packets with random numbers of descriptors against one jailer, which must outlive them all.
#[test]
fn random_packets() {
    let jailer = Jailer::start(&[]);
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut client = jailer.connect();
    let files = jailer.open_files(&mut client);
    let packets = (prop::collection::vec(any::<u8>(), 0..100), 0_usize..12, any::<bool>());
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&packets, |(packet, fds, greeted)| {
        let mut client = if greeted { jailer.connect() } else { Client::connect(&jailer.socket()) };
        client.send_raw(&packet, &vec![null.as_fd(); fds]).unwrap();
        let _ = client.receive();
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(client.list(), []);
    assert_eq!(jailer.open_files(&mut client), files);
    jailer.assert_clean();
}

/// A peer that asks and never reads is dropped; the others are served.
#[test]
fn a_peer_that_never_reads_blocks_nobody() {
    let jailer = Jailer::start(&[]);
    let mute = jailer.connect();
    let list = encode(&Request::List).unwrap();
    while mute.send_raw(&list, &[]).is_ok() {}
    let mut client = jailer.connect();
    client.spawn("a");
    client.kill("a");
    jailer.assert_clean();
}

/// A peer that hangs up while its Kill is under way: the Kill is done all the same.
#[test]
fn hanging_up_during_a_kill() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let running = client.spawn("a");
    client.send_raw(&encode(&Request::Kill { name: named("a") }).unwrap(), &[]).unwrap();
    drop(client);
    running.wait_for_end();
    let mut client = jailer.connect();
    client.kill("a");
    jailer.assert_clean();
}

/// What the host's owner gave away is all there is: for one jail, for all together, and in number.
#[test]
fn nobody_gets_more_than_was_given() {
    let jailer = Jailer::start(&["--max-memory-mib", "200", "--slots", "3"]);
    let mut client = jailer.connect();
    let memory = |mib: u64| Limits { memory_bytes: mib << 20, ..LIMITS };
    let refused = client.try_spawn("large", memory(201)).err();
    let Some(Reply::Failed { step, message, retryable: false }) = refused else { panic!("{refused:?}") };
    assert!(step == "request" && message.contains("more than this jailer gives"), "{message}");
    let jails: Vec<_> = (0..3).map(|n| client.try_spawn(&format!("j{n}"), memory(200)).unwrap()).collect();
    let reply = client.try_spawn("fourth", LIMITS).err();
    assert!(matches!(reply, Some(Reply::Failed { retryable: true, .. })), "{reply:?}");
    // Each may have all of it, all together not more.
    let limit = |parent: &std::path::PathBuf| {
        let files = ["memory.max", "memory.limit_in_bytes"].map(|file| parent.join(file));
        files.iter().find_map(|file| std::fs::read_to_string(file).ok())
    };
    let limits: Vec<_> = jailer.cgroup_parents().iter().filter_map(limit).collect();
    assert_eq!(limits, [format!("{}\n", 200 << 20)]);
    drop(jails);
    for n in 0..3 {
        client.kill(&format!("j{n}"));
    }
    jailer.assert_clean();
}

/// Other limits for a jailer that takes over: raised and lowered, with jails in them.
#[test]
fn a_successor_may_give_more_or_less() {
    let mut jailer = Jailer::start(&["--max-memory-mib", "200"]);
    let _running = jailer.connect().spawn("a");
    for mib in ["300", "100"] {
        jailer = jailer.restart_after_crash(&["--max-memory-mib", mib]);
        assert!(jailer.ready.contains("adopted=1"), "{}", jailer.ready);
    }
    jailer.connect().kill("a");
    jailer.assert_clean();
}

#[test]
fn uids_that_are_somebody_elses_are_refused() {
    for (case, arguments) in [
        ("root's", ["--uid-base", "0", "--slots", "10"]),
        ("more than there are", ["--uid-base", "4294967000", "--slots", "295"]),
        ("none", ["--uid-base", "5000", "--slots", "0"]),
        ("the agent's", ["--uid-base", "63000", "--slots", "1002"]),
    ] {
        let said = Jailer::refusal(&[&["--agent-uid", "64001"], &arguments[..]].concat());
        assert!(said.contains("uid"), "{case}: {said}");
    }
}

/// In a folder where another user may write, a name can become another file between two steps of root's.
#[test]
fn folders_of_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (name, owner, mode) in [("others", 64001, 0o755), ("open", 0, 0o777), ("group", 0, 0o775)] {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        std::os::unix::fs::chown(&place, Some(owner), None).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
        for flag in ["--state", "--socket"] {
            let path = if flag == "--state" { place.clone() } else { place.join("s") };
            let said = Jailer::refusal(&[flag, path.to_str().unwrap()]);
            assert!(said.contains("folders of root's own"), "{name} {flag}: {said}");
        }
    }
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("others"), &link).unwrap();
    assert!(Jailer::refusal(&["--state", link.to_str().unwrap()]).contains("is no folder"));
}

/// One process at a time where that is asked for: a second agent would take the first one's jails for leftovers.
#[test]
fn one_agent_holds_the_jailer_until_it_is_gone() {
    let jailer = Jailer::start(&["--one-agent"]);
    let client = jailer.connect();
    let second = || {
        let path = jailer.socket();
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "second_agent", "--ignored", "--nocapture"])
            .env("WARREN_TEST_SOCKET", path)
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let said = second();
    assert!(said.contains(&format!("another agent (pid {})", std::process::id())), "{said}");
    let another = jailer.connect();
    drop(client);
    assert!(second().contains("another agent"), "the same process held it with two connections");
    drop(another);
    assert!(second().contains("greeted"));
    drop(jailer.connect());
}

/// The other process of the test above.
#[test]
#[ignore = "run by one_agent_holds_the_jailer_until_it_is_gone"]
fn second_agent() {
    let Some(path) = std::env::var_os("WARREN_TEST_SOCKET") else { return };
    let mut client = Client::connect(path.as_ref());
    match client.ask(&Request::Hello { version: JAILER_PROTOCOL_VERSION }, &[]).0 {
        Reply::Hello { .. } => println!("greeted"),
        other => println!("{other:?}"),
    }
}
