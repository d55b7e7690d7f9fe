//! Real VMMs with real guests, their memory brought by a real pager.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
#[path = "../../../../vmm/monitor/tests/support/mod.rs"]
mod support;
/// Leaves a test on a machine that lacks what it needs, and says so.
macro_rules! needs {
    () => {
        needs_kvm!();
        if !std::path::Path::new("/dev/userfaultfd").exists() {
            println!("warren-skipped: pager: no /dev/userfaultfd");
            return;
        }
    };
}

mod harness;
mod hostile;
mod keeper;
mod kept;
mod upstream;

use harness::{Harness, pair, restore};
use keeper::{BYTES, check, expected, taken};
use rustix::fd::OwnedFd;
use std::fs;
use support::real::image;
use support::vmm::{call, request, send};
use support::{Vmm, life::Snapshot};
use warren_pager::{Bring, Manner};
use warren_vmm_protocol::{ControlReply, LoadError};

const ALL: Manner = Manner { loading: true, bring: Bring::Chunk, fill: true };

/// The whole file, in four parts.
fn check_all(vmm: &Vmm) {
    let mut invoke = vmm.invoke();
    for part in 0..4 {
        check(&mut invoke, part * (BYTES / 4), BYTES / 4);
    }
}

#[test]
fn the_same_answers_as_from_a_file() {
    needs!();
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let from_file = Vmm::spawn_with(image(), &["--restore"]);
    let reply = snapshot.restore(&mut from_file.control(), &snapshot.state, &[&code]);
    assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
    check_all(&from_file);
    for manner in [Manner::RECORD, Manner::SERVE, ALL] {
        let (vmm, id) = harness.restored(name, manner, &snapshot, &code);
        check_all(&vmm);
        // What a guest writes to its pages is its own.
        let wrote = call(&mut vmm.invoke(), &[0; 8]);
        assert_eq!(wrote.done.outcome, warren_vmm_protocol::Outcome::Response);
        check_all(&vmm);
        let report = harness.report(id);
        assert!(report.figures.copied >= u64::from(BYTES / 4096), "{report:?}");
        assert_eq!(report.ended, None);
        drop(vmm);
        assert_eq!(harness.over(id), "the VMM hung up");
    }
}

#[test]
fn the_second_run_needs_the_loading_set_alone() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let run = |harness: &Harness, name, manner| {
        let (vmm, id) = harness.restored(name, manner, &snapshot, &code);
        let mut invoke = vmm.invoke();
        check(&mut invoke, 1 << 20, 5000);
        check(&mut invoke, 3 << 20, 5000);
        harness.report(id)
    };
    let first = run(&harness, name, Manner::RECORD);
    assert!(first.figures.packs == 0 && first.figures.windows > 0, "{first:?}");
    let touched: u64 = first.touched.iter().map(|run| u64::from(run.count)).sum();
    assert_eq!(first.figures.copied + first.figures.zeroed, touched, "exactly what is touched: {first:?}");
    let learned = harness.learned(name, &first);
    let manifest = harness.manifest(learned);
    assert_eq!(manifest.parts().entries, harness.manifest(name).parts().entries, "the image is the same");
    // The chunks of the image are gone: a read of any would end the VM.
    harness.again(&[]);
    let packs: Vec<_> = manifest.parts().loading.iter().map(|pack| pack.chunk.name).collect();
    for entry in manifest.names().into_iter().filter(|name| !packs.contains(name)) {
        fs::remove_file(harness.file_of(entry)).unwrap();
    }
    let second = run(&harness, learned, Manner::SERVE);
    assert_eq!((second.figures.windows, second.figures.failures), (0, 0), "{second:?}");
    assert_eq!(second.figures.packs, packs.len() as u64);
    assert!(second.figures.bytes < first.figures.bytes, "{second:?}");
}

#[test]
fn logs_are_merged_over_runs() {
    needs!();
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let mut name = harness.publish(&snapshot);
    let mut sizes = Vec::new();
    for offset in [1 << 20, 2 << 20, 1 << 20] {
        let (vmm, id) = harness.restored(name, Manner::RECORD, &snapshot, &code);
        check(&mut vmm.invoke(), offset, 100_000);
        name = harness.learned(name, &harness.report(id));
        let parts = harness.manifest(name).parts().clone();
        let packed: u32 = parts.loading.iter().flat_map(|pack| &pack.pages).map(|run| run.count).sum();
        sizes.push((parts.log.unwrap().resumes(), packed));
    }
    assert_eq!(sizes.iter().map(|size| size.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(sizes[0].1 + 20 < sizes[1].1, "another part of the file: {sizes:?}");
    assert!(sizes[2].1 < sizes[1].1 + 20, "nothing new: {sizes:?}");
}

/// A VM that waits for a page that never comes, because its pager is stopped.
fn stuck(harness: &Harness, snapshot: &Snapshot, code: &OwnedFd) -> Vmm {
    let name = harness.publish(snapshot);
    let (vmm, id) = harness.restored(name, Manner::RECORD, snapshot, code);
    let mut invoke = vmm.invoke();
    check(&mut invoke, 0, 100);
    let before = harness.report(id).figures.faults;
    assert!(before > 0);
    signal(harness, "STOP");
    send(&mut invoke, &request(8, 20_000));
    std::io::Write::write_all(&mut invoke, &[(2_u32 << 20).to_le_bytes(), 5000_u32.to_le_bytes()].concat())
        .unwrap();
    vmm
}

fn signal(harness: &Harness, name: &str) {
    let pid = harness.pager.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[test]
fn a_pager_that_is_killed_is_a_named_end() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let vmm = stuck(&harness, &snapshot, &code);
    harness.pager.kill().unwrap();
    vmm.ends(24, "end: pager: the pager is gone");
    // One that waits for nothing ends as well: the next page it touched would never come.
    harness.again(&[]);
    let (vmm, _) = harness.restored(harness.publish(&snapshot), Manner::SERVE, &snapshot, &code);
    check(&mut vmm.invoke(), 0, 100);
    harness.pager.kill().unwrap();
    vmm.ends(24, "end: pager: the pager is gone");
}

#[test]
fn killed_under_load_it_gives_no_wrong_answer() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    for round in 0..if std::env::var_os("WARREN_SOAK").is_some() { 50 } else { 5 } {
        let vms: Vec<_> = (0..4)
            .map(|_| harness.restored(name, Manner::RECORD, &snapshot, &code).0)
            .map(|vmm| {
                let invoke = vmm.invoke();
                (vmm, invoke)
            })
            .collect();
        let load: Vec<_> = vms
            .into_iter()
            .enumerate()
            .map(|(at, (vmm, mut invoke))| {
                std::thread::spawn(move || {
                    // Whatever is answered is right; then the connection ends, and the process by name.
                    for step in (0..).map(|step: u32| (step * 7 + u32::try_from(at).unwrap()) % 63 * 65_536) {
                        let event = [step.to_le_bytes(), 60_000_u32.to_le_bytes()].concat();
                        send_quietly(&mut invoke, &event);
                        match quiet_answer(&mut invoke) {
                            Some(payload) => assert!(payload == expected(step, 60_000), "a wrong answer"),
                            None => break,
                        }
                    }
                    vmm.ends(24, "end: pager: the pager is gone");
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(3 * (round % 7)));
        harness.pager.kill().unwrap();
        for thread in load {
            thread.join().unwrap();
        }
        harness.again(&[]);
    }
}

fn send_quietly(stream: &mut std::os::unix::net::UnixStream, event: &[u8]) {
    let message = warren_vmm_protocol::frame::encode(&request(event.len(), 20_000)).unwrap();
    let _ = std::io::Write::write_all(stream, &[&message, event].concat());
}

/// The answer's payload; `None` if the connection ended before it was whole.
fn quiet_answer(stream: &mut std::os::unix::net::UnixStream) -> Option<Vec<u8>> {
    use std::io::Read;
    use warren_vmm_protocol::{InvokeReply, Outcome, frame};
    loop {
        let mut prefix = [0; frame::PREFIX];
        stream.read_exact(&mut prefix).ok()?;
        let mut body = vec![0; frame::read_len(prefix).unwrap()];
        stream.read_exact(&mut body).ok()?;
        if let InvokeReply::Done(done) = frame::decode(&body).unwrap() {
            let mut payload = vec![0; done.payload_len as usize];
            stream.read_exact(&mut payload).ok()?;
            assert_eq!(done.outcome, Outcome::Response);
            return Some(payload);
        }
    }
}

#[test]
fn garbage_in_a_chunk_is_a_named_end() {
    needs!();
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let manifest = harness.manifest(name);
    // The guest's memory, and nothing else of the manifest, is spoiled: in every chunk one bit.
    for chunk in manifest.names() {
        let file = harness.file_of(chunk);
        let mut bytes = fs::read(&file).unwrap();
        bytes[1000] ^= 4;
        fs::write(&file, bytes).unwrap();
    }
    let (ours, theirs) = pair();
    let id = harness.serve(name, Manner::SERVE, &ours);
    drop(ours);
    let vmm = Vmm::spawn_with(image(), &["--restore", "--paged"]);
    // It is loaded, as far as anybody can tell before a page is touched.
    let reply = restore(&mut vmm.control(), &snapshot, &[&theirs, &code]);
    assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
    drop(theirs);
    let mut invoke = vmm.invoke();
    send_quietly(&mut invoke, &[0, 0, 0, 0, 100, 0, 0, 0]);
    assert_eq!(quiet_answer(&mut invoke), None);
    vmm.ends(24, "cannot be had");
    assert!(harness.over(id).starts_with("chunk "));
}

/// Whether this kernel has Landlock.
#[allow(unsafe_code, reason = "one call that no crate here has a door for")]
fn has_landlock() -> bool {
    // SAFETY: 1. with flag 1 it only tells its version, and takes no memory.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, 1_u32) > 0 }
}

#[test]
fn the_pager_reaches_its_own_folders_alone() {
    needs!();
    if !has_landlock() {
        println!("warren-skipped: pager: no Landlock");
        return;
    }
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let outside = tempfile::tempdir().unwrap();
    for chunk in harness.manifest(name).names() {
        let file = harness.file_of(chunk);
        let elsewhere = outside.path().join(chunk.to_string());
        fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert!(fs::read(&file).is_ok(), "others can read it there");
    }
    let (vmm, id) = harness.restored(name, Manner::SERVE, &snapshot, &code);
    send_quietly(&mut vmm.invoke(), &[0, 0, 0, 0, 100, 0, 0, 0]);
    assert!(harness.over(id).contains("cannot be had"));
    vmm.ends(24, "cannot be had");
    let status = fs::read_to_string(format!("/proc/{}/status", harness.pager.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn a_loading_set_that_cannot_be_had_costs_time_alone() {
    needs!();
    let (mut harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let (vmm, id) = harness.restored(name, Manner::RECORD, &snapshot, &code);
    check(&mut vmm.invoke(), 0, 300_000);
    let learned = harness.learned(name, &harness.report(id));
    harness.again(&[]);
    for pack in &harness.manifest(learned).parts().loading {
        let file = harness.file_of(pack.chunk.name);
        let len = fs::read(&file).unwrap().len();
        fs::write(&file, vec![0; len]).unwrap();
    }
    let (vmm, id) = harness.restored(learned, Manner::SERVE, &snapshot, &code);
    check_all(&vmm);
    let report = harness.report(id);
    assert!(report.figures.failures > 0 && report.figures.packs == 0, "{report:?}");
}

#[test]
fn what_cannot_be_served_is_a_named_end() {
    needs!();
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let ends = |name: warren_chunks::Name, words: &str| {
        let (ours, theirs) = pair();
        let id = harness.serve(name, Manner::SERVE, &ours);
        drop(ours);
        let vmm = Vmm::spawn_with(image(), &["--restore", "--paged"]);
        let _ = restore(&mut vmm.control(), &snapshot, &[&theirs, &code]);
        drop(theirs);
        assert!(harness.over(id).contains(words));
        let (status, log) = vmm.wait();
        // By the pager's last word, or because it had gone before the VMM said anything.
        assert!(
            (status == 24 && log.contains(words)) || (status == 22 && log.contains("the pager is gone")),
            "{log}"
        );
    };
    ends(warren_chunks::Name([7; 32]), "the image cannot be had");
    // A manifest is no chunk, and a chunk no manifest.
    let name = harness.publish(&snapshot);
    ends(harness.manifest(name).names()[0], "the image cannot be had");
}

#[test]
fn the_wrong_descriptors() {
    needs!();
    let (snapshot, code) = taken();
    let refused = |flags: &[&str], first: &OwnedFd, words: &str| {
        let vmm = Vmm::spawn_with(image(), flags);
        match restore(&mut vmm.control(), &snapshot, &[first, &code]) {
            Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) => {
                assert!(why.contains(words), "{why}");
            }
            other => panic!("{other:?}"),
        }
        vmm.ends(22, "end: load-failed");
    };
    let (ours, theirs) = pair();
    refused(&["--restore"], &theirs, "without a userfaultfd");
    refused(&["--restore", "--paged"], &snapshot.memory, "cannot reach the pager");
    drop(ours);
    // One that went is nobody's fault who asked, and is named so.
    let vmm = Vmm::spawn_with(image(), &["--restore", "--paged"]);
    let reply = restore(&mut vmm.control(), &snapshot, &[&theirs, &code]);
    assert!(
        matches!(&reply, Some(ControlReply::LoadFailed { reason: LoadError::Pager(_), .. })),
        "{reply:?}"
    );
    vmm.ends(22, "the pager is gone");
    let vmm = Vmm::spawn_with(image(), &["--restore", "--paged"]);
    let reply = snapshot.restore(&mut vmm.control(), &snapshot.state, &[&code]);
    assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "a file does as well: {reply:?}");
    check_all(&vmm);
}
