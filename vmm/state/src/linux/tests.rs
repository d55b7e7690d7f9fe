use super::*;
use crate::linux::device::{ConsoleState, VirtioState};
use crate::{open, seal};
use alloc::vec;
use proptest::prelude::*;
use warren_devices::ioapic::{IoApicState, LineState};
use warren_devices::virtio::F_VERSION_1;
use warren_devices::virtio::transport::{QueueConfig, TransportState};

const MIB: u64 = 1 << 20;
/// Bytes of memory in [`good`].
const LEN: u64 = 0x3000;

fn devices() -> Devices {
    let queue = QueueConfig { size: 8, ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
    let transport = TransportState {
        id: 2,
        offered: F_VERSION_1 | 1 << 5,
        status: 15,
        driver_features: F_VERSION_1,
        queues: vec![queue],
        interrupt: 1,
        ..TransportState::default()
    };
    let lines = vec![LineState { entry: 0x31, waits: false }, LineState { entry: 1 << 16, waits: true }];
    Devices {
        io_apic: IoApicState { selected: 0x10, id: 0, lines },
        console: ConsoleState { line: b"warren-init: he".to_vec(), ..ConsoleState::default() },
        virtio: vec![VirtioState {
            transport,
            config: vec![7; 60],
            config_generation: 3,
            positions: vec![0xFFFE],
        }],
        ..Devices::default()
    }
}

fn vcpu() -> VcpuState {
    VcpuState {
        tsc_khz: 2_000_000,
        mp_state: 3,
        regs: vec![1; 144],
        sregs: vec![2; 312],
        xsave: vec![3; 576],
        xcrs: Some(vec![4; 392]),
        debug: vec![5; 128],
        lapic: vec![6; 1024],
        msrs: vec![(0x10, 12_345), (0xC000_0081, 1 << 63), (0x6E0, 0)],
        events: vec![7; 64],
    }
}

fn good() -> LinuxState {
    LinuxState {
        memory_bytes: 4096 * MIB,
        guest_bytes: 4096 * MIB,
        template: "host".into(),
        leaves: vec![Leaf { at: (7, 0), flags: 1, registers: [1, 2, 3, u32::MAX] }],
        clock_ns: 1_000_000_007,
        vcpus: vec![vcpu(), VcpuState { xcrs: None, ..vcpu() }],
        devices: devices().write().unwrap(),
        runs: vec![Area { gpa: 0x1000, len: 0x2000 }, Area { gpa: HIGH_BASE, len: 0x1000 }],
        generation: 2,
    }
}

/// A change that breaks one rule, and the word by which it is refused.
fn refused(change: impl FnOnce(&mut LinuxState), word: &str) {
    let mut state = good();
    change(&mut state);
    let error = state.check(LEN).unwrap_err();
    assert!(alloc::format!("{error}").contains(word), "{error} lacks {word:?}");
}

/// The same in its devices.
fn refused_device(change: impl FnOnce(&mut Devices), word: &str) {
    let mut devices = devices();
    change(&mut devices);
    refused(|state| state.devices = devices.write().unwrap(), word);
}

#[test]
fn every_rule_is_looked_at() {
    assert_eq!(good().check(LEN), Ok(devices()));
    assert!(good().check(LEN + 0x1000).is_err());
    refused(|s| s.memory_bytes = 0, "no size");
    refused(|s| s.memory_bytes += 1, "no size");
    refused(|s| s.memory_bytes = MEMORY_MAX + PAGE, "no size");
    refused(|s| s.guest_bytes += PAGE, "more memory");
    refused(|s| s.template = "a".repeat(NAME_MAX + 1), "template");
    refused(|s| s.leaves = vec![Leaf::default(); LEAVES_MAX + 1], "leaves");
    refused(|s| s.vcpus.clear(), "vCPUs");
    refused(|s| s.vcpus = vec![vcpu(); VCPUS_MAX + 1], "vCPUs");
    for break_it in [
        (|v| v.regs.truncate(8)) as fn(&mut VcpuState),
        |v| v.sregs.push(0),
        |v| v.xsave = vec![0; 4097],
        |v| v.xcrs = Some(Vec::new()),
        |v| v.debug.clear(),
        |v| v.lapic.clear(),
        |v| v.events.clear(),
        |v| v.msrs = vec![(0, 0); vcpu::MSRS_MAX + 1],
    ] {
        refused(|s| break_it(&mut s.vcpus[1]), "registers");
    }
    refused(|s| s.runs = vec![Area { gpa: 0, len: PAGE }; RUNS_MAX + 1], "too many");
    refused(|s| s.runs[0].gpa = 1, "outside");
    refused(|s| s.runs[0].len = 0, "outside");
    refused(|s| s.runs[0].gpa = LOW_MAX, "outside");
    refused(|s| s.runs[1].gpa = u64::MAX - 0xFFF, "outside");
    refused(|s| s.runs[0].len = u64::MAX - 0xFFF, "outside");
    refused(|s| s.runs.swap(0, 1), "order");
    refused(|s| s.runs[0].len = PAGE, "another length");
}

#[test]
fn every_devices_rule_is_looked_at() {
    refused(|s| s.devices.truncate(3), "missing");
    refused(|s| s.devices.swap(0, 1), "out of order");
    refused(|s| s.devices.swap(3, 4), "out of order");
    refused(|s| s.devices = [&s.devices[..4], &vec![s.devices[4].clone(); 236]].concat(), "too many devices");
    refused(|s| s.devices[4].version = 2, "device 16 in version 2");
    refused(|s| s.devices[2].bytes.push(0), "does not decode");
    refused(|s| s.devices[0].bytes.truncate(1), "does not decode");
    refused_device(|d| d.io_apic.lines[0].entry |= 1 << 12, "cannot have");
    refused_device(|d| d.console.line = vec![b'a'; 512], "cannot have");
    refused_device(|d| d.console.line = vec![b'\n'], "cannot have");
    refused_device(|d| d.virtio[0].transport.status = 7, "cannot have");
    refused_device(|d| d.virtio[0].transport.queues[0].device = 2, "cannot have");
    refused_device(|d| d.virtio[0].transport.driver_features |= 1, "cannot have");
    refused_device(|d| d.virtio[0].config = vec![0; 257], "cannot have");
    refused_device(|d| d.virtio[0].positions.clear(), "cannot have");
}

/// A snapshot of an earlier build is read by this one; when this test fails, a format has changed: that device, or the body,
/// needs a new version, and this file stays to be read.
#[test]
fn the_golden_snapshot() {
    let golden = include_bytes!("../../tests/golden/linux-1.state");
    let state = open::<LinuxState>(golden).unwrap();
    assert_eq!(state.check(LEN), Ok(devices()));
    assert_eq!(state, good());
    assert_eq!(seal(&state).unwrap(), golden);
}

#[test]
fn another_processor_has_another_name() {
    let leaf = |eax| Leaf { at: (1, 0), flags: 0, registers: [eax, 0, 0, 0] };
    let with = |template: &str, leaves: Vec<Leaf>| LinuxState { template: template.into(), leaves, ..good() };
    let base = with("host", vec![leaf(1), leaf(2)]);
    let mut subleaf = base.clone();
    subleaf.leaves[1].at.1 = 1;
    let mut flagged = base.clone();
    flagged.leaves[0].flags = 1;
    let mut others = vec![
        with("hos", vec![leaf(1), leaf(2)]),
        with("amd-v3", vec![leaf(1), leaf(2)]),
        with("host", vec![leaf(1)]),
        with("host", vec![leaf(2), leaf(1)]),
        with("host", vec![leaf(1), leaf(2), Leaf::default()]),
        subleaf,
        flagged,
    ];
    for register in 0..4 {
        let mut another = base.clone();
        another.leaves[1].registers[register] ^= 1 << 31;
        others.push(another);
    }
    let names: alloc::collections::BTreeSet<_> = others.iter().map(LinuxState::processor).collect();
    assert_eq!(names.len(), others.len());
    assert!(!names.contains(&base.processor()));
    // Nothing else of a guest is in it.
    let other = LinuxState { clock_ns: 7, generation: 9, ..base.clone() };
    assert_eq!(other.processor(), base.processor());
    assert_eq!(processor::seen("host", &[leaf(1), leaf(2)]), base.processor());
}

#[test]
fn another_kind_of_guests_is_refused() {
    let wasm = include_bytes!("../../tests/golden/wasm-1.state");
    assert_eq!(open::<LinuxState>(wasm), Err(StateError::Magic));
    assert_eq!(open::<crate::wasm::WasmState>(&seal(&good()).unwrap()), Err(StateError::Magic));
}

/// As many vCPUs, devices and runs as there may be fit into an envelope.
#[test]
fn the_largest_guest_fits() {
    let mut state = good();
    state.vcpus = vec![
        VcpuState { xsave: vec![9; 1100], msrs: vec![(0xC000_0081, u64::MAX); 90], ..vcpu() };
        VCPUS_MAX
    ];
    let virtio = state.devices[4].clone();
    state.devices.extend(vec![virtio; 47]);
    state.runs = (0..RUNS_MAX as u64).map(|at| Area { gpa: at * 0x2000, len: PAGE }).collect();
    assert!(seal(&state).is_ok());
}

proptest! {
    #[test]
    fn an_altered_byte_is_refused(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let mut bytes = seal(&good()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(open::<LinuxState>(&bytes).is_err());
    }

    /// A body that was altered before it was sealed is judged without panic, and what passes is read as it was written.
    #[test]
    fn an_altered_body_is_judged(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut body = postcard::to_allocvec(&good()).unwrap();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        if let Ok(state) = postcard::from_bytes::<LinuxState>(&body)
            && let Ok(devices) = state.check(LEN)
        {
            prop_assert_eq!(Devices::read(&devices.write().unwrap()).unwrap(), devices);
        }
    }
}
