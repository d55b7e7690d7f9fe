//! A guest put back to the snapshot that it was brought back from, in the machine it is in, as another generation.
//!
//! ```text
//!  vCPUs held -> devices at rest -> their working halves begin again -> memory -> devices' registers and interrupts -> vCPUs'
//!  registers -> clock -> another generation -> doorbells -> go
//!   '-- what does not come to rest: it goes on -'  '------- what fails: the process ends --------------------------'
//! ```
//! - **Of what the guest did since nothing is left**: not in memory, whose pages are the snapshot's file's again; not in registers; not
//!   on disks, whose own sectors are the base's again; no stream, and no frame that was on its way to it.
//! - A disk that keeps what is written to it cannot be put back, nor can memory that a pager brings: such a guest is not.

use super::events::{Generation, Tellings};
use super::machine::Kept;
use super::rest::Rest;
use super::snapshot::{PATIENCE, banks, come_to_rest, go_on, wake};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt::Display;
use warren_state::linux::device::Devices;
use warren_state::linux::vcpu::VcpuState;

/// What a guest was brought back from, but for its memory, which is mapped.
#[derive(Debug)]
pub struct Image {
    /// By vCPU.
    pub vcpus: Vec<VcpuState>,
    /// All of them.
    pub devices: Devices,
    /// KVM's clock.
    pub clock_ns: u64,
    /// A disk keeps what is written to it: nobody can put it back.
    pub keeps_writes: bool,
}

/// Why a guest was not put back.
#[derive(Debug)]
pub enum NotPutBack {
    /// It goes on as if nobody had asked.
    Goes(String),
    /// A part of it was.
    Half(String),
}

/// Puts it back; `held` is called between its lives.
pub fn put_back(
    kept: &Kept,
    events: &mut Tellings,
    rest: &Rest,
    held: impl FnOnce(),
) -> Result<(), NotPutBack> {
    let image = judge(kept).map_err(|why| NotPutBack::Goes(why.into()))?;
    let mut fresh = Generation::default();
    getrandom(&mut fresh, GetRandomFlags::empty()).map_err(|error| NotPutBack::Goes(error.to_string()))?;
    if let Err(why) = come_to_rest(kept, rest) {
        go_on(kept, rest);
        return Err(NotPutBack::Goes(why.to_string()));
    }
    held();
    undo(kept, image, events, rest).map_err(NotPutBack::Half)?;
    wake(kept, events, image.clock_ns, fresh).map_err(half)?;
    go_on(kept, rest);
    Ok(())
}

/// Whether it can be.
fn judge(kept: &Kept) -> Result<&Image, &'static str> {
    if kept.paged {
        return Err("a guest whose memory a pager brings is not put back");
    }
    let image = kept.image.as_ref().ok_or("no guest was restored here, or its memory is a copy")?;
    if image.keeps_writes {
        return Err("a guest with a disk that keeps what is written to it is not put back");
    }
    Ok(image)
}

/// All but the last of it.
fn undo(kept: &Kept, image: &Image, events: &mut Tellings, rest: &Rest) -> Result<(), String> {
    let bus = &kept.bus;
    let said = |device: &str, error: &dyn Display| format!("{device}: {error}");
    let asked: Vec<_> = bus.devices.iter().map(|device| (device, device.ask_to_begin_again())).collect();
    for (device, answered) in asked {
        let begun = answered.recv_timeout(PATIENCE).map_err(|error| said(device.name(), &error))?;
        begun.map_err(|error| said(device.name(), &error))?;
    }
    for bank in banks(kept.memory_bytes) {
        kept.ram.give_back(bank.gpa, bank.len).map_err(|error| said("memory", &error))?;
    }
    for (device, was) in bus.devices.iter().zip(&image.devices.virtio) {
        device.put_back(was).map_err(|error| said(device.name(), &error))?;
    }
    bus.interrupts.resume(&image.devices.io_apic);
    bus.console.resume(image.devices.console.clone());
    *bus.keyboard() = image.devices.keyboard.clone();
    events.resume(image.devices.clock);
    rest.set(image.vcpus.clone(), PATIENCE).map_err(|error| error.to_string())
}

fn half(error: impl Into<anyhow::Error>) -> NotPutBack {
    NotPutBack::Half(format!("{:#}", error.into()))
}
