//! `kvm-floor` and `exit-floor`: the least that KVM itself costs here.

use anyhow::{Context as _, Result, ensure};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::{fd::OwnedFd, fs::MemfdFlags};
use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};
use warren_abi::{ABI_VERSION, DOORBELL_PORT, window::PROGRAM};
use warren_vmm::{
    cpu::{Cpu, Stop},
    machine::{Artefacts, Machine, MachineOptions, host_isa},
    ram::Ram,
};
use warren_vmm_protocol::{FunctionSpec, LoadSpec, World};

/// Bytes of the floor's only slot: as large as a 128 MiB function's, for KVM's per-page metadata.
const SLOT: u64 = 256 << 20;
/// Where the code lies.
const CODE: u64 = 0x1000;
/// `out dx, al` in real mode.
const OUT: [u8; 1] = [0xEE];

/// What `kvm-floor` made, to be dropped when nobody measures.
pub(crate) struct FloorVm {
    _vcpu: VcpuFd,
    _ram: Ram,
    _vm: VmFd,
}

/// `kvm-floor`: create VM, one slot, one vCPU, CPUID, registers, run to the first exit. Teardown is not counted.
pub(crate) fn create_to_first_exit() -> Result<(Duration, FloorVm)> {
    let began = Instant::now();
    let kvm = Kvm::new().context("/dev/kvm")?;
    let vm = kvm.create_vm()?;
    let mut ram = Ram::empty();
    ram.add_bank(&vm, 0, SLOT)?;
    ram.put(CODE, &OUT)?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rdx, regs.rflags) = (CODE, 0x80, 2);
    vcpu.set_regs(&regs)?;
    let exit = vcpu.run()?;
    ensure!(matches!(exit, VcpuExit::IoOut(0x80, _)), "the floor's first exit is {exit:?}");
    Ok((began.elapsed(), FloorVm { _vcpu: vcpu, _ram: ram, _vm: vm }))
}

/// `exit-floor`: one user-mode port exit and re-entry, in a VM kept for many of them.
pub(crate) struct ExitFloor {
    cpu: Cpu,
    ram: Ram,
    _machine: Machine,
}

impl ExitFloor {
    /// A VM whose program does nothing but ring.
    pub(crate) fn new() -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let image = memfd("floor", &ringing_program())?;
        let options = MachineOptions { class_len: SLOT, huge_heap: false, bare: false };
        let (mut machine, mut cpu) = Machine::create(&kvm, &image, options)?;
        let code = Artefacts { code: memfd("code", &[0; 4096])?, task: None };
        let start = machine.load(&load_spec(4096, World::WasiPreview1), &code)?;
        cpu.enter(&start)?;
        Ok(Self { cpu, ram: Ram::empty(), _machine: machine })
    }

    /// From one exit to the next.
    pub(crate) fn round_trip(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let stop = self.cpu.run(&self.ram);
        let took = began.elapsed();
        ensure!(matches!(stop, Stop::Doorbell), "the floor's guest stopped: {stop:?}");
        Ok(took)
    }
}

/// What a VM is loaded with, for floors and benches alike.
pub(crate) fn load_spec(code_len: u64, world: World) -> LoadSpec {
    LoadSpec {
        function: FunctionSpec {
            world,
            args: vec!["bench".to_owned()],
            env: Vec::new(),
            tmp_quota_bytes: 16 << 20,
            memory_limit_bytes: 64 << 20,
        },
        memory_bytes: 128 << 20,
        isa: host_isa(),
        code_len,
        task_len: 0,
        init_timeout_ms: 10_000,
        label: "bench".to_owned(),
    }
}

/// Bytes as a descriptor.
pub(crate) fn memfd(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    File::from(fd.try_clone()?).write_all(bytes)?;
    Ok(fd)
}

/// An ELF file by hand: header, two program headers, the version note, and 8 bytes of code.
fn ringing_program() -> Vec<u8> {
    const PAGE: usize = 0x1000;
    let mut file = vec![0; PAGE];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7FELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &PROGRAM.base.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 2, 0]);
    // PT_LOAD, read and execute, the page after the headers.
    put(64, &[1, 0, 0, 0, 5]);
    for (field, value) in
        [(8, 0x1000), (16, PROGRAM.base), (24, PROGRAM.base), (32, 8), (40, 8), (48, 0x1000_u64)]
    {
        put(64 + field, &value.to_le_bytes());
    }
    // PT_NOTE with the ABI version.
    put(120, &[4, 0, 0, 0, 4]);
    for (field, value) in [(8, 0x400_u64), (32, 24), (40, 24)] {
        put(120 + field, &value.to_le_bytes());
    }
    put(0x400, &[7, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
    put(0x40C, b"Warren\0\0");
    put(0x414, &ABI_VERSION.to_le_bytes());
    // mov edx, port; again: out dx, eax; jmp again
    let [low, high] = DOORBELL_PORT.to_le_bytes();
    file.extend([0xBA, low, high, 0, 0, 0xEF, 0xEB, 0xFD]);
    file
}
