//! What the host tells a running guest: that its button was pressed, that it is a copy of another.
//!
//! Both are an interrupt of the generic event device; whether the guest listens, it alone knows. A copy's id and clock
//! page are in memory before the interrupt comes.

use crate::ram::Ram;
use std::sync::atomic::{Ordering, fence};
use vmm_sys_util::eventfd::EventFd;
use warren_boot::OutOfRange;
use warren_boot::linux::layout::{CLOCK, GENERATION};
use warren_devices::vmclock::VmClock;

/// An id that no other generation of any guest has.
pub type Generation = [u8; 16];

/// The host's side of the event devices; main thread.
#[derive(Debug)]
pub struct Tellings {
    ram: Ram,
    button: EventFd,
    generation: EventFd,
    clock: VmClock,
}

impl Tellings {
    /// Writes the first generation's id and clock.
    pub fn new(ram: Ram, button: EventFd, generation: EventFd, id: Generation) -> Result<Self, OutOfRange> {
        let clock = VmClock::default();
        ram.put(GENERATION, &id)?;
        ram.put(CLOCK, &clock.bytes())?;
        Ok(Self { ram, button, generation, clock })
    }

    /// Asks the guest to end in order.
    pub fn press_power_button(&self) {
        // The counter cannot be full: KVM takes what is in it at once.
        let _ = self.button.write(1);
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
        let _ = self.generation.write(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[test]
    fn another_generation_is_in_memory_before_it_is_told() {
        let ram = Ram::detached(0, 1 << 20).unwrap();
        let [button, generation] = [(); 2].map(|()| EventFd::new(EFD_NONBLOCK).unwrap());
        let (pressed, told) = (button.try_clone().unwrap(), generation.try_clone().unwrap());
        let mut events = Tellings::new(ram.clone(), button, generation, [1; 16]).unwrap();
        let seen = |at: u64| {
            let mut bytes = [0; 24];
            ram.get(at, &mut bytes).unwrap();
            bytes
        };
        assert_eq!((seen(GENERATION)[..16].to_vec(), &seen(CLOCK)[..4]), (vec![1; 16], &b"VCLK"[..]));
        assert!(told.read().is_err() && pressed.read().is_err());
        events.begin_generation([2; 16]).unwrap();
        assert_eq!((seen(GENERATION)[..16].to_vec(), seen(CLOCK)[16]), (vec![2; 16], 1));
        assert_eq!((told.read().unwrap(), pressed.read().is_err()), (1, true));
        events.press_power_button();
        assert_eq!(pressed.read().unwrap(), 1);
    }
}
