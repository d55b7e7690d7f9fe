//! Machines that were made ready for a guest's devices and wait: what they take, and what they refuse by name. What a guest does in
//! one, other modules' cases show, whose guests are [adopted](super::support::linux::Guest::adopt).

use super::support;
use super::support::Vmm;
use super::support::linux::{Ended, Guest, Running, guests};
use super::support::vmm::{memfd, receive, send, send_with, status};
use super::{LOAD_FAILED, Life, POWERED_OFF, SHUTDOWN, Shape, everything, linux_spec};
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::linux::{BootEntry, DeviceSpec, Limits};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, VmState};

/// One for a guest of 64 MiB with these devices.
fn waiting(devices: &str) -> (Vmm, UnixStream) {
    let vmm = Vmm::launch("linux", &["--memory-mib", "64", "--devices", devices], None);
    let mut control = vmm.control();
    assert_eq!(status(&mut control).state, VmState::Empty);
    (vmm, control)
}

/// What is otherwise in a guest.
type Change = fn(&mut Guest);

fn refused(reply: Option<ControlReply>, words: &str) {
    match reply {
        Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) => {
            assert!(why.contains(words), "{why:?} lacks {words:?}");
        }
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn one_has_the_threads_of_its_devices_and_ends_when_it_is_told() {
    needs_kvm!();
    let (vmm, mut control) = waiting("block,rng,vsock,net,balloon,block");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", vmm.pid())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    let disks = names.filter(|name| name.starts_with("disk")).count();
    assert_eq!(disks, 2, "a thread a disk");
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(SHUTDOWN, "end: shutdown");
}

#[test]
fn what_no_machine_can_be_made_for_is_said() {
    needs_kvm!();
    for (devices, words) in [
        ("disk", "\"disk\" is no kind of device"),
        ("", "\"\" is no kind of device"),
        (["rng"; 49].join(",").as_str(), "49 devices: there is room for 48"),
    ] {
        let flags = ["--memory-mib", "64", "--devices", devices];
        let (status, log) = Vmm::launch("linux", &flags, None).wait();
        assert!(status == 2 && log.contains(words), "{devices}: status {status}: {log}");
    }
}

/// Also where it boots: what is refused is said before anything of the guest is looked at.
#[test]
fn guests_of_other_devices_are_refused_by_name() {
    needs_kvm!();
    let disk = DeviceSpec::Block { read_only: true };
    let net =
        DeviceSpec::Net { mac: [2, 0, 0, 0, 0, 7], receive: Limits::default(), send: Limits::default() };
    for (devices, has) in [
        (vec![], "none"),
        (vec![disk], "block"),
        (vec![DeviceSpec::Rng, disk], "rng,block"),
        (vec![disk, net], "block,net"),
        (vec![disk, DeviceSpec::Rng, DeviceSpec::Vsock { guest_cid: 3 }], "block,rng,vsock"),
    ] {
        let (vmm, mut control) = waiting("block,rng");
        let mut spec = linux_spec();
        spec.devices = devices;
        send_with(&mut control, &ControlRequest::LoadLinux(spec), &[&memfd(b"no kernel")]);
        let words = format!("this machine was made for devices block,rng; the guest has {has}");
        refused(support::vmm::try_receive(&mut control), &words);
        vmm.ends(LOAD_FAILED, "end: load-failed");
    }
    // These are the ones: it goes on to look at the kernel.
    let (_vmm, mut control) = waiting("block,rng");
    let mut spec = linux_spec();
    spec.devices = vec![disk, DeviceSpec::Rng];
    send_with(&mut control, &ControlRequest::LoadLinux(spec), &[&memfd(b"no kernel"), &memfd(&[0; 512])]);
    refused(support::vmm::try_receive(&mut control), "neither a bzImage nor an ELF kernel");
}

#[test]
fn a_6_12_guest_on_four_vcpus_does_everything_in_one() {
    let (elf, life) = (Some(BootEntry::Pvh), Life::Adopted);
    everything(Shape { kernel: "6.12", elf, cpus: 4, memory_mib: 128, late: false, life });
}

/// Machines that were made for another guest than the one that comes, and one that has its guest already.
#[test]
fn a_guest_of_another_shape_is_refused_and_one_that_fits_goes_on() {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let script = "kept='kept in a shell'; echo before; b sleep 0.5; echo $kept; echo cpus $(b nproc)";
    let mut guest = Guest::new(&folder, "6.1", script);
    guest.cid = Some(42);
    guest.shape(None, 2, 128);
    let mut running = guest.start();
    assert!(running.vmm.until("console: before"));
    let snapshot = running.snapshot();
    let before = running.kill().log;
    let shapes: [(Change, &str); 5] = [
        (
            |guest| guest.memory_mib = 192,
            "a snapshot of a machine of 128 MiB and 2 vCPUs, this one has 192 MiB",
        ),
        (|guest| guest.cpus = 1, "this one has 128 MiB and 1 vCPUs"),
        (|guest| guest.cid = None, "made for devices block,block,rng; the guest has block,block,rng,vsock"),
        (|guest| guest.entropy = false, "made for devices block,block,vsock;"),
        (|guest| drop(guest.disks.pop()), "made for devices block,rng,vsock;"),
    ];
    for (change, words) in shapes {
        let mut other = Guest::new(&folder, "6.1", script);
        other.cid = Some(42);
        other.shape(None, 2, 128);
        change(&mut other);
        let (vmm, mut control) = other.zygote();
        refused(guest.ask_restore(&mut control, &snapshot, &snapshot.state), words);
        vmm.ends(LOAD_FAILED, "end: load-failed");
    }
    let Running { vmm, mut control, .. } = guest.adopt(&snapshot);
    refused(guest.ask_restore(&mut control, &snapshot, &snapshot.state), "a guest is loaded already");
    let (status, log) = vmm.wait();
    let lines = ["console: kept in a shell", "console: cpus 2", "end: powered-off"];
    Ended { status, log: before + &log }.with(POWERED_OFF, &lines);
}
