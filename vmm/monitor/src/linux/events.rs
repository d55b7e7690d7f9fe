//! What the host tells a running guest: that its button was pressed, that it is a copy of another.
//!
//! Both are an interrupt of the generic event device; whether the guest listens, it alone knows. A copy's id and clock
//! page are in memory before the interrupt comes.

use super::interrupts::Line;
use crate::ram::Ram;
use std::sync::atomic::{Ordering, fence};
use warren_boot::OutOfRange;
use warren_boot::linux::layout::{CLOCK, GENERATION};
use warren_devices::vmclock::VmClock;

/// An id that no other generation of any guest has.
pub type Generation = [u8; 16];

/// The host's side of the event devices; main thread.
#[derive(Debug)]
pub struct Tellings {
    ram: Ram,
    button: Line,
    generation: Line,
    clock: VmClock,
}

impl Tellings {
    /// Writes the first generation's id and clock.
    pub fn new(ram: Ram, button: Line, generation: Line, id: Generation) -> Result<Self, OutOfRange> {
        let clock = VmClock::default();
        ram.put(GENERATION, &id)?;
        ram.put(CLOCK, &clock.bytes())?;
        Ok(Self { ram, button, generation, clock })
    }

    /// Of a guest that was written down: memory is as it was.
    #[must_use]
    pub fn resumed(ram: Ram, button: Line, generation: Line, clock: VmClock) -> Self {
        Self { ram, button, generation, clock }
    }

    /// The guest is what it was when it was written down, and so is its memory.
    pub fn resume(&mut self, clock: VmClock) {
        self.clock = clock;
    }

    /// The clock page as it stands.
    #[must_use]
    pub fn clock(&self) -> VmClock {
        self.clock
    }

    /// Asks the guest to end in order.
    pub fn press_power_button(&self) {
        self.button.raise();
    }

    /// Tells the guest that it is another generation from here on.
    pub fn begin_generation(&mut self, id: Generation) -> Result<(), OutOfRange> {
        for (at, bytes) in self.clock.disturb() {
            self.ram.put(CLOCK + at as u64, &bytes)?;
            // Readers on other processors go by the order of these writes.
            fence(Ordering::SeqCst);
        }
        self.ram.put(GENERATION, &id)?;
        fence(Ordering::SeqCst);
        self.generation.raise();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::interrupts::tests::counted;

    #[test]
    fn another_generation_is_in_memory_before_it_is_told() {
        let ram = Ram::detached(0, 1 << 20).unwrap();
        let [(button, pressed), (generation, told)] = [(); 2].map(|()| counted(1));
        let (button, generation) = (button.line(0), generation.line(0));
        let mut events = Tellings::new(ram.clone(), button, generation, [1; 16]).unwrap();
        let times = || [&pressed, &told].map(|count| count.0.load(Ordering::SeqCst));
        let seen = |at: u64| {
            let mut bytes = [0; 24];
            ram.get(at, &mut bytes).unwrap();
            bytes
        };
        assert_eq!((seen(GENERATION)[..16].to_vec(), &seen(CLOCK)[..4]), (vec![1; 16], &b"VCLK"[..]));
        assert_eq!(times(), [0, 0]);
        events.begin_generation([2; 16]).unwrap();
        assert_eq!((seen(GENERATION)[..16].to_vec(), seen(CLOCK)[16]), (vec![2; 16], 1));
        assert_eq!(times(), [0, 1]);
        events.press_power_button();
        assert_eq!(times(), [1, 1]);
    }
}
