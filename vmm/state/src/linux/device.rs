//! Devices as records: kind, version, and what that version says.
//!
//! | kind | version | what |
//! |---|---|---|
//! | 1 | 1 | I/O APIC |
//! | 2 | 1 | serial port, and the line that has no end yet |
//! | 3 | 1 | keyboard controller |
//! | 4 | 1 | clock page |
//! | 16 | 1 | virtio-mmio device; as many as there are, in the order of their windows |
//!
//! A device that changes takes another version, and reads its older ones in [`Devices::read`].

use crate::StateError;
use alloc::vec::Vec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use warren_devices::console::LINE_MAX;
use warren_devices::ioapic::IoApicState;
use warren_devices::keyboard::Keyboard;
use warren_devices::serial::Serial;
use warren_devices::virtio::transport::TransportState;
use warren_devices::vmclock::VmClock;

const IO_APIC: (u16, u16) = (1, 1);
const SERIAL: (u16, u16) = (2, 1);
const KEYBOARD: (u16, u16) = (3, 1);
const CLOCK: (u16, u16) = (4, 1);
const VIRTIO: (u16, u16) = (16, 1);

/// Most virtio devices.
pub const VIRTIO_MAX: usize = 235;
/// Longest configuration space.
const CONFIG_MAX: usize = 256;

/// One device, not read yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    pub kind: u16,
    /// In which version it was written.
    pub version: u16,
    /// Postcard of it.
    pub bytes: Vec<u8>,
}

/// All devices of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Interrupt lines.
    pub io_apic: IoApicState,
    /// The serial port.
    pub console: ConsoleState,
    /// The keyboard controller.
    pub keyboard: Keyboard,
    /// The clock page's changing part.
    pub clock: VmClock,
    /// In the order of their windows.
    pub virtio: Vec<VirtioState>,
}

/// A serial port and what was sent since the last line's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Its registers.
    pub port: Serial,
    /// The line that has no end yet.
    pub line: Vec<u8>,
}

/// A virtio-mmio device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioState {
    /// Its registers.
    pub transport: TransportState,
    /// Its configuration space.
    pub config: Vec<u8>,
    /// How often that changed.
    pub config_generation: u32,
    /// By queue: how many requests were taken and given back, modulo 2^16.
    pub positions: Vec<u16>,
}

impl Devices {
    /// As they are written down.
    pub fn write(&self) -> Result<Vec<Record>, StateError> {
        let mut records = alloc::vec![
            Record::of(IO_APIC, &self.io_apic)?,
            Record::of(SERIAL, &self.console)?,
            Record::of(KEYBOARD, &self.keyboard)?,
            Record::of(CLOCK, &self.clock)?,
        ];
        for device in &self.virtio {
            records.push(Record::of(VIRTIO, device)?);
        }
        Ok(records)
    }

    /// Reads them: each of the machine's own once and first, virtio devices behind.
    pub fn read(records: &[Record]) -> Result<Self, StateError> {
        let [io_apic, console, keyboard, clock, virtio @ ..] = records else {
            return Err(StateError::Rule("a device is missing"));
        };
        if virtio.len() > VIRTIO_MAX {
            return Err(StateError::Rule("too many devices"));
        }
        Ok(Self {
            io_apic: io_apic.read(IO_APIC)?,
            console: console.read(SERIAL)?,
            keyboard: keyboard.read(KEYBOARD)?,
            clock: clock.read(CLOCK)?,
            virtio: virtio.iter().map(|record| record.read(VIRTIO)).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn are_sound(&self) -> bool {
        let console = &self.console;
        self.io_apic.is_sound()
            && console.port.is_sound()
            && console.line.len() < LINE_MAX
            && !console.line.contains(&b'\n')
            && self.clock.is_sound()
            && self.virtio.iter().all(VirtioState::is_sound)
    }
}

impl VirtioState {
    fn is_sound(&self) -> bool {
        self.transport.is_sound()
            && self.config.len() <= CONFIG_MAX
            && self.positions.len() == self.transport.queues.len()
    }
}

impl Record {
    fn of<T: Serialize>((kind, version): (u16, u16), device: &T) -> Result<Self, StateError> {
        let bytes = postcard::to_allocvec(device).map_err(|_| StateError::Malformed)?;
        Ok(Self { kind, version, bytes })
    }

    fn read<T: DeserializeOwned>(&self, (kind, version): (u16, u16)) -> Result<T, StateError> {
        if self.kind != kind {
            return Err(StateError::Rule("devices out of order"));
        }
        if self.version != version {
            return Err(StateError::Device { kind: self.kind, version: self.version });
        }
        match postcard::take_from_bytes(&self.bytes) {
            Ok((device, [])) => Ok(device),
            _ => Err(StateError::Malformed),
        }
    }
}
