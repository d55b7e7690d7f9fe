//! `vm-cold`, `vm-warm`: one microVM with the real guest and a real function, in this process, without a jail.

pub(crate) mod fetch;
mod parts;

pub(crate) use parts::Parts;

use crate::{
    Places,
    floors::kvm::{self, ExitFloor, memfd},
    report::Report,
    stats::Samples,
};
use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::Kvm;
use rustix::fd::OwnedFd;
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use std::{
    any::Any,
    fs::File,
    time::{Duration, Instant, SystemTime},
};
use warren_abi::mailbox::{EventHeader, ReplyBody};
use warren_boot::entry::EntryState;
use warren_chunks::{cut::FileSource, linear::Linear};
use warren_state::wasm::WasmState;
use warren_vmm::{
    bare::Bare,
    cpu::{Cpu, Stop},
    machine::{Machine, MachineOptions, Start},
    mailbox::Mailbox,
    seeds::Seeds,
    snapshot::{self, Resume, Source},
};
use warren_vmm_protocol::World;

const EVENT: &[u8] = br#"{"name":"bench"}"#;

/// A VM that has said Ready.
pub(crate) struct Running {
    cpu: Cpu,
    mailbox: Mailbox,
    seeds: Seeds,
    events: u64,
    generation: u64,
    entry: EntryState,
    machine: Vessel,
}

/// What a VM was made as; a service of the monitor's has one too.
enum Vessel {
    Built(Box<Machine>),
    Bare(Bare, Source),
}

/// Memory of a guest that was written down, at its addresses.
pub(crate) type Memory = Linear<FileSource>;

/// A guest that was written down when it was ready.
pub(crate) struct Snapshot {
    state: Vec<u8>,
    memory: OwnedFd,
    code: OwnedFd,
}

const OPTIONS: MachineOptions = MachineOptions { class_len: 256 << 20, huge_heap: false, bare: false };

impl Snapshot {
    /// Its memory.
    pub(crate) fn linear(&self) -> Result<Memory> {
        let state: WasmState = warren_state::open(&self.state).map_err(anyhow::Error::msg)?;
        let file = FileSource::new(File::from(self.memory.try_clone()?))?;
        Linear::new(file, state.runs.iter().map(|run| (run.gpa, run.len)))
            .context("runs that are not the memory's")
    }
}

impl Running {
    /// Up to where it could take an event.
    pub(crate) fn create(parts: &Parts) -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let (mut machine, mut cpu) = Machine::create(&kvm, &parts.guest, OPTIONS)?;
        let start = machine.load(&parts.spec(), &parts.artefacts()?)?;
        cpu.enter(&start)?;
        let Start { mailbox, entry, .. } = start;
        let machine = Vessel::Built(Box::new(machine));
        let mut running =
            Self { cpu, mailbox, seeds: Seeds::default(), events: 0, generation: 1, entry, machine };
        running.next_event(b"", false)?;
        ensure!(matches!(running.run()?, ReplyBody::Ready { .. }), "the guest is not ready");
        Ok(running)
    }

    /// Writes it down, as the agent would have it.
    pub(crate) fn snapshot(&mut self, parts: &Parts) -> Result<Snapshot> {
        let cpu = self.cpu.save(&self.entry)?;
        let Vessel::Built(machine) = &self.machine else { anyhow::bail!("a restored guest") };
        let memory = memfd("memory", &[])?;
        ftruncate(&memory, OPTIONS.class_len)?;
        let taken = snapshot::take(machine, cpu, 2, memory.try_clone()?)?;
        ftruncate(&memory, taken.memory_len)?;
        let code = parts.copy_of_code()?;
        for fd in [&memory, &code] {
            fcntl_add_seals(fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
        }
        Ok(Snapshot { state: taken.state, memory, code })
    }

    /// A guest that was written down, in a VM that is bare; up to where it could take an event.
    fn restore((mut bare, mut cpu): (Bare, Cpu), snapshot: &Snapshot) -> Result<Self> {
        let descriptors = vec![snapshot.memory.try_clone()?, snapshot.code.try_clone()?];
        let admitted = snapshot::admit(&snapshot.state, false, descriptors).map_err(anyhow::Error::msg)?;
        let (resume, source) = snapshot::restore(&mut bare, admitted, None)?;
        cpu.resume(&resume)?;
        let Resume { entry, mailbox, generation, .. } = resume;
        let machine = Vessel::Bare(bare, source);
        Ok(Self { cpu, mailbox, seeds: Seeds::default(), events: 0, generation, entry, machine })
    }

    /// The same guest once more, in the VM that it is in; up to where it could take an event.
    fn reset(&mut self) -> Result<()> {
        let Vessel::Bare(bare, Source::Image(image)) = &mut self.machine else {
            anyhow::bail!("no snapshot's guest")
        };
        self.cpu.forget()?;
        let resume = image.again(bare)?;
        self.cpu.resume(&resume)?;
        let Resume { entry, mailbox, generation, .. } = resume;
        (self.entry, self.mailbox, self.generation, self.events) = (entry, mailbox, generation, 0);
        Ok(())
    }

    /// Puts an event; `counted` is false for the clock and seed that init gets.
    fn next_event(&mut self, payload: &[u8], counted: bool) -> Result<()> {
        self.events += u64::from(counted);
        let seed = self.seeds.draw()?;
        self.mailbox.put_context(b"{}")?;
        self.mailbox.put_payload(2, 0, payload)?;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let header = EventHeader {
            sequence: self.events,
            generation: self.generation,
            wall_ns: u64::try_from(wall.as_nanos())?,
            context_len: 2,
            payload_len: u32::try_from(payload.len())?,
            seed,
            ..EventHeader::default()
        };
        Ok(self.mailbox.put_event(&header)?)
    }

    fn run(&mut self) -> Result<ReplyBody> {
        let ram = warren_vmm::ram::Ram::empty();
        let stop = self.cpu.run(&ram);
        ensure!(matches!(stop, Stop::Doorbell), "the guest stopped: {stop:?}");
        match self.mailbox.reply()? {
            Ok(reply) => Ok(reply.body),
            Err(fault) => anyhow::bail!("the guest broke the contract: {fault:?}"),
        }
    }

    /// One event, in to out.
    pub(crate) fn call(&mut self) -> Result<()> {
        self.next_event(EVENT, true)?;
        match self.run()? {
            ReplyBody::Response { payload_len } => {
                let response = self.mailbox.response(payload_len)?;
                ensure!(response.windows(5).any(|word| word == b"bench"), "a wrong answer");
                Ok(())
            }
            other => anyhow::bail!("the guest answered {other:?}"),
        }
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let began = Instant::now();
    let value = work()?;
    Ok((began.elapsed(), value))
}

/// VMs that have been measured. Making a VM after one was dropped waits for the kernel to be done with that, so they are
/// dropped many at once, and a VM that nobody measures takes the wait.
#[derive(Default)]
struct Buried(Vec<Box<dyn Any>>);

impl Buried {
    const MOST: usize = 16;

    fn bury(&mut self, vm: impl Any) -> Result<()> {
        self.0.push(Box::new(vm));
        if self.0.len() >= Self::MOST {
            self.0.clear();
            self.0.push(Box::new(kvm::create_to_first_exit()?));
        }
        Ok(())
    }
}

/// From nothing to the first response, each beside one `kvm-floor`; and the second event, whose memory is the first that
/// was used before. Teardown is not counted.
pub(crate) fn cold(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let parts = Parts::compile(places, "hello", World::WasiPreview1)?;
    let [mut cold, mut ready, mut second, mut floor] = [const { Samples::new() }; 4];
    let mut buried = Buried::default();
    let mut exits = 0;
    for run in 0..runs + 3 {
        let began = Instant::now();
        let mut vm = Running::create(&parts)?;
        let to_ready = began.elapsed();
        vm.call()?;
        let to_response = began.elapsed();
        exits = vm.cpu.exits();
        let (again, ()) = timed(|| vm.call())?;
        buried.bury(vm)?;
        let (least, bare) = kvm::create_to_first_exit()?;
        buried.bury(bare)?;
        if run >= 3 {
            ready.push(to_ready);
            cold.push(to_response);
            second.push(again);
            floor.push(least);
        }
    }
    report.floor("vm-cold", "kvm-floor", &floor);
    let least = ("kvm-floor", floor.p50_us());
    report.times("vm-cold", "ready", &ready, least, "");
    report.times("vm-cold", "cold", &cold, least, "<= 5x local, <= 3x lab");
    report.times("vm-cold", "second", &second, least, "");
    report.count("vm-cold", "exits", exits, 1);
    Ok(())
}

/// From a snapshot to the first response, each beside one `kvm-floor`: in a VM made then, in one made before, and in one whose guest
/// has served an event and is put back.
pub(crate) fn restore(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let parts = Parts::compile(places, "hello", World::WasiPreview1)?;
    let mut first = Running::create(&parts)?;
    let snapshot = first.snapshot(&parts)?;
    first.call().context("the guest that was written down goes on")?;
    let bare = || -> Result<(Bare, Cpu)> {
        Ok(Bare::with_program(&Kvm::new().context("/dev/kvm")?, &parts.guest, OPTIONS)?)
    };
    let [mut new, mut pooled, mut reset, mut ready, mut floor] = [const { Samples::new() }; 5];
    let mut buried = Buried::default();
    for run in 0..runs + 3 {
        let began = Instant::now();
        let mut vm = Running::restore(bare()?, &snapshot)?;
        let to_ready = began.elapsed();
        vm.call()?;
        let to_response = began.elapsed();
        buried.bury(vm)?;
        let (mut waiting, mut cpu) = bare()?;
        if let Some(rehearsal) = waiting.rehearse()? {
            rehearsal.perform(&mut cpu)?;
        }
        let waiting = (waiting, cpu);
        let (from_pool, mut vm) = timed(|| {
            let mut vm = Running::restore(waiting, &snapshot)?;
            vm.call()?;
            Ok(vm)
        })?;
        let (put_back, ()) = timed(|| {
            vm.reset()?;
            vm.call()
        })?;
        buried.bury(vm)?;
        let (least, floor_vm) = kvm::create_to_first_exit()?;
        buried.bury(floor_vm)?;
        if run >= 3 {
            ready.push(to_ready);
            new.push(to_response);
            pooled.push(from_pool);
            reset.push(put_back);
            floor.push(least);
        }
    }
    report.floor("vm-restore", "kvm-floor", &floor);
    let least = ("kvm-floor", floor.p50_us());
    report.times("vm-restore", "ready", &ready, least, "");
    report.times("vm-restore", "new", &new, least, "<= 2.5x local, <= 1.2x lab");
    report.times("vm-restore", "pooled", &pooled, least, "<= 1.5x local, <= 0.5x lab");
    report.times("vm-restore", "reset", &reset, least, "");
    let memory = rustix::fs::fstat(&snapshot.memory)?.st_size;
    report.count("vm-restore", "memory-kib", u64::try_from(memory)? >> 10, 1);
    Ok(())
}

/// Event in to response out in each world, each beside one `exit-floor`.
pub(crate) fn warm(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    const WORLDS: [(&str, &str, &str, World); 2] = [
        ("warm-p1", "exits-p1", "hello", World::WasiPreview1),
        ("warm-component", "exits-component", "hello-component", World::Component),
    ];
    let mut exit = ExitFloor::new()?;
    let mut floor = Samples::default();
    let mut measured = Vec::new();
    for (warm, exits, function, world) in WORLDS {
        let vm = Running::create(&Parts::compile(places, function, world)?)?;
        measured.push((warm, exits, vm, Samples::default(), 0));
    }
    for run in 0..runs + 100 {
        for (_, _, vm, samples, exits) in &mut measured {
            let before = vm.cpu.exits();
            let (took, ()) = timed(|| vm.call())?;
            if run >= 100 {
                samples.push(took);
                *exits += vm.cpu.exits() - before;
            }
        }
        let least = exit.round_trip()?;
        if run >= 100 {
            floor.push(least);
        }
    }
    report.floor("vm-warm", "exit-floor", &floor);
    let least = ("exit-floor", floor.p50_us());
    for (warm, exits, _, samples, count) in &measured {
        report.times("vm-warm", warm, samples, least, "<= 1.15x local, <= 5x lab");
        report.count("vm-warm", exits, *count, samples.len());
    }
    Ok(())
}
