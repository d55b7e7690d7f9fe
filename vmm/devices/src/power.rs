//! How a guest ends itself: the keyboard controller's reset pulse and ACPI's sleep control register.

/// What a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// A reset.
    Reset,
    /// Soft-off.
    Off,
}

/// Keyboard controller command: pulse output bit 0, which is the reset line.
const PULSE_RESET: u8 = 0xFE;
/// Sleep control register: SLP_EN, and where SLP_TYP stands (ACPI 6.5, table 4.19).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// What the keyboard controller's status register reads: nothing waits in either direction.
pub const KEYBOARD_STATUS: u8 = 0;

/// A write to the keyboard controller's command port.
#[must_use]
pub fn keyboard_command(value: u8) -> Option<PowerEvent> {
    (value == PULSE_RESET).then_some(PowerEvent::Reset)
}

/// A write to the sleep control register, where `off` is the type that the tables call S5.
#[must_use]
pub fn sleep_control(value: u8, off: u8) -> Option<PowerEvent> {
    let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    (value & SLEEP_ENABLE != 0 && kind == off).then_some(PowerEvent::Off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_command_resets_and_one_type_powers_off() {
        for value in 0..=255 {
            assert_eq!(keyboard_command(value).is_some(), value == 0xFE, "{value:#x}");
            let off = value & 0b0011_1100 == 0b0011_0100;
            assert_eq!(sleep_control(value, 5).is_some(), off, "{value:#x}");
        }
    }
}
