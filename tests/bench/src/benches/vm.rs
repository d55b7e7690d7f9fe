//! `vm-cold`, `vm-warm`: one microVM with the real guest and a real function, in this process, without a jail.

use crate::{
    Places,
    floors::kvm::{self, ExitFloor, load_spec, memfd},
    report::Report,
    stats::Samples,
};
use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::Kvm;
use rustix::{fd::OwnedFd, rand::GetRandomFlags};
use std::{
    fs::{self, File},
    process::Command,
    time::{Duration, Instant, SystemTime},
};
use warren_abi::mailbox::{EventHeader, ReplyBody};
use warren_vmm::{
    cpu::{Cpu, Stop},
    machine::{Artefacts, Machine, MachineOptions},
    mailbox::Mailbox,
};
use warren_vmm_protocol::World;

const EVENT: &[u8] = br#"{"name":"bench"}"#;

/// What every VM of a bench is made from.
struct Parts {
    guest: File,
    code: OwnedFd,
    code_len: u64,
}

impl Parts {
    fn compile(places: &Places) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("hello.cwasm");
        let status = Command::new(places.bin.join("warren-compile"))
            .arg("file")
            .arg(places.functions.join("hello.wasm"))
            .arg("-o")
            .arg(&out)
            .args(["--purpose", "function", "--isa", "host"])
            .status()
            .context("warren-compile: run `cargo xtask build`")?;
        ensure!(status.success(), "warren-compile ended with {status}");
        let code = fs::read(&out)?;
        let guest = File::open(places.bin.join("warren-guest"))?;
        Ok(Self { guest, code_len: code.len() as u64, code: memfd("code", &code)? })
    }
}

/// A VM that has said Ready.
struct Running {
    cpu: Cpu,
    mailbox: Mailbox,
    events: u64,
    _machine: Machine,
}

impl Running {
    fn create(parts: &Parts) -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let options = MachineOptions { class_len: 256 << 20, huge_heap: false };
        let (mut machine, mut cpu) = Machine::create(&kvm, &parts.guest, options)?;
        let artefacts = Artefacts { code: parts.code.try_clone()?, task: None };
        let start = machine.load(&load_spec(parts.code_len, World::WasiPreview1), &artefacts)?;
        cpu.enter(&start)?;
        let mailbox = start.mailbox;
        let mut running = Self { cpu, mailbox, events: 0, _machine: machine };
        running.next_event(b"", false)?;
        ensure!(running.run()? == ReplyBody::Ready, "the guest is not ready");
        Ok(running)
    }

    /// Puts an event; `counted` is false for the clock and seed that init gets.
    fn next_event(&mut self, payload: &[u8], counted: bool) -> Result<()> {
        self.events += u64::from(counted);
        let mut seed = [0; 32];
        rustix::rand::getrandom(&mut seed, GetRandomFlags::empty())?;
        self.mailbox.put_context(b"{}")?;
        self.mailbox.put_payload(2, 0, payload)?;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let header = EventHeader {
            sequence: self.events,
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
    fn call(&mut self) -> Result<()> {
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

/// From nothing to the first response, each beside one `kvm-floor`. Teardown is not counted.
pub(crate) fn cold(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let parts = Parts::compile(places)?;
    let (mut cold, mut ready, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..runs + 3 {
        let began = Instant::now();
        let mut vm = Running::create(&parts)?;
        let to_ready = began.elapsed();
        vm.call()?;
        let to_response = began.elapsed();
        drop(vm);
        let least = kvm::create_to_first_exit()?;
        if run >= 3 {
            ready.push(to_ready);
            cold.push(to_response);
            floor.push(least);
        }
    }
    report.floor("vm-cold", "kvm-floor", &floor);
    let least = ("kvm-floor", floor.p50_us());
    report.times("vm-cold", "ready", &ready, least, "");
    report.times("vm-cold", "cold", &cold, least, "<= 5x local, <= 3x lab");
    Ok(())
}

/// Event in to response out, each beside one `exit-floor`.
pub(crate) fn warm(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let parts = Parts::compile(places)?;
    let (mut vm, mut exit) = (Running::create(&parts)?, ExitFloor::new()?);
    let (mut warm, mut floor) = (Samples::default(), Samples::default());
    for run in 0..runs + 100 {
        let (took, ()) = timed(|| vm.call())?;
        let least = exit.round_trip()?;
        if run >= 100 {
            warm.push(took);
            floor.push(least);
        }
    }
    report.floor("vm-warm", "exit-floor", &floor);
    report.times("vm-warm", "warm", &warm, ("exit-floor", floor.p50_us()), "<= 1.15x local, <= 5x lab");
    Ok(())
}
