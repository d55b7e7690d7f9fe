//! Real VMMs whose chunks are out of their pager's reach: the test is the agent that brings them, or does not.

use crate::{
    check_all,
    harness::Harness,
    keeper::{BYTES, check, taken},
    quiet_answer, send_quietly,
};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs,
    path::{Path, PathBuf},
    thread::JoinHandle,
};
use warren_chunks::{Name, store::Whence};
use warren_pager::{
    Manner, packet,
    protocol::{Reply, Request},
    upstream::messages::{Answer, Outcome, PACKET_MAX, Wanted, decode, encode},
};

fn next(socket: &OwnedFd) -> Option<Wanted> {
    packet::receive(socket, PACKET_MAX).unwrap().map(|packet| decode(&packet.bytes).unwrap())
}

fn object(far: &Path, wanted: &Wanted) -> Vec<u8> {
    let name = Name(wanted.name);
    fs::read(far.join(name.shard()).join(name.to_string())).unwrap()
}

fn bring(socket: &OwnedFd, wanted: &Wanted, bytes: &[u8]) {
    let file = memfd_create("chunk", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&file, bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).unwrap();
    let answer = Answer { ask: wanted.ask, outcome: Outcome::Fetched { from: Whence::Peers } };
    packet::send(socket, &encode(&answer).unwrap(), &[file.as_fd()]).unwrap();
}

/// Brings everything that is asked for, until the pager is gone: how much that was.
fn agent(socket: OwnedFd, far: PathBuf) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut brought = 0;
        while let Ok(Some(packet)) = packet::receive(&socket, PACKET_MAX) {
            let wanted = decode(&packet.bytes).unwrap();
            bring(&socket, &wanted, &object(&far, &wanted));
            brought += 1;
        }
        brought
    })
}

#[test]
fn what_is_out_of_reach_is_brought() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let far = harness.move_away();
    for manner in [Manner::RECORD, Manner::SERVE] {
        harness.again(&[]);
        let agent = agent(harness.attach(), far.clone());
        let (vmm, _) = harness.restored(name, manner, &snapshot, &code);
        check_all(&vmm);
        let Reply::Figures { figures, .. } = harness.ask(&Request::Figures, &[]) else { panic!("figures") };
        assert_eq!((figures.origin.hits, figures.origin.misses), (0, 0), "{figures:?}");
        drop(vmm);
        harness.again(&[]);
        assert_eq!(agent.join().unwrap(), figures.peers.hits, "each of them once: {figures:?}");
        assert!(figures.peers.bytes > u64::from(BYTES), "{figures:?}");
    }
}

/// An agent that goes while a VM waits for what it was to bring: the next one is asked, and the VM goes on.
#[test]
fn another_agent_brings_what_the_last_one_did_not() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let far = harness.move_away();
    harness.again(&[]);
    let first = harness.attach();
    let holding = {
        let far = far.clone();
        // It brings the manifest and a few chunks, and goes with a question unanswered.
        std::thread::spawn(move || {
            for _ in 0..4 {
                let wanted = next(&first).unwrap();
                bring(&first, &wanted, &object(&far, &wanted));
            }
            next(&first).unwrap()
        })
    };
    let (vmm, id) = harness.restored(name, Manner::SERVE, &snapshot, &code);
    let mut invoke = vmm.invoke();
    let reading = std::thread::spawn(move || {
        for part in 0..4 {
            check(&mut invoke, part * (BYTES / 4), BYTES / 4);
        }
    });
    let asked = holding.join().unwrap();
    let second = harness.attach();
    let wanted = next(&second).unwrap();
    assert_eq!((wanted.ask, wanted.name), (asked.ask, asked.name));
    bring(&second, &wanted, &object(&far, &wanted));
    let _agent = agent(second, far);
    reading.join().unwrap();
    assert_eq!(harness.report(id).ended, None);
}

/// What an agent does with a question; the socket that it keeps open.
type Fails = fn(OwnedFd, &Wanted, &Path) -> Option<OwnedFd>;

/// What becomes of a VM whose agent brings something else, nothing, or is no more: its end by name, and no wrong byte.
#[test]
fn an_agent_that_fails_is_a_named_end() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let far = harness.move_away();
    let cases: [(&str, Fails); 4] = [
        ("other bytes than were asked for", |socket, wanted, far| {
            let mut bytes = object(far, wanted);
            bytes[1000] ^= 1;
            bring(&socket, wanted, &bytes);
            Some(socket)
        }),
        ("no tier has the object", |socket, wanted, _| {
            let answer = Answer { ask: wanted.ask, outcome: Outcome::Absent };
            packet::send(&socket, &encode(&answer).unwrap(), &[]).unwrap();
            Some(socket)
        }),
        ("the agent that brings chunks is gone", |_, _, _| None),
        ("the agent that brings chunks is silent", |socket, _, _| Some(socket)),
    ];
    for (why, fails) in cases {
        harness.again(&["--patience-ms=400"]);
        let socket = harness.attach();
        let manifest = {
            let far = far.clone();
            std::thread::spawn(move || {
                let wanted = next(&socket).unwrap();
                bring(&socket, &wanted, &object(&far, &wanted));
                let wanted = next(&socket).unwrap();
                fails(socket, &wanted, &far)
            })
        };
        let (vmm, _) = harness.restored(name, Manner::RECORD, &snapshot, &code);
        let mut invoke = vmm.invoke();
        send_quietly(&mut invoke, &[[0; 4], 100_u32.to_le_bytes()].concat());
        let held = manifest.join().unwrap();
        assert_eq!(quiet_answer(&mut invoke), None);
        let (status, log) = vmm.wait();
        assert_eq!(status, 24, "{why}: {log}");
        assert!(log.contains("cannot be had") && log.contains(why), "{why}: {log}");
        drop(held);
    }
}
