//! What is the same in a guest that begins and in one that is brought back: interrupt lines, console and devices in their
//! windows, and which thread works on which.

use super::bus::Bus;
use super::console::Console;
use super::events::Tellings;
use super::interrupts::{Interrupts, Line, Vm};
use super::load::DeviceFile;
use super::machine::{LinuxError, Machine};
use super::network::Front;
use super::virtio::Device;
use super::virtio::balloon::{self, Balloon};
use super::virtio::block::Block;
use super::virtio::mem::{self, Mem};
use super::virtio::net::Net;
use super::virtio::overlay::Under;
use super::virtio::rng::Rng;
use super::virtio::vsock::Vsock;
use super::windows::Kind;
use super::worker::Work;
use crate::orders::Outgoing;
use std::sync::{Arc, Mutex};
use warren_boot::linux::layout::{GENERATION_GSI, POWER_GSI, SERIAL_GSI, virtio_gsi};
use warren_devices::virtio::Identity;
use warren_state::linux::device::{Devices, VirtioState};

/// A guest's devices, and who works on them.
#[derive(Debug)]
pub struct Furnished {
    /// Where exits go.
    pub bus: Arc<Bus>,
    /// What the guest is told.
    pub events: Tellings,
    /// For the worker.
    pub work: Vec<Work>,
    /// For a thread each.
    pub disks: Vec<Work>,
    /// For the network thread.
    pub network: Vec<(Arc<Device>, Front)>,
    /// A disk's content is not all in its file.
    pub overlaid: bool,
    /// A disk keeps what is written to it: nobody can put it back.
    pub keeps_writes: bool,
    /// For the main thread, of a guest that has one.
    pub balloon: Option<balloon::Handle>,
    /// The same.
    pub memory: Option<mem::Handle>,
}

impl Machine {
    /// Puts devices in; of a guest with so much memory, which goes on where its devices `were`, or begins. `lines` rings when
    /// the console has some.
    pub(super) fn furnish(
        &mut self,
        devices: Vec<DeviceFile>,
        guest_bytes: u64,
        lines: Outgoing<()>,
        were: Option<&Devices>,
    ) -> Result<Furnished, LinuxError> {
        let to = Arc::new(Vm::new(Arc::clone(&self.vm)));
        let interrupts = match were {
            Some(were) => Interrupts::resumed(&were.io_apic, to),
            None => Interrupts::new(virtio_gsi(devices.len()) as usize, to),
        };
        let console = Arc::new(Console::new(interrupts.line(SERIAL_GSI), lines));
        let overlaid = devices.iter().any(|device| matches!(device, DeviceFile::Block { base: Some(_), .. }));
        let keeps_writes = devices
            .iter()
            .any(|device| matches!(device, DeviceFile::Block { base: None, read_only: false, .. }));
        let (mut windows, mut network) = (Vec::new(), Vec::new());
        let (mut work, mut disks) = (Vec::<Work>::new(), Vec::<Work>::new());
        let (mut balloon, mut memory) = (None, None);
        for (index, device) in devices.into_iter().enumerate() {
            let place = Place { index, line: interrupts.line(virtio_gsi(index)), was: virtio(were, index) };
            windows.push(match device {
                DeviceFile::Block { file, base, len, read_only, limits } => {
                    let name = format!("disk{index}");
                    let under = base.map(|base| Under::new(base, len)).transpose()?;
                    let block = Block::new(name.clone(), file, len, read_only, limits).over(under);
                    let device = self.attach(place, Kind::Block, name, block.identity())?;
                    disks.push((Arc::clone(&device), Box::new(block)));
                    device
                }
                DeviceFile::Rng => {
                    let device = self.attach(place, Kind::Rng, format!("rng{index}"), Rng::identity())?;
                    work.push((Arc::clone(&device), Box::new(Rng)));
                    device
                }
                DeviceFile::Memory { requested } => {
                    let blocks = self.blocks.clone();
                    let device =
                        self.attach(place, Kind::Mem, "memory".into(), mem::identity(&blocks, requested))?;
                    let back = Mem::new(blocks, Arc::clone(&device));
                    memory = Some(back.handle());
                    work.push((Arc::clone(&device), Box::new(back)));
                    device
                }
                DeviceFile::Balloon { reports_free } => {
                    let back = Balloon::new(reports_free);
                    let device = self.attach(place, Kind::Balloon, "balloon".into(), back.identity())?;
                    balloon = Some(back.handle(Arc::clone(&device), guest_bytes));
                    work.push((Arc::clone(&device), Box::new(back)));
                    device
                }
                DeviceFile::Net { tap, mac, receive, send } => {
                    let front = Net::new(tap, mac, receive, send);
                    let device = self.attach(place, Kind::Net, format!("net{index}"), front.identity())?;
                    network.push((Arc::clone(&device), Front::Net(Box::new(front))));
                    device
                }
                DeviceFile::Vsock { guest_cid } => {
                    let mut front = Vsock::new(guest_cid);
                    if place.was.is_some() {
                        front.interrupt();
                    }
                    let device = self.attach(place, Kind::Vsock, "vsock".into(), front.identity())?;
                    network.push((Arc::clone(&device), Front::Vsock(Box::new(front))));
                    device
                }
            });
        }
        let (button, generation) = (interrupts.line(POWER_GSI), interrupts.line(GENERATION_GSI));
        let ram = self.ram.clone();
        let events = match were {
            Some(were) => Tellings::resumed(ram, button, generation, were.clock),
            None => Tellings::new(ram, button, generation, self.generation)?,
        };
        let keyboard = Mutex::new(were.map(|were| were.keyboard.clone()).unwrap_or_default());
        if let Some(were) = were {
            console.resume(were.console.clone());
        }
        let bus = Arc::new(Bus { console, keyboard, devices: windows, interrupts });
        Ok(Furnished { bus, events, work, disks, network, overlaid, keeps_writes, balloon, memory })
    }

    fn attach(
        &mut self,
        place: Place<'_>,
        kind: Kind,
        name: String,
        identity: Identity,
    ) -> Result<Arc<Device>, LinuxError> {
        let doorbells = self.windows.take(&self.vm, place.index, kind)?;
        let device = Device::new(name.clone(), identity, place.line, doorbells, self.ram.clone());
        if let Some(was) = place.was {
            device.resume(was).map_err(|source| LinuxError::Device { name, source })?;
        }
        Ok(Arc::new(device))
    }
}

/// Where a device goes, and what was written down of it.
struct Place<'a> {
    index: usize,
    line: Line,
    was: Option<&'a VirtioState>,
}

fn virtio(were: Option<&Devices>, index: usize) -> Option<&VirtioState> {
    were.and_then(|were| were.virtio.get(index))
}
