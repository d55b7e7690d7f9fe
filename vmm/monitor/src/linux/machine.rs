//! From nothing to a Linux guest ready to run, in two phases that are types.
//!
//! [`Machine::create`] makes what needs no kernel: VM, memory slots, interrupt controllers, vCPUs. [`Machine::load`]
//! consumes it and gives a [`Loaded`]: memory filled, devices in their windows.

use super::again::Image;
use super::bus::Bus;
use super::console::Console;
use super::events::{Generation, Tellings};
use super::filling::{self, FillError, Filling};
use super::furnish::Furnished;
use super::interrupts::local_controllers;
use super::load::{Admitted, Room};
use super::msr;
use super::network::Front;
use super::vcpu::{First, Start, Vcpu};
use super::virtio::state::ResumeError;
use super::virtio::{Device, balloon, mem};
use super::windows::{Kind, Windows};
use super::worker::Work;
use crate::cpuid::table::Lacks;
use crate::cpuid::{Leaves, Template, place::Place};
use crate::machine::MachineError;
use crate::orders::Outgoing;
use crate::paging::PagerError;
use crate::ram::Ram;
use crate::sys::FileUse;
use crate::sys::pool::HugePage;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use warren_abi::window::PAGE_SIZE;
use warren_boot::OutOfRange;
use warren_boot::linux::image::Segment;
use warren_boot::linux::layout::{Banks, HIGH_BASE};
use warren_boot::linux::registers::{Registers, write_tables};
use warren_boot::linux::{acpi, params};
use warren_devices::virtio::mem::Blocks;

/// The generation of a guest that was never brought back.
const FIRST_GENERATION: u64 = 1;
/// Where KVM may put its real-mode task state on processors that need one: in the gap, never used by us.
const TSS_ADDRESS: usize = 0xFFFB_D000;

/// What a machine is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxOptions {
    /// Bytes of memory slots; a guest may be given less.
    pub memory_bytes: u64,
    /// Bytes more that can be plugged while a guest runs; whole blocks of it count.
    pub pluggable_bytes: u64,
    /// vCPUs.
    pub cpus: u8,
    /// Disks that a guest may have.
    pub disks: u8,
    /// What guest memory consists of; memory that is plugged later always of small pages.
    pub pages: Pages,
    /// The devices that its guest will have, in the order of their windows, where that is known.
    pub devices: Option<Vec<Kind>>,
}

/// What guest memory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Small pages, each there once it is touched.
    Small,
    /// Huge ones where the host happens to have them.
    HugeIfThere,
    /// Huge ones that the host has set aside: all there from the start, or no machine.
    Reserved(HugePage),
}

/// A VM without a kernel.
#[derive(Debug)]
pub struct Machine {
    pub(super) vm: Arc<VmFd>,
    pub(super) ram: Ram,
    cpus: u8,
    memory_bytes: u64,
    disks_max: u8,
    pages: Pages,
    /// What can be plugged; empty without room for it.
    pub(super) blocks: Blocks,
    exits: Arc<AtomicU64>,
    msr_filter: bool,
    pub(super) windows: Windows,
    /// What KVM can make a processor look like.
    supported: CpuId,
    /// The id of the guest's generation here.
    pub(super) generation: Generation,
}

/// A guest that can be started.
#[derive(Debug)]
pub struct Loaded {
    /// For the first vCPU; the others get it without registers.
    pub start: Start,
    /// For the worker.
    pub work: Vec<Work>,
    /// For a thread each.
    pub disks: Vec<Work>,
    /// For the network thread.
    pub network: Vec<(Arc<Device>, Front)>,
    /// For the main thread.
    pub console: Arc<Console>,
    /// For the main thread.
    pub events: Tellings,
    /// For the main thread, of a guest that has one.
    pub balloon: Option<balloon::Handle>,
    /// The same.
    pub memory: Option<mem::Handle>,
    /// To be kept as long as a vCPU runs.
    pub kept: Kept,
}

/// What a running guest stands on, and what of it a snapshot needs. A VM ends with its last descriptor, memory with its last
/// owner, and a guest without devices has no other.
#[derive(Debug)]
pub struct Kept {
    pub(super) vm: Arc<VmFd>,
    pub(super) ram: Ram,
    pub(super) bus: Arc<Bus>,
    /// Bytes that the machine was made with, and those that the guest was given.
    pub(super) memory_bytes: u64,
    pub(super) guest_bytes: u64,
    pub(super) template: &'static str,
    pub(super) leaves: Leaves,
    /// There is room for memory that is plugged.
    pub(super) pluggable: bool,
    /// A pager brings its memory.
    pub(super) paged: bool,
    /// A disk's content is not all in its file.
    pub(super) overlaid: bool,
    /// What the guest was brought back from, if it was, and can be once more.
    pub(super) image: Option<Box<Image>>,
    /// How often the guest was brought back, from 1 on.
    pub(super) generation: u64,
    /// An id that no other generation has: this one's, if it is a copy.
    pub(super) fresh: Generation,
}

impl Loaded {
    /// Of its parts.
    #[must_use]
    pub fn new(start: Start, parts: Furnished, kept: Kept) -> Self {
        let Furnished { bus, events, work, disks, network, balloon, memory, .. } = parts;
        let console = Arc::clone(&bus.console);
        Self { start, work, disks, network, console, events, balloon, memory, kept }
    }
}

/// Why a guest could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// KVM or guest memory: the host's fault.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A file ends early or cannot be read: the caller's fault.
    #[error("{what} cannot be read")]
    Read {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// This host cannot be what the guest asks for: the caller's fault, who can ask another.
    #[error("this host's processor cannot be {name}: {lacks}")]
    Template {
        /// The template.
        name: &'static str,
        /// What the host lacks.
        lacks: Lacks,
    },
    /// A device cannot go on where one was written down: the caller's fault.
    #[error("{name}: {source}")]
    Device {
        /// Its name.
        name: String,
        /// Why.
        source: ResumeError,
    },
    /// A snapshot of another host: the caller's fault.
    #[error("{0}")]
    Other(String),
    /// Memory could not be handed to a pager.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// Memory could not be filled: the host's fault.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// A planned address is not memory: a defect here.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

impl Machine {
    /// Makes a machine and its vCPUs.
    pub fn create(kvm: &Kvm, options: &LinuxOptions) -> Result<(Self, Vec<Vcpu>), MachineError> {
        let step = |step| move |source| MachineError::Kvm { step, source };
        let banks = Banks::new(options.memory_bytes)
            .ok_or_else(|| MachineError::Refused(format!("{} bytes of memory", options.memory_bytes)))?;
        let vm = kvm.create_vm().map_err(step("create a VM"))?;
        // Filter, then slots, then the interrupt controllers: each of these waits for readers of the VM, and is cheapest
        // while it has none.
        let msr_filter = msr::filter(kvm, &vm)?;
        let mut ram = Ram::empty();
        for (base, len) in [(0, banks.low), (HIGH_BASE, banks.high)] {
            match options.pages {
                _ if len == 0 => {}
                Pages::Small => ram.add_bank(&vm, base, len)?,
                Pages::HugeIfThere => {
                    ram.add_bank(&vm, base, len)?;
                    ram.advise_huge(base, len);
                }
                Pages::Reserved(page) => ram.add_huge_bank(&vm, base, len, page)?,
            }
        }
        let blocks = Blocks::new(banks.pluggable_base(), options.pluggable_bytes);
        if blocks.region() > 0 {
            // One slot for all: what is not plugged in it, the guest's view does not let it touch. A slot for each block would
            // cost every vCPU its page tables whenever one goes.
            ram.add_pluggable_bank(&vm, banks.pluggable_base(), blocks.region(), blocks.block())?;
        }
        if kvm.check_extension(Cap::SetTssAddr) {
            vm.set_tss_address(TSS_ADDRESS).map_err(step("set the task-state address"))?;
        }
        local_controllers(&vm).map_err(step("create the interrupt controllers"))?;
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(step("read CPUID"))?;
        let mut generation = Generation::default();
        getrandom(&mut generation, GetRandomFlags::empty()).map_err(MachineError::Entropy)?;
        let exits = Arc::default();
        let msrs: Arc<[u32]> = msr::kept(kvm)?.into();
        let mut vcpus = Vec::with_capacity(options.cpus.into());
        for id in 0..options.cpus {
            let fd = vm.create_vcpu(id.into()).map_err(step("create a vCPU"))?;
            let place = Place { id, count: options.cpus, tsc_deadline: deadline };
            vcpus.push(Vcpu::new(fd, place, Arc::clone(&exits), Arc::clone(&msrs)));
        }
        let windows = options.devices.as_deref().map(|kinds| Windows::ready(&vm, kinds));
        let windows = windows.transpose()?.unwrap_or_default();
        let LinuxOptions { memory_bytes, cpus, disks: disks_max, pages, .. } = *options;
        let machine = Self {
            vm: Arc::new(vm),
            ram,
            cpus,
            memory_bytes,
            disks_max,
            pages,
            blocks,
            exits,
            msr_filter,
            windows,
            supported,
            generation,
        };
        Ok((machine, vcpus))
    }

    /// Exits of all vCPUs.
    #[must_use]
    pub fn exits(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.exits)
    }

    /// Whether this host's KVM filters MSR accesses.
    #[must_use]
    pub fn filters_msrs(&self) -> bool {
        self.msr_filter
    }

    /// The most that a guest can be given.
    #[must_use]
    pub fn room(&self) -> Room {
        Room {
            memory_bytes: self.memory_bytes,
            cpus: self.cpus,
            disks: self.disks_max.into(),
            pluggable_bytes: self.blocks.region(),
            small_pages: self.ram.takes_files(),
            devices: self.windows.kinds(),
        }
    }

    /// Puts a kernel in and devices on. `lines` rings when the console has some.
    pub fn load(mut self, admitted: Admitted, lines: Outgoing<()>) -> Result<Loaded, LinuxError> {
        let Admitted {
            kernel,
            kernel_file,
            kernel_sealed,
            template,
            placement,
            initrd,
            initrd_sealed,
            command_line,
            memory_bytes,
            devices,
        } = admitted;
        let leaves = self.leaves(template)?;
        let initrd = placement.initrd.zip(initrd);
        let filling = if self.pages == Pages::HugeIfThere && kernel_sealed && initrd_sealed {
            let end = Banks::new(self.memory_bytes).map_or(0, |banks| banks.low);
            Some(Filling::of(&self.ram, (&kernel, kernel_file), initrd, end)?)
        } else {
            for segment in &kernel.segments {
                self.place(segment, &kernel_file, kernel_sealed && self.ram.takes_files())?;
            }
            if let Some((place, file)) = &initrd {
                self.ram
                    .fill(file.as_fd(), 0, place.gpa, place.len)
                    .map_err(|source| LinuxError::Read { what: "the initrd", source })?;
            }
            None
        };
        let hardware = acpi::Hardware { cpus: self.cpus, virtio_devices: devices.len() };
        let rsdp = acpi::write(&mut self.ram, hardware)?;
        params::write(&mut self.ram, &kernel, &placement, &command_line, rsdp)?;
        write_tables(&mut self.ram, kernel.entry)?;

        let parts = self.furnish(devices, memory_bytes, lines, None)?;
        let start = Start {
            bus: parts.bus.clone(),
            leaves: leaves.clone(),
            first: First::Boot(Registers::new(kernel.entry)),
            filling: filling::Shared::new(filling, self.ram.clone()),
        };
        let kept = self.kept(&parts, (template.name, leaves), memory_bytes, FIRST_GENERATION);
        Ok(Loaded::new(start, parts, kept))
    }

    /// What every vCPU of a guest with a template sees here.
    pub(super) fn leaves(&self, template: Template) -> Result<Leaves, LinuxError> {
        let lacking = |lacks| LinuxError::Template { name: template.name, lacks };
        template.here(self.supported.as_slice()).map_err(lacking)
    }

    /// What a running guest stands on.
    pub(super) fn kept(
        self,
        parts: &Furnished,
        (template, leaves): (&'static str, Leaves),
        guest_bytes: u64,
        generation: u64,
    ) -> Kept {
        Kept {
            pluggable: self.blocks.region() > 0,
            paged: false,
            overlaid: parts.overlaid,
            image: None,
            vm: self.vm,
            ram: self.ram,
            bus: Arc::clone(&parts.bus),
            memory_bytes: self.memory_bytes,
            guest_bytes,
            template,
            leaves,
            generation,
            fresh: self.generation,
        }
    }

    /// Puts a piece of the kernel into memory. Whole pages of a file that cannot change are mapped, so that guests share
    /// what they do not write and nothing is copied in advance; the rest is read.
    fn place(&self, segment: &Segment, file: &OwnedFd, sealed: bool) -> Result<(), LinuxError> {
        let Segment { mut gpa, mut offset, mut len } = *segment;
        let whole = len / PAGE_SIZE * PAGE_SIZE;
        if sealed && whole > 0 && gpa.is_multiple_of(PAGE_SIZE) && offset.is_multiple_of(PAGE_SIZE) {
            self.ram
                .map_file("the kernel", gpa, whole, (file.as_fd(), offset), FileUse::CopyOnWrite)
                .map_err(MachineError::from)?;
            (gpa, offset, len) = (gpa + whole, offset + whole, len - whole);
        }
        self.ram
            .fill(file.as_fd(), offset, gpa, len)
            .map_err(|source| LinuxError::Read { what: "the kernel", source })
    }
}
