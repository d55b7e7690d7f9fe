//! How a guest ends itself: ACPI's sleep control register, and (in [`crate::keyboard`]) the reset pulse.

/// What a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// A reset.
    Reset,
    /// Soft-off.
    Off,
}

/// Sleep control register: SLP_EN, and where SLP_TYP stands (ACPI 6.5, table 4.19).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

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
    fn exactly_one_type_powers_off() {
        for value in 0..=255 {
            let off = value & 0b0011_1100 == 0b0011_0100;
            assert_eq!(sleep_control(value, 5).is_some(), off, "{value:#x}");
        }
    }
}
