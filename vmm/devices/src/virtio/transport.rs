//! The virtio-mmio transport (virtio 1.2, 4.2), version 2 only.
//!
//! ```text
//!          ACKNOWLEDGE          DRIVER         FEATURES_OK             DRIVER_OK
//!  Reset -------------> Found ---------> Known ------------> Agreed -----------------> Live
//!    ^                    |                |   (subset with    |   (queues frozen)      |
//!    |                    |                |    VERSION_1)     |                        |
//!    +---- status := 0 ---+----------------+-------------------+------------------------+
//! ```
//! - **Reset**, **Found**: nothing can be set but the selectors.
//! - **Known**: the driver says which features it takes. FEATURES_OK sticks only if they were offered and VERSION_1 is
//!   among them; a driver that reads it back as clear knows that it failed (3.1.1).
//! - **Agreed**: queues are described. A queue that is made ready is judged (size, alignment, no wrapping) and frozen
//!   until it is made unready; one that breaks a rule stays unready.
//! - **Live**: the device has the queues and works; no register but the notification, the interrupt's
//!   acknowledgement and the status has an effect any more. [`Effect::Activate`] carries what was frozen.
//! - Bits can be added to the status in this order and in no other; a write that clears bits, skips one or sets an
//!   unknown one changes nothing. FAILED may be set anywhere and is the driver's own business.
//! - **Needs reset**: not a state but [`Signals::needs_reset`], which the device sets when the driver broke a rule of the
//!   rings. The device has stopped then; only a reset clears it.
//! - A write of 0 resets at once. [`Effect::Reset`] tells the device, which must have stopped before the guest runs on.
//! - The configuration space ([`Config`]) stands beside: it changes while the device works. A driver may write to it from
//!   **Agreed** on ([`Effect::Configure`]), and hears of changes when it is **Live**.

mod state;

pub use state::{Mismatch, TransportState};

use super::config::Config;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use serde::{Deserialize, Serialize};

/// Reads as "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "WRRN".
const VENDOR: u32 = 0x4E52_5257;

/// Registers (table 4.1).
mod register {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR_ID: u64 = 0x00C;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0A0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0A4;
    /// Shared memory: length and base of a region; all ones where there is none.
    pub(super) const SHARED_MEMORY: core::ops::RangeInclusive<u64> = 0x0B0..=0x0BC;
}

/// Where a queue is notified: the value written is the queue's number (4.2.2).
pub const QUEUE_NOTIFY: u64 = 0x050;
/// Counts changes of the configuration space.
pub const CONFIG_GENERATION: u64 = 0x0FC;
/// Where the configuration space begins.
pub const CONFIG: u64 = 0x100;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// The lower half of a 64-bit field.
const LOW: u64 = 0xFFFF_FFFF;

/// Interrupt status: a queue was used.
pub const INTERRUPT_USED: u32 = 1;
/// Interrupt status: the configuration changed, or the device needs a reset.
pub const INTERRUPT_CONFIG: u32 = 2;

/// What a device is: constant for its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device id (5).
    pub id: u32,
    /// Features offered.
    pub features: u64,
    /// Largest size of each queue, powers of two.
    pub queues: Vec<u16>,
    /// The configuration space, as it is at first.
    pub config: Config,
}

/// What the thread that works sets and the thread that reads registers sees.
#[derive(Debug, Default)]
pub struct Signals {
    /// Interrupt status bits not acknowledged yet.
    pub interrupt: AtomicU32,
    /// The driver broke a rule; the device has stopped.
    pub needs_reset: AtomicBool,
    /// The driver is live: before, it is not to be told of anything (3.1.1).
    pub live: AtomicBool,
}

/// A queue as the driver described it. What an [`Effect::Activate`] holds was judged: its size is a power of two within
/// the maximum, its parts are aligned and do not wrap. Whether they lie in memory is the walker's to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueConfig {
    /// Entries.
    pub size: u16,
    /// Made ready.
    pub ready: bool,
    /// Descriptor table.
    pub descriptors: u64,
    /// Driver area: the available ring.
    pub driver: u64,
    /// Device area: the used ring.
    pub device: u64,
}

/// What the device must do after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Start to work.
    Activate {
        /// Features agreed.
        features: u64,
        /// The queues; those that are not ready are not used.
        queues: Vec<QueueConfig>,
    },
    /// Stop, and forget the queues.
    Reset,
    /// The driver may write to the configuration space, and did.
    Configure,
}

/// The registers of one device.
#[derive(Debug)]
pub struct Transport {
    identity: Identity,
    signals: Arc<Signals>,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueConfig>,
}

impl Transport {
    /// A device in its reset state.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let queues = initial_queues(&identity);
        Self {
            identity,
            signals: Arc::default(),
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues,
        }
    }

    /// What the working thread shares with these registers.
    #[must_use]
    pub fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.signals)
    }

    /// A read of a register, as an aligned word (4.2.2.2); anything else reads as 0.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        if let Ok(word) = <&mut [u8; 4]>::try_from(bytes) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.identity.id,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.identity.features, self.device_features_sel),
            register::QUEUE_NUM_MAX => self.queue_max().unwrap_or(0).into(),
            register::QUEUE_READY => self.queue().is_some_and(|queue| queue.ready).into(),
            register::INTERRUPT_STATUS => self.signals.interrupt.load(Ordering::SeqCst),
            register::STATUS => {
                let broken = self.signals.needs_reset.load(Ordering::SeqCst);
                self.status | if broken { NEEDS_RESET } else { 0 }
            }
            offset if register::SHARED_MEMORY.contains(&offset) => u32::MAX,
            _ => 0,
        }
    }

    /// A write to the window. The read-only registers ignore it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Effect {
        if offset >= CONFIG {
            let agreed =
                self.at(ACKNOWLEDGE | DRIVER | FEATURES_OK) || self.signals.live.load(Ordering::SeqCst);
            return if agreed { Effect::Configure } else { Effect::None };
        }
        let Ok(word) = <[u8; 4]>::try_from(bytes) else {
            return Effect::None;
        };
        let value = u32::from_le_bytes(word);
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::QUEUE_SEL => self.queue_sel = value,
            register::DRIVER_FEATURES if self.at(ACKNOWLEDGE | DRIVER) => {
                set_half(&mut self.driver_features, self.driver_features_sel, value);
            }
            register::INTERRUPT_ACK => {
                self.signals.interrupt.fetch_and(!value, Ordering::SeqCst);
            }
            register::STATUS => return self.set_status(value),
            _ if self.at(ACKNOWLEDGE | DRIVER | FEATURES_OK) => self.describe_queue(offset, value),
            _ => {}
        }
        Effect::None
    }

    /// Whether the status is exactly this, but for FAILED.
    fn at(&self, status: u32) -> bool {
        self.status & !FAILED == status
    }

    fn set_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Reset;
        }
        self.status |= value & FAILED;
        let old = self.status & !FAILED;
        // The driver writes back what it read: the device's own bit counts for nothing.
        let step = (value & !(FAILED | NEEDS_RESET)) ^ old;
        let next = match old {
            0 => ACKNOWLEDGE,
            ACKNOWLEDGE => DRIVER,
            3 if self.features_agree() => FEATURES_OK,
            11 => DRIVER_OK,
            _ => 0,
        };
        if step == 0 || step != next {
            return Effect::None;
        }
        self.status |= step;
        match step {
            DRIVER_OK => {
                self.signals.live.store(true, Ordering::SeqCst);
                Effect::Activate { features: self.driver_features, queues: self.queues.clone() }
            }
            _ => Effect::None,
        }
    }

    fn features_agree(&self) -> bool {
        self.driver_features & !self.identity.features == 0 && self.driver_features & super::F_VERSION_1 != 0
    }

    fn reset(&mut self) {
        self.queues = initial_queues(&self.identity);
        (self.status, self.driver_features) = (0, 0);
        (self.device_features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
        self.signals.interrupt.store(0, Ordering::SeqCst);
        self.signals.needs_reset.store(false, Ordering::SeqCst);
        self.signals.live.store(false, Ordering::SeqCst);
    }

    fn queue_max(&self) -> Option<u16> {
        self.identity.queues.get(usize::try_from(self.queue_sel).ok()?).copied()
    }

    fn queue(&self) -> Option<&QueueConfig> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn describe_queue(&mut self, offset: u64, value: u32) {
        let max = self.queue_max().unwrap_or(0);
        let selected = usize::try_from(self.queue_sel).ok();
        let Some(queue) = selected.and_then(|index| self.queues.get_mut(index)) else {
            return;
        };
        if offset == register::QUEUE_READY {
            queue.ready = value == 1 && queue.is_sound(max);
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            // A size that is none is refused when the queue is made ready.
            register::QUEUE_NUM => queue.size = u16::try_from(value).unwrap_or(0),
            register::QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            register::QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            register::QUEUE_DRIVER_LOW => set_half(&mut queue.driver, 0, value),
            register::QUEUE_DRIVER_HIGH => set_half(&mut queue.driver, 1, value),
            register::QUEUE_DEVICE_LOW => set_half(&mut queue.device, 0, value),
            register::QUEUE_DEVICE_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }
}

impl QueueConfig {
    /// The rules of 2.7: size, alignment, and that no part wraps.
    fn is_sound(&self, max: u16) -> bool {
        let size = u64::from(self.size);
        let fits = |start: u64, alignment: u64, len: u64| {
            start.is_multiple_of(alignment) && start.checked_add(len).is_some()
        };
        self.size.is_power_of_two()
            && self.size <= max
            && fits(self.descriptors, 16, 16 * size)
            && fits(self.driver, 2, 6 + 2 * size)
            && fits(self.device, 4, 6 + 8 * size)
    }
}

fn initial_queues(identity: &Identity) -> Vec<QueueConfig> {
    identity.queues.iter().map(|max| QueueConfig { size: *max, ..QueueConfig::default() }).collect()
}

/// One half of a 64-bit field; the selector's other values have nothing.
fn half(value: u64, selector: u32) -> u32 {
    let word = match selector {
        0 => value & LOW,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(word).unwrap_or(0)
}

fn set_half(field: &mut u64, selector: u32, value: u32) {
    match selector {
        0 => *field = *field & !LOW | u64::from(value),
        1 => *field = *field & LOW | u64::from(value) << 32,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
