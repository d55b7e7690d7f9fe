//! An i8042 keyboard controller with nothing plugged in: it exists for its reset line, and answers what a kernel asks
//! that looks for it, because one that is silent costs that kernel half a second of waiting.
//!
//! Commands: IBM PS/2 technical reference, "Keyboard and Auxiliary Device Controller".

use crate::power::PowerEvent;
use serde::{Deserialize, Serialize};

const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const SELF_TEST: u8 = 0xAA;
const TEST_PORT: u8 = 0xAB;
const PULSE_RESET: u8 = 0xFE;
/// What the self-test answers when all is well.
const SELF_TEST_PASSED: u8 = 0x55;
const OUTPUT_FULL: u8 = 1 << 0;
/// The system flag: set since the self-test at power-on.
const SYSTEM: u8 = 1 << 2;

/// The controller's registers, as they stand and as they are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyboard {
    configuration: u8,
    output: Option<u8>,
    /// The next data byte is the configuration.
    configuring: bool,
}

impl Keyboard {
    /// A read of the status port.
    #[must_use]
    pub fn status(&self) -> u8 {
        SYSTEM | if self.output.is_some() { OUTPUT_FULL } else { 0 }
    }

    /// A read of the data port.
    pub fn read(&mut self) -> u8 {
        self.output.take().unwrap_or(0)
    }

    /// A write of the data port: taken by the configuration, or by a keyboard that is not there.
    pub fn write(&mut self, value: u8) {
        if core::mem::take(&mut self.configuring) {
            self.configuration = value;
        }
    }

    /// A write of the command port.
    pub fn command(&mut self, value: u8) -> Option<PowerEvent> {
        self.configuring = value == WRITE_CONFIGURATION;
        match value {
            PULSE_RESET => return Some(PowerEvent::Reset),
            READ_CONFIGURATION => self.output = Some(self.configuration),
            SELF_TEST => self.output = Some(SELF_TEST_PASSED),
            TEST_PORT => self.output = Some(0),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_command_resets() {
        for value in 0..=255 {
            assert_eq!(Keyboard::default().command(value).is_some(), value == 0xFE, "{value:#x}");
        }
    }

    #[test]
    fn the_configuration_is_kept_and_answers_are_given_once() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.command(WRITE_CONFIGURATION), None);
        keyboard.write(0x47);
        keyboard.write(0xFF);
        assert_eq!(keyboard.status(), SYSTEM);
        keyboard.command(READ_CONFIGURATION);
        assert_eq!(
            (keyboard.status(), keyboard.read(), keyboard.status()),
            (SYSTEM | OUTPUT_FULL, 0x47, SYSTEM)
        );
        keyboard.command(SELF_TEST);
        assert_eq!((keyboard.read(), keyboard.read()), (SELF_TEST_PASSED, 0));
    }
}
