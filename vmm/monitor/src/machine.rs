//! From nothing to a function ready to run, in two phases that are types.
//!
//! [`Machine::create`] makes everything that needs no function (VM, memory slot, vCPU, guest program, fixed page
//! tables): a zygote. [`Machine::load`] consumes it, adds code, files, heap and the boot pages, and gives a [`Start`]
//! that the [`Cpu`] enters.

use crate::bare::Bare;
use crate::cpu::Cpu;
use crate::cpuid::TooMany;
use crate::cpuid::table::Lacks;
use crate::mailbox::Mailbox;
use crate::paging::PagerError;
use crate::program::{self, ProgramError};
use crate::ram::{Ram, RamError};
use crate::sys::FileUse;
use kvm_ioctls::Kvm;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io::Errno;
use std::io;
use warren_abi::boot::{BOOT_MAGIC, BootHeader};
use warren_abi::isa::IsaSet;
use warren_abi::window::{BOOT, HEAP, LARGE_PAGE_SIZE, PAGE_SIZE, TABLES};
use warren_abi::written;
use warren_boot::entry::EntryState;
use warren_boot::paging::PagingError;
use warren_boot::plan::{self, Base, Plan, PlanError, Sizes};
use warren_boot::{Access, Mapping, OutOfRange, PageTables, descriptors, exceptions};
use warren_state::wasm::Area;
use warren_vmm_protocol::LoadSpec;
use zerocopy::IntoBytes;

/// What a zygote is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// Bytes of the first memory slot.
    pub class_len: u64,
    /// Ask for huge pages behind the heap.
    pub huge_heap: bool,
    /// No guest program: a guest is going to be restored.
    pub bare: bool,
}

/// A VM without a function.
#[derive(Debug)]
pub struct Machine {
    bare: Bare,
    tables: PageTables,
    base: Base,
    entry: u64,
    options: MachineOptions,
    loaded: Option<Loaded>,
}

/// What was put in, for a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) plan: Plan,
    /// Where code and files are shown, which may be more than is mapped.
    pub(crate) code: Area,
    pub(crate) task: Option<Area>,
    pub(crate) isa: IsaSet,
    pub(crate) memory_bytes: u64,
}

/// Why a machine could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM refused a step: the host's fault.
    #[error("KVM: {step}")]
    Kvm {
        /// Which.
        step: &'static str,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// No event descriptor: the host's fault.
    #[error("cannot make an event descriptor")]
    Event(#[source] io::Error),
    /// No random bytes: the host's fault.
    #[error("the kernel gives no random bytes")]
    Entropy(#[source] Errno),
    /// Guest memory: the host's fault.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The guest program: the operator's fault.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The flags or the request: the caller's fault.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A rule of the request is broken: the caller's fault.
    #[error("{0}")]
    Refused(String),
    /// The page tables do not take the plan: a defect here.
    #[error(transparent)]
    Paging(#[from] PagingError),
    /// Memory could not be handed to a pager.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// A planned address is not memory: a defect here.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    /// This host's processor is not what a guest was promised: the host's fault.
    #[error(transparent)]
    Processor(#[from] Lacks),
    /// More leaves of CPUID than KVM takes: a defect here.
    #[error(transparent)]
    Leaves(#[from] TooMany),
}

/// Everything a vCPU needs to run a loaded function.
#[derive(Debug)]
pub struct Start {
    /// First registers.
    pub entry: EntryState,
    /// The door to events and replies.
    pub mailbox: Mailbox,
    /// Bytes of the function's memory: what peaks are cut at.
    pub memory_bytes: u64,
    /// How long init may take.
    pub init_timeout_ms: u32,
}

/// Code and files of a function, as they arrived.
#[derive(Debug)]
pub struct Artefacts {
    /// Precompiled code, a sealed memfd.
    pub code: OwnedFd,
    /// The `/var/task` archive, likewise.
    pub task: Option<OwnedFd>,
}

impl Machine {
    /// Makes a zygote: the machine, and the vCPU that will run it.
    pub fn create(
        kvm: &Kvm,
        image: &impl AsFd,
        options: MachineOptions,
    ) -> Result<(Self, Cpu), MachineError> {
        let program = program::read(image)?;
        let base = Base::new(program.end, options.class_len)?;
        let (mut vm, cpu) = Bare::create(kvm, options)?;
        let ram = &mut vm.ram;
        let mut tables = PageTables::new(plan::TABLES);
        for mapping in plan::SUPERVISOR_MAPPINGS.iter().chain([&base.mailbox, &base.stack]) {
            tables.map(ram, *mapping)?;
        }
        ram.put(plan::GDT.start, &descriptors::gdt_page())?;
        ram.put(plan::IDT.start, &descriptors::idt())?;
        ram.put(plan::STUBS.start, &exceptions::stubs())?;
        vm.program = Some(program::place(&program, image, &mut vm.ram, &mut tables)?);
        let entry = program.entry;
        Ok((Self { bare: vm, tables, base, entry, options, loaded: None }, cpu))
    }

    /// Puts a function in. The descriptors' seals are the caller's to check ([`crate::load`]).
    pub fn load(&mut self, spec: &LoadSpec, artefacts: &Artefacts) -> Result<Start, MachineError> {
        let sizes = Sizes { code: spec.code_len, task: spec.task_len, heap: spec.memory_bytes };
        let plan = self.base.place(sizes, self.options.class_len)?;
        let boot = self.boot_page(spec)?;
        if plan.high_len > 0 {
            self.bare.ram.add_bank(&self.bare.vm, plan::HIGH_BASE, plan.high_len)?;
        }
        let code = self.map_file("the function's code", plan.code, &artefacts.code)?;
        let task = plan.task.zip(artefacts.task.as_ref());
        let task =
            task.map(|(mapping, task)| self.map_file("the function's files", mapping, task)).transpose()?;
        for piece in &plan.heap {
            self.tables.map_noting_writes(&mut self.bare.ram, *piece, HEAP.base + written::FINE_LEN)?;
            if self.options.huge_heap {
                self.bare.ram.advise_huge(piece.gpa, piece.len);
            }
        }
        self.show_tables(plan::page_up(spec.memory_bytes))?;
        self.tables.map(&mut self.bare.ram, plan::boot_mapping(boot.len() as u64))?;
        self.bare.ram.put(BOOT.base, &boot)?;
        let mailbox = Mailbox::new(self.bare.ram.clone(), self.base.mailbox.gpa);
        let entry = EntryState::new(self.entry, self.tables.root(), self.bare.features);
        self.loaded = Some(Loaded { plan, code, task, isa: spec.isa, memory_bytes: spec.memory_bytes });
        Ok(Start { entry, mailbox, memory_bytes: spec.memory_bytes, init_timeout_ms: spec.init_timeout_ms })
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.bare.ram
    }

    /// The VM itself.
    #[must_use]
    pub fn bare(&self) -> &Bare {
        &self.bare
    }

    /// What was put in.
    pub(crate) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.as_ref()
    }

    /// Where the mailbox lies.
    pub(crate) fn mailbox(&self) -> u64 {
        self.base.mailbox.gpa
    }

    /// The root of the page tables.
    pub(crate) fn root(&self) -> u64 {
        self.tables.root()
    }

    fn map_file(
        &mut self,
        what: &'static str,
        mapping: Mapping,
        file: &OwnedFd,
    ) -> Result<Area, MachineError> {
        let area = shown(mapping, file).map_err(|source| RamError::Map { what, source: source.into() })?;
        self.bare.ram.map_file(what, area.gpa, area.len, (file.as_fd(), 0), FileUse::ReadOnly)?;
        self.tables.map(&mut self.bare.ram, mapping)?;
        Ok(area)
    }

    /// Lets the guest read the tables of its heap, as [`written`] says.
    fn show_tables(&mut self, heap_len: u64) -> Result<(), MachineError> {
        let directories = (0..written::DIRECTORIES).map(|n| (n, 2, n * written::DIRECTORY_REACH));
        let fine = (0..written::FINE_TABLES).map(|n| (written::DIRECTORIES + n, 1, n * LARGE_PAGE_SIZE));
        for (page, level, at) in directories.chain(fine).filter(|(_, _, at)| *at < heap_len) {
            if let Some(gpa) = self.tables.table_of(&self.bare.ram, HEAP.base + at, level)? {
                let va = TABLES.base + page * PAGE_SIZE;
                self.tables
                    .map(&mut self.bare.ram, Mapping { va, gpa, len: PAGE_SIZE, access: Access::UserRead })?;
            }
        }
        Ok(())
    }

    fn boot_page(&self, spec: &LoadSpec) -> Result<Vec<u8>, MachineError> {
        let encoded = postcard::to_allocvec(&spec.function)
            .map_err(|error| MachineError::Refused(format!("the function's description: {error}")))?;
        let header = BootHeader {
            magic: BOOT_MAGIC,
            abi_version: warren_abi::ABI_VERSION,
            spec_len: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
            isa: spec.isa.0,
            code_len: spec.code_len,
            task_len: spec.task_len,
            heap_len: plan::page_up(spec.memory_bytes),
            stack_len: plan::STACK_LEN,
            tsc_hz: self.bare.tsc_hz,
        };
        let page = [header.as_bytes(), &encoded].concat();
        if page.len() as u64 > BOOT.max_len {
            let (len, max) = (page.len(), BOOT.max_len);
            return Err(MachineError::Refused(format!(
                "arguments and environment take {len} of {max} bytes"
            )));
        }
        Ok(page)
    }
}

/// Where a file is shown that the guest maps so: parts begin at large pages each.
fn shown(mapping: Mapping, file: &OwnedFd) -> Result<Area, Errno> {
    let in_file = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    Ok(Area { gpa: mapping.gpa, len: program::whole(mapping.len, in_file) })
}

/// The instruction sets of this host that Warren knows.
#[must_use]
pub fn host_isa() -> IsaSet {
    IsaSet::detect(|name| match name {
        "sse3" => std::is_x86_feature_detected!("sse3"),
        "ssse3" => std::is_x86_feature_detected!("ssse3"),
        "sse4.1" => std::is_x86_feature_detected!("sse4.1"),
        "sse4.2" => std::is_x86_feature_detected!("sse4.2"),
        "popcnt" => std::is_x86_feature_detected!("popcnt"),
        "lzcnt" => std::is_x86_feature_detected!("lzcnt"),
        "bmi1" => std::is_x86_feature_detected!("bmi1"),
        "bmi2" => std::is_x86_feature_detected!("bmi2"),
        "avx" => std::is_x86_feature_detected!("avx"),
        "avx2" => std::is_x86_feature_detected!("avx2"),
        "fma" => std::is_x86_feature_detected!("fma"),
        _ => false,
    })
}
