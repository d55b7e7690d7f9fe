//! Where an exit of a vCPU goes: ports and windows, in one table each.
//!
//! As on a PC, what nobody answers reads as all ones and takes writes in silence: stock kernels probe.

use super::console::Console;
use super::interrupts::Interrupts;
use super::virtio::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_abi::window::PAGE_SIZE;
use warren_boot::linux::layout::{
    IO_APIC, KEYBOARD_PORT, RESET_PORT, S5_TYPE, SERIAL_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT,
    VIRTIO_BASE, VIRTIO_STRIDE,
};
use warren_devices::keyboard::Keyboard;
use warren_devices::power::{PowerEvent, sleep_control};

/// Registers of a serial port.
const SERIAL_PORTS: u16 = 8;

/// Everything a vCPU can reach outside its memory.
#[derive(Debug)]
pub struct Bus {
    /// The serial port.
    pub console: Arc<Console>,
    /// The keyboard controller.
    pub keyboard: Mutex<Keyboard>,
    /// virtio-mmio devices in the order of their windows.
    pub devices: Vec<Arc<Device>>,
    /// The I/O APIC.
    pub interrupts: Arc<Interrupts>,
}

impl Bus {
    /// A read of a port.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xFF);
        let Some(first) = data.first_mut() else { return };
        *first = match port {
            RESET_PORT => self.keyboard().status(),
            KEYBOARD_PORT => self.keyboard().read(),
            SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT => 0,
            port => match serial_register(port) {
                Some(register) => self.console.read(register),
                None => return,
            },
        };
    }

    /// A write of a port; what the guest asks for by it, if that ends it. A string instruction brings several bytes.
    #[must_use]
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<PowerEvent> {
        data.iter().find_map(|value| match port {
            RESET_PORT => self.keyboard().command(*value),
            SLEEP_CONTROL_PORT => sleep_control(*value, S5_TYPE),
            KEYBOARD_PORT => {
                self.keyboard().write(*value);
                None
            }
            port => {
                if let Some(register) = serial_register(port) {
                    self.console.write(register, *value);
                }
                None
            }
        })
    }

    /// A read of a window.
    pub fn window_read(&self, address: u64, data: &mut [u8]) {
        match (self.device(address), in_controller(address)) {
            (Some((device, offset)), _) => device.read(offset, data),
            (None, Some(offset)) => self.interrupts.read(offset, data),
            (None, None) => data.fill(0xFF),
        }
    }

    /// A write of a window.
    pub fn window_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.device(address) {
            device.write(offset, data);
        } else if let Some(offset) = in_controller(address) {
            self.interrupts.write(offset, data);
        }
    }

    /// The keyboard controller.
    pub fn keyboard(&self) -> MutexGuard<'_, Keyboard> {
        // Each access leaves it consistent, so a panicked holder leaves nothing to repair.
        self.keyboard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self, address: u64) -> Option<(&Device, u64)> {
        let at = address.checked_sub(VIRTIO_BASE)?;
        let device = self.devices.get(usize::try_from(at / VIRTIO_STRIDE).ok()?)?;
        Some((device, at % VIRTIO_STRIDE))
    }
}

/// Where in the I/O APIC's page.
fn in_controller(address: u64) -> Option<u64> {
    address.checked_sub(IO_APIC.into()).filter(|offset| *offset < PAGE_SIZE)
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port.checked_sub(SERIAL_PORT)?;
    (register < SERIAL_PORTS).then(|| u8::try_from(register).ok())?
}
