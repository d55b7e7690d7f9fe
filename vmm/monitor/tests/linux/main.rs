//! Stock kernels in a real `warren-vmm linux`, on the lab host: boot, disks, entropy, every end; and what is refused,
//! on any host with a /dev/kvm.
//!
//! The guests run `warren-init` and a script from their second disk; each case is such a script and what the log says.
//! Long because what every module of cases shares stands here. `WARREN_SOAK=1` boots every combination; the quick form boots each dimension once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod again;
mod disks;
mod ends;
mod events;
mod filling;
#[allow(dead_code, reason = "shared with the pager's own tests, which use all of it")]
#[path = "../../../../host-agent/pager/tests/paged/harness.rs"]
mod harness;
mod many;
mod memory;
mod net;
mod paged;
mod restored;
mod vsock;
mod zygotes;

use support::linux::{Ended, Guest, contents, guests};
use support::vmm::{load, memfd, receive, send, send_with, status};
use support::{Vmm, sealed, spec};
use warren_vmm_protocol::linux::{Base, BootEntry, DeviceSpec, HOST_TEMPLATE, Limits, LinuxSpec};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, VmState};

const SHUTDOWN: i32 = 0;
const POWERED_OFF: i32 = 10;
const RESET: i32 = 11;
const GUEST: i32 = 21;
const LOAD_FAILED: i32 = 22;
const HOST: i32 = 23;
const MIB: usize = 1 << 20;

/// Runs a script in a guest with `kernel`, changed by `change`; nothing where there are no guests.
fn run(kernel: &str, script: &str, change: impl FnOnce(&mut Guest)) -> Option<Ended> {
    if !support::has_kvm() {
        return None;
    }
    let mut guest = Guest::new(&guests()?, kernel, script);
    change(&mut guest);
    Some(guest.run())
}

/// The full form was asked for.
fn soak() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// A kernel as it is started, and the machine under it.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kernel: &'static str,
    /// As bzImage, or its ELF by one of its two entries.
    elf: Option<BootEntry>,
    cpus: u8,
    memory_mib: u64,
    /// Of sealed files into huge pages, which come when the guest first reaches for them.
    late: bool,
    /// Where its work ends that it began.
    life: Life,
}

/// The parameter of the cases about a machine's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Where it began.
    First,
    /// Written down and brought back in the middle of it.
    Second,
    /// The same, in a machine that was made ready and waited.
    Adopted,
    /// The same, its memory brought by a pager.
    Paged,
}

/// Copies a disk to another, writes a sector, discards some, reads entropy; all of it again after their drivers came back;
/// powers off: both disks are compared here.
fn everything(shape: Shape) {
    let pattern: Vec<u8> =
        (0..1_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let (source, target) = (memfd(&pattern), memfd(&vec![0x55; MIB]));
    let script = "
        echo kernel $(b uname -r) cpus $(b nproc)
        echo size $(b cat /sys/block/vdc/size) ro $(b cat /sys/block/vda/ro) $(b cat /sys/block/vdd/ro)
        work() {
            b dd if=/dev/vdc of=/dev/vdd bs=65536 conv=fsync 2>/dev/null && echo copied
            echo 'written by the guest' | b dd of=/dev/vdd bs=512 seek=7 conv=sync,fsync 2>/dev/null
            b blkdiscard -o 65536 -l 65536 /dev/vdd && echo discarded
            b dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null || echo read-only is read-only
            echo entropy $(b head -c 64 /dev/hwrng | b wc -c)
        }
        again() { cd /sys/bus/virtio/drivers/$1; echo $2 > unbind; echo $2 > bind; cd /; }
        work
        for disk in vdc vdd; do again virtio_blk $(b basename $(b readlink /sys/block/$disk/device)); done
        again virtio_rng $(b ls /sys/bus/virtio/drivers/virtio_rng | b grep virtio)
        work
        echo memory $(( $(b awk '/MemTotal/ { print $2 }' /proc/meminfo) / 1024 ))";
    let Some(ended) = run(shape.kernel, script, |guest| {
        guest.disks.push((source.try_clone().unwrap(), true));
        guest.disks.push((target.try_clone().unwrap(), false));
        guest.shape(shape.elf, shape.cpus, shape.memory_mib);
        guest.point = (shape.life != Life::First).then_some("console: discarded");
        match shape.life {
            Life::First | Life::Second => {}
            Life::Adopted => guest.bring = Guest::adopt,
            Life::Paged => guest.bring = paged::restore,
        }
        if shape.late {
            guest.sealed = true;
            guest.flags.push("--huge-pages");
        }
    }) else {
        return;
    };
    let version = format!("console: kernel {}.", shape.kernel);
    let cpus = format!(" cpus {}", shape.cpus);
    ended.with(
        POWERED_OFF,
        &[
            &version,
            &cpus,
            "console: size 2048 ro 1 0",
            "warren-init: /bin/sh ended with status 0",
            "end: powered-off",
        ],
    );
    // Before and after the drivers came back.
    for line in ["copied", "discarded", "read-only is read-only", "entropy 64"] {
        let times = ended.log.matches(&format!("console: {line}\n")).count();
        assert_eq!(times, 2, "{line}: {}", ended.log);
    }
    let memory = ended.number("console: memory ");
    assert!((shape.memory_mib * 3 / 5..shape.memory_mib).contains(&memory), "{memory} of {shape:?}");
    let mut expect = pattern;
    let mut line = b"written by the guest\n".to_vec();
    line.resize(512, 0);
    expect[7 * 512..8 * 512].copy_from_slice(&line);
    expect[65536..2 * 65536].fill(0);
    assert!(contents(&target) == expect, "the disk is not what the guest made of it");
}

#[test]
fn stock_6_1_bzimage_does_everything() {
    everything(Shape { kernel: "6.1", elf: None, cpus: 1, memory_mib: 128, late: false, life: Life::First });
}

#[test]
fn stock_6_12_elf_with_four_vcpus_and_6_gib_does_everything() {
    everything(Shape {
        kernel: "6.12",
        elf: Some(BootEntry::Pvh),
        cpus: 4,
        memory_mib: 6144,
        late: true,
        life: Life::First,
    });
}

#[test]
fn every_combination_does_everything() {
    every_combination(Life::First);
}

/// The same machines, written down and brought back: the small ones, for all of a large one's memory is looked at, which takes
/// longer than this suite's patience on the lab host.
#[test]
fn every_small_combination_does_everything_in_a_second_life() {
    every_combination(Life::Second);
    every_combination(Life::Paged);
}

/// The same in machines that were made ready for them and waited.
#[test]
fn every_small_combination_does_everything_in_a_zygote() {
    every_combination(Life::Adopted);
}

fn every_combination(life: Life) {
    if !soak() {
        return;
    }
    for kernel in ["6.1", "6.12"] {
        for elf in [None, Some(BootEntry::Long), Some(BootEntry::Pvh)] {
            for (cpus, memory_mib, late) in
                [(1, 128, true), (4, 128, false), (1, 6144, false), (4, 6144, true)]
            {
                let paged_late = life == Life::Paged && late;
                if life == Life::First || (memory_mib == 128 && !paged_late) {
                    everything(Shape { kernel, elf, cpus, memory_mib, late, life });
                }
            }
        }
    }
}

/// A guest under a template: what it sees on every vCPU. (Not AVX: the emulated processor does not tell KVM of XSETBV, and
/// a kernel that sees another size of state than it counts gives it up.)
fn processor(template: &str, lines: &[&str]) {
    let script = "
        echo flags $(b grep flags /proc/cpuinfo | b sort -u)
        echo hidden $(b grep flags /proc/cpuinfo | b grep -cwE 'vmx|svm|amx_tile|perfctr_core|pdcm')
        for what in 'cpu family' model 'model name' 'cpu cores' siblings; do
            echo $(b grep \"^$what[[:space:]]*:\" /proc/cpuinfo | b sort -u)
        done
        echo ids $(b awk '/^apicid/ { print $3 }' /proc/cpuinfo)
        echo virtual $(b cat /sys/devices/system/clocksource/clocksource0/current_clocksource)";
    let change = |guest: &mut Guest| {
        guest.cpu_template = template.into();
        guest.cpus = 2;
    };
    if let Some(ended) = run("6.1", script, change) {
        ended.with(POWERED_OFF, lines).with(
            POWERED_OFF,
            &[
                "console: hidden 0",
                "console: cpu cores : 2",
                "console: siblings : 2",
                "console: ids 0 1",
                "console: model name : AMD EPYC Processor",
                "console: virtual kvm-clock",
            ],
        );
    }
}

#[test]
fn a_guest_sees_the_hosts_processor_without_nested_virtualisation() {
    processor("host", &[" bmi1 ", " smap ", " hypervisor "]);
}

#[test]
fn a_guest_of_a_family_sees_its_first_member() {
    processor("amd-v3", &[" bmi1 ", " smap ", "console: cpu family : 23", "console: model : 1"]);
}

#[test]
fn a_guest_has_up_to_32_vcpus() {
    needs_kvm!();
    let (status, log) = Vmm::launch("linux", &["--memory-mib", "64", "--cpus", "33"], None).wait();
    assert!(status == 2 && log.contains("33 is not in 1..=32"), "status {status}: {log}");
    if !soak() {
        return;
    }
    for kernel in ["6.1", "6.12"] {
        let script = "
            echo cpus $(b nproc) of one package: $(b grep 'cpu cores' /proc/cpuinfo | b sort -u)
            for cpu in 1 16 31; do b taskset -c $cpu /bin/sh -c 'echo here'; done";
        if let Some(ended) = run(kernel, script, |guest| guest.shape(None, 32, 512)) {
            ended.with(POWERED_OFF, &["console: cpus 32 of one package: cpu cores : 32", "console: here"]);
        }
    }
}

#[test]
fn a_guest_without_devices_comes_to_its_end() {
    let change = |guest: &mut Guest| {
        guest.shape(Some(BootEntry::Long), 1, 128);
        guest.command_line = "console=ttyS0 quiet panic=-1".into();
        guest.disks.clear();
        guest.entropy = false;
    };
    if let Some(ended) = run("6.1", "", change) {
        ended.with(POWERED_OFF, &["console: warren-init: hello"]);
    }
}

/// A machine without a guest, and its control connection.
fn empty() -> (Vmm, std::os::unix::net::UnixStream) {
    let vmm = Vmm::launch("linux", &["--memory-mib", "64"], None);
    let control = vmm.control();
    (vmm, control)
}

fn linux_spec() -> LinuxSpec {
    LinuxSpec {
        memory_bytes: 64 << 20,
        command_line: "quiet".into(),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: false,
        entry: BootEntry::Long,
        devices: Vec::new(),
        label: "test-guest".into(),
    }
}

/// A load that must be refused, and a piece of what is said.
fn refused(change: impl FnOnce(&mut LinuxSpec), files: &[&[u8]], said: &str) {
    let (vmm, mut control) = empty();
    let mut spec = linux_spec();
    change(&mut spec);
    let files: Vec<_> = files.iter().map(|bytes| memfd(bytes)).collect();
    send_with(&mut control, &ControlRequest::LoadLinux(spec), &files.iter().collect::<Vec<_>>());
    match receive(&mut control) {
        ControlReply::LoadFailed { reason: LoadError::Refused(text), .. } => {
            assert!(text.contains(said), "{text:?} lacks {said:?}");
        }
        other => panic!("{other:?}"),
    }
    vmm.ends(LOAD_FAILED, "load failed");
}

#[test]
fn loads_that_cannot_be_are_refused_by_name() {
    needs_kvm!();
    refused(|_| {}, &[b"no kernel"], "neither a bzImage nor an ELF kernel");
    refused(|_| {}, &[b""], "neither a bzImage nor an ELF kernel");
    refused(|_| {}, &[b"\x7FELF"], "ends before the end of the ELF header");
    refused(|_| {}, &[], "0 descriptors came, 1 are needed");
    refused(|_| {}, &[b"a", b"b"], "2 descriptors came, 1 are needed");
    refused(|spec| spec.initrd = true, &[b"a"], "1 descriptors came, 2 are needed");
    refused(|spec| spec.memory_bytes += 4096, &[b"a"], "this machine has");
    let disk = DeviceSpec::Block { read_only: true };
    refused(|spec| spec.devices = vec![disk; 5], &[b"a"], "5 disks: this machine has threads for 4");
    refused(|spec| spec.label = "Bad".into(), &[b"a"], "label");
    refused(|spec| spec.command_line = "a".repeat(2048), &[b"a"], "2048 bytes");
    refused(|spec| spec.command_line = "a\nb".into(), &[b"a"], "not printable");
    refused(|spec| spec.cpu_template = "zen".into(), &[b"a"], "there are host, amd-zen");
    refused(|spec| spec.devices = vec![DeviceSpec::Rng; 49], &[b"a"], "49 devices: there is room for 48");
    for guest_cid in [0, 1, 2, u32::MAX] {
        let vsock = DeviceSpec::Vsock { guest_cid };
        refused(|spec| spec.devices = vec![vsock], &[b"a"], "is no guest's address");
    }
    let vsock = DeviceSpec::Vsock { guest_cid: 3 };
    refused(|spec| spec.devices = vec![vsock; 2], &[b"a"], "more than one vsock device");
    refused(
        |spec| spec.devices = vec![DeviceSpec::Balloon { reports_free: true }; 2],
        &[b"a"],
        "more than one balloon",
    );
    let memory = DeviceSpec::Memory { plugged_mib: 0 };
    refused(|spec| spec.devices = vec![memory], &[b"a"], "without room for memory that is plugged");
    refused(|spec| spec.devices = vec![memory; 2], &[b"a"], "more than one device of memory");
    let over = |base| DeviceSpec::OverlaidBlock { base, limits: Limits::default() };
    let paged = over(Base::Pager);
    refused(
        |spec| spec.devices = vec![paged],
        &[b"a"],
        "a disk that a pager brings, of a guest whose memory",
    );
    refused(|spec| spec.devices = vec![paged; 2], &[b"a"], "more than one disk that a pager brings");
    let over = over(Base::File);
    refused(|spec| spec.devices = vec![over], &[b"a", b"disk"], "2 descriptors came, 3 are needed");
    refused(
        |spec| spec.devices = vec![over],
        &[b"a", b"disk", b"longer"],
        "a base of 6 bytes under a disk of 4",
    );
    // A bzImage that wants more memory than there is.
    let mut large = vec![0_u8; 8192];
    large[0x1F1] = 1;
    large[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    large[0x202..0x208].copy_from_slice(b"HdrS\x0F\x02");
    large[0x211] = 1;
    large[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    large[0x236] = 1;
    large[0x238] = 255;
    large[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    large[0x260..0x264].copy_from_slice(&0x400_0000_u32.to_le_bytes());
    refused(|_| {}, &[&large], "the kernel needs memory up to 80 MiB, the guest has 64 MiB");
    refused(|spec| spec.command_line = "a".repeat(256), &[&large], "longer than the 255 bytes");
    // One that fits, on a processor that this host has not.
    let mut small = large.clone();
    small[0x260..0x264].copy_from_slice(&0x100_0000_u32.to_le_bytes());
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let other = if info.contains("AuthenticAMD") { "intel-skylake" } else { "amd-zen" };
    let said = format!("this host's processor cannot be {other}: leaf 0x0.0 Ebx is");
    refused(|spec| spec.cpu_template = other.into(), &[&small], &said);
    large[0x206] = 5;
    refused(|_| {}, &[&large], "boot protocol 2.05; 2.12 is the oldest");
}

#[test]
fn each_kind_of_machine_refuses_the_others_guests() {
    needs_kvm!();
    let (vmm, mut control) = empty();
    assert_eq!(status(&mut control).state, VmState::Empty);
    let reply = load(&mut control, &spec(16), &[&sealed(&[0; 16])]);
    assert!(format!("{reply:?}").contains("not Wasm functions"), "{reply:?}");
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(SHUTDOWN, "end: shutdown");

    let wasm = Vmm::spawn(&support::guest::elf());
    let mut control = wasm.control();
    send_with(&mut control, &ControlRequest::LoadLinux(linux_spec()), &[]);
    let reply: ControlReply = receive(&mut control);
    assert!(format!("{reply:?}").contains("not Linux guests"), "{reply:?}");
}

#[test]
fn every_thread_is_sealed() {
    needs_kvm!();
    let (vmm, mut control) = empty();
    assert_eq!(status(&mut control).state, VmState::Empty);
    let mut names = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", vmm.pid())).unwrap() {
        let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(text.contains(line), "{text}");
        }
        names.push(text.lines().next().unwrap_or_default().replace("Name:\t", ""));
    }
    names.sort();
    // KVM has a helper of its own for each VM.
    names.retain(|name| !name.starts_with("kvm"));
    assert_eq!(names, ["disk0", "disk1", "disk2", "disk3", "network", "vcpu0", "warren-vmm", "worker"]);
}
