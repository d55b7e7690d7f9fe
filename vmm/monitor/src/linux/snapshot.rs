//! A Linux guest at rest, written down and brought back.
//!
//! ```text
//!  take     vCPUs held -> devices at rest, what they gave back is told -> registers -> clock -> memory -> state
//!  resume   judged -> memory mapped -> devices as they were -> registers -> clock -> another generation -> doorbells -> go
//! ```
//! - What devices gave back is told before registers are read: the interrupt lies in them.
//! - The generation's id is in memory, and its interrupt in a local APIC, before any vCPU runs. So is that of a disk that was empty
//!   and is not any more.
//! - Pages of the snapshot are mapped privately: clones share what they do not write. Or a pager brings them
//!   ([`super::paged`]).
//! - The guest's clocks go on where they stood. What time it is, whoever brings it back tells its init.

use super::again::Image;
use super::events::{Generation, Tellings};
use super::filling;
use super::load::{self, DeviceFile, Room};
use super::machine::{Kept, LinuxError, Loaded, Machine};
use super::paged::Pages;
use super::rest::{NotAtRest, Rest};
use super::vcpu::{First, Start};
use crate::cpuid::{Template, UnknownTemplate};
use crate::load::sealed_len;
use crate::machine::MachineError;
use crate::orders::Outgoing;
use crate::paging::PagerError;
use crate::progress::monotonic_ns;
use crate::snapshot::{Backing, TakeError, Taken, pages};
use crate::sys::FileUse;
use kvm_bindings::kvm_clock_data;
use kvm_ioctls::VmFd;
use rustix::fd::{AsFd, OwnedFd};
use std::time::Duration;
use warren_boot::linux::layout::{Banks, HIGH_BASE, virtio_gsi};
use warren_sandbox_plan::name::SandboxName;
use warren_state::linux::device::Devices;
use warren_state::linux::vcpu::VcpuState;
use warren_state::linux::{Leaf, LinuxState};
use warren_state::wasm::{Area, RUNS_MAX, Run};
use warren_state::{StateError, open, seal};
use warren_vmm_protocol::linux::LinuxRestore;

/// Zero pages between two runs that are written all the same: half a MiB. A kernel scatters what it holds, and a mapping each costs a
/// restore more (7 to 17 % on the lab host) than 8 % more bytes in a file that all copies share.
const GAP_PAGES: u64 = 128;
/// How long vCPUs and devices have to come to rest.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a guest was not written down. It goes on.
#[derive(Debug, thiserror::Error)]
pub enum NoSnapshot {
    /// Its vCPUs do not come to rest.
    #[error(transparent)]
    Vcpus(#[from] NotAtRest),
    /// A device is in the middle of something that takes too long: a disk whose host hangs.
    #[error("{0} does not come to rest")]
    Device(String),
    /// Memory that is plugged later is not written down.
    #[error("a machine with room for memory that is plugged is not written down")]
    Pluggable,
    /// All of its memory would have to be brought for it.
    #[error("a guest whose memory a pager brings is not written down again")]
    Paged,
    /// Whoever copied its disks would copy a part of them.
    #[error("a guest whose disk lies over a base is not written down again")]
    Overlaid,
    /// KVM's clock cannot be read: the host's fault.
    #[error("KVM's clock cannot be read: {0}")]
    Clock(kvm_ioctls::Error),
    /// Memory or state.
    #[error(transparent)]
    Take(#[from] TakeError),
}

/// Writes a guest down; its memory goes to `file`. It is at rest afterwards, if there was no error, until it is let [go
/// on](go_on).
pub fn take(kept: &Kept, events: &Tellings, rest: &Rest, file: OwnedFd) -> Result<Taken, NoSnapshot> {
    let taken = try_take(kept, events, rest, file);
    if taken.is_err() {
        go_on(kept, rest);
    }
    taken
}

/// A guest that was written down goes on.
pub fn go_on(kept: &Kept, rest: &Rest) {
    for device in &kept.bus.devices {
        device.go_on();
    }
    rest.go_on();
}

/// vCPUs first, then devices. After an error some are and some are not: see [`go_on`].
pub(super) fn come_to_rest(kept: &Kept, rest: &Rest) -> Result<(), NoSnapshot> {
    rest.ask();
    rest.wait(PATIENCE)?;
    let until_ns = monotonic_ns().saturating_add(u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX));
    let late = kept.bus.devices.iter().find(|device| !device.come_to_rest(until_ns));
    late.map_or(Ok(()), |device| Err(NoSnapshot::Device(device.name().into())))
}

fn try_take(kept: &Kept, events: &Tellings, rest: &Rest, file: OwnedFd) -> Result<Taken, NoSnapshot> {
    if kept.pluggable {
        return Err(NoSnapshot::Pluggable);
    }
    if kept.paged {
        return Err(NoSnapshot::Paged);
    }
    if kept.overlaid {
        return Err(NoSnapshot::Overlaid);
    }
    come_to_rest(kept, rest)?;
    let vcpus = rest.read(PATIENCE)?;
    let clock_ns = kept.vm.get_clock().map_err(NoSnapshot::Clock)?.clock;
    let banks = banks(kept.memory_bytes);
    let found = banks.iter().map(|bank| pages::find(&kept.ram, *bank, GAP_PAGES));
    let runs = pages::few(found.collect::<Result<_, _>>().map_err(TakeError::from)?, GAP_PAGES, RUNS_MAX);
    let runs = pages::in_place(runs, &banks);
    let memory_len = pages::write(&kept.ram, &runs, file)?;
    let devices = Devices {
        io_apic: kept.bus.interrupts.state(),
        console: kept.bus.console.state(),
        keyboard: kept.bus.keyboard().clone(),
        clock: events.clock(),
        virtio: kept.bus.devices.iter().map(|device| device.state()).collect(),
    };
    let state = LinuxState {
        memory_bytes: kept.memory_bytes,
        guest_bytes: kept.guest_bytes,
        template: kept.template.into(),
        leaves: kept.leaves.written(),
        clock_ns,
        vcpus,
        devices: devices.write().map_err(TakeError::from)?,
        runs,
        generation: kept.generation + 1,
    };
    Ok(Taken { state: seal(&state).map_err(TakeError::from)?, memory_len })
}

/// A guest that can be brought back: its state was judged, and every descriptor is of the kind it should be.
#[derive(Debug)]
pub struct Admitted {
    state: LinuxState,
    were: Devices,
    memory: Backing,
    copied: bool,
    devices: Vec<DeviceFile>,
}

/// Why a guest cannot be brought back: the caller's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no such template.
    #[error(transparent)]
    Template(#[from] UnknownTemplate),
    /// The machine was made for a guest of another size.
    #[error(
        "a snapshot of a machine of {of_mib} MiB and {of_cpus} vCPUs, this one has {mib} MiB and {cpus} vCPUs"
    )]
    Size {
        /// Then, memory.
        of_mib: u64,
        /// Then, vCPUs.
        of_cpus: usize,
        /// Now, memory.
        mib: u64,
        /// Now, vCPUs.
        cpus: u8,
    },
    /// Its memory cannot be mapped from a file.
    #[error("memory of huge pages that were set aside takes no snapshot")]
    Pages,
    /// Descriptors, devices.
    #[error("{0}")]
    Parts(String),
}

/// Checks a request and its descriptors: memory or the pager's socket first, then those of the devices.
pub fn admit(
    spec: &LinuxRestore,
    by_pager: bool,
    descriptors: Vec<OwnedFd>,
    room: &Room,
) -> Result<Admitted, Refusal> {
    SandboxName::new(spec.label.as_str()).map_err(|error| Refusal::Parts(format!("label: {error}")))?;
    let state: LinuxState = open(&spec.state)?;
    let mut descriptors = descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(|| Refusal::Parts("no descriptor for the memory".into()))?;
    let (memory, memory_len) = if by_pager {
        // As long as its runs say: what there is of them, the pager knows.
        (Backing::Pager(memory), state.runs.iter().map(|run| run.len).fold(0, u64::saturating_add))
    } else {
        let len = sealed_len("the memory", &memory).map_err(Refusal::Parts)?;
        (Backing::File(memory), len)
    };
    let were = state.check(memory_len)?;
    if (state.memory_bytes, state.vcpus.len()) != (room.memory_bytes, room.cpus.into()) {
        let (of_mib, of_cpus) = (state.memory_bytes >> 20, state.vcpus.len());
        return Err(Refusal::Size { of_mib, of_cpus, mib: room.memory_bytes >> 20, cpus: room.cpus });
    }
    if !room.small_pages {
        return Err(Refusal::Pages);
    }
    if by_pager && spec.copied {
        return Err(Refusal::Parts("memory that a pager brings is not copied".into()));
    }
    let (then, now) = (were.virtio.len(), spec.devices.len());
    if then != now || were.io_apic.lines.len() != virtio_gsi(now) as usize {
        return Err(Refusal::Parts(format!("{then} devices were written down, {now} are given")));
    }
    if !by_pager {
        load::refuse_paged(&spec.devices).map_err(Refusal::Parts)?;
    }
    let devices = load::devices(&spec.devices, descriptors, room).map_err(Refusal::Parts)?;
    Ok(Admitted { state, were, memory, copied: spec.copied, devices })
}

/// A guest that was brought back and holds still, all but its registers.
#[derive(Debug)]
pub struct Resumed {
    /// For the threads.
    pub loaded: Loaded,
    /// By vCPU.
    pub vcpus: Vec<VcpuState>,
    /// KVM's clock as it was.
    pub clock_ns: u64,
}

impl Machine {
    /// Brings memory and devices back. From here on a page of memory may be one that `pages` are waited for.
    pub fn resume(
        mut self,
        admitted: Admitted,
        pages: Option<&Pages>,
        lines: Outgoing<()>,
    ) -> Result<Resumed, LinuxError> {
        let Admitted { state, were, memory, copied, mut devices } = admitted;
        let template =
            Template::named(&state.template).map_err(|error| LinuxError::Other(error.to_string()))?;
        let leaves = self.leaves(template)?;
        if let Some(at) = difference(&leaves.written(), &state.leaves) {
            let name = template.name;
            return Err(LinuxError::Other(format!(
                "the snapshot was made on another kind of processor: {name} differs in leaf {at}"
            )));
        }
        let by_pager = matches!(memory, Backing::Pager(_));
        match memory {
            Backing::File(memory) if copied => self.copy(state.memory_bytes, &state.runs, &memory)?,
            Backing::File(memory) => self.map(&state.runs, &memory)?,
            Backing::Pager(socket) => {
                let pages = pages.ok_or(PagerError::NotStartedForIt)?;
                devices = pages.begin((&self.ram, &state.runs), socket, devices)?;
            }
        }
        let parts = self.furnish(devices, state.guest_bytes, lines, Some(&were))?;
        let start = Start {
            bus: parts.bus.clone(),
            leaves: leaves.clone(),
            first: First::Wait,
            filling: filling::Shared::new(None, self.ram.clone()),
        };
        let mut kept = self.kept(&parts, (template.name, leaves), state.guest_bytes, state.generation);
        kept.paged = by_pager;
        let LinuxState { vcpus, clock_ns, .. } = state;
        if !by_pager && !copied {
            let keeps_writes = parts.keeps_writes;
            kept.image =
                Some(Box::new(Image { vcpus: vcpus.clone(), devices: were, clock_ns, keeps_writes }));
        }
        let loaded = Loaded::new(start, parts, kept);
        Ok(Resumed { loaded, vcpus, clock_ns })
    }

    fn copy(&self, bytes: u64, runs: &[Run], memory: &OwnedFd) -> Result<(), LinuxError> {
        for bank in banks(bytes) {
            self.ram.advise_huge(bank.gpa, bank.len);
        }
        let mut offset = 0;
        for run in runs {
            let filled = self.ram.fill(memory.as_fd(), offset, run.gpa, run.len);
            filled.map_err(|source| LinuxError::Read { what: "the snapshot's memory", source })?;
            offset += run.len;
        }
        Ok(())
    }

    fn map(&self, runs: &[Run], memory: &OwnedFd) -> Result<(), MachineError> {
        let mut offset = 0;
        for run in runs {
            let file = (memory.as_fd(), offset);
            self.ram.map_file("the snapshot's memory", run.gpa, run.len, file, FileUse::CopyOnWrite)?;
            offset += run.len;
        }
        Ok(())
    }
}

/// The last of it, once every vCPU has its registers and before one runs.
pub fn wake(
    kept: &Kept,
    events: &mut Tellings,
    clock_ns: u64,
    fresh: Generation,
) -> Result<(), MachineError> {
    set_clock(&kept.vm, clock_ns)?;
    events.begin_generation(fresh)?;
    for device in &kept.bus.devices {
        device.tell_news();
        device.ring();
    }
    Ok(())
}

fn set_clock(vm: &VmFd, clock: u64) -> Result<(), MachineError> {
    vm.set_clock(&kvm_clock_data { clock, ..Default::default() })
        .map_err(|source| MachineError::Kvm { step: "set the clock", source })
}

pub(super) fn banks(memory_bytes: u64) -> Vec<Area> {
    let Some(banks) = Banks::new(memory_bytes) else { return Vec::new() };
    let all = [Area { gpa: 0, len: banks.low }, Area { gpa: HIGH_BASE, len: banks.high }];
    all.into_iter().filter(|bank| bank.len > 0).collect()
}

/// The first leaf that is not the same in both.
fn difference(one: &[Leaf], other: &[Leaf]) -> Option<String> {
    let longer = one.len().max(other.len());
    let at = (0..longer).find(|at| one.get(*at) != other.get(*at))?;
    let (leaf, index) = one.get(at).or_else(|| other.get(at))?.at;
    Some(format!("{leaf:#x}.{index}"))
}
