//! A device's configuration space (virtio 1.2, 2.5): bytes that the driver reads at any width, that the device may change
//! while the driver reads them, and of which the driver may write a part.
//!
//! Every change by the device counts the generation up (2.5.3, 4.2.2): a driver that read it before and after some fields, and
//! found it the same, has read fields that belong together. Who serves reads and changes must not interleave them.

use super::transport::{CONFIG, CONFIG_GENERATION};
use alloc::vec::Vec;
use core::ops::Range;

/// The configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    bytes: Vec<u8>,
    /// What the driver may write; zero again after a reset.
    writable: Range<usize>,
    generation: u32,
}

impl From<Vec<u8>> for Config {
    /// One that the driver only reads.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Config {
    /// One of which the driver may write a part, zero at first.
    #[must_use]
    pub fn writable(bytes: Vec<u8>, writable: Range<usize>) -> Self {
        let mut config = Self { bytes, writable, generation: 0 };
        config.reset();
        config
    }

    /// A read of the device's window: whether it was for what is here.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        if offset == CONFIG_GENERATION {
            out.fill(0);
            if let Ok(word) = <&mut [u8; 4]>::try_from(out) {
                *word = self.generation.to_le_bytes();
            }
            return true;
        }
        let Some(at) = offset.checked_sub(CONFIG) else { return false };
        out.fill(0);
        let here = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        for (byte, value) in out.iter_mut().zip(here.unwrap_or_default()) {
            *byte = *value;
        }
        true
    }

    /// A write of the driver's to the device's window; ignored unless all of it may be written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = offset.checked_sub(CONFIG).and_then(|at| usize::try_from(at).ok());
        let Some((at, end)) = at.and_then(|at| Some((at, at.checked_add(bytes.len())?))) else { return };
        if self.writable.start <= at
            && end <= self.writable.end
            && let Some(target) = self.bytes.get_mut(at..end)
        {
            target.copy_from_slice(bytes);
        }
    }

    /// The device says something else from here on: whether that is a change, of which the driver is to be told.
    pub fn change(&mut self, at: usize, bytes: &[u8]) -> bool {
        let target = at.checked_add(bytes.len()).and_then(|end| self.bytes.get_mut(at..end));
        let Some(target) = target.filter(|target| *target != bytes) else { return false };
        target.copy_from_slice(bytes);
        self.generation = self.generation.wrapping_add(1);
        true
    }

    /// A field as it stands; zeroes where there is none.
    #[must_use]
    pub fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        if let Some(bytes) = at.checked_add(N).and_then(|end| self.bytes.get(at..end)) {
            field.copy_from_slice(bytes);
        }
        field
    }

    /// As it is written down: its bytes and its generation.
    #[must_use]
    pub fn state(&self) -> (&[u8], u32) {
        (&self.bytes, self.generation)
    }

    /// Goes on where one of the same length was written down; whether it is of that length.
    #[must_use]
    pub fn resume(&mut self, bytes: &[u8], generation: u32) -> bool {
        let same = self.bytes.len() == bytes.len();
        if same {
            self.bytes.copy_from_slice(bytes);
            self.generation = generation;
        }
        same
    }

    /// The driver is gone, and with it what it wrote.
    pub fn reset(&mut self) {
        if let Some(written) = self.bytes.get_mut(self.writable.clone()) {
            written.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn generation(config: &Config) -> u32 {
        let mut word = [0; 4];
        assert!(config.read(CONFIG_GENERATION, &mut word));
        u32::from_le_bytes(word)
    }

    #[test]
    fn it_is_read_at_any_width_and_ends() {
        let config = Config::from(vec![7; 10]);
        let mut eight = [9; 8];
        assert!(config.read(0x104, &mut eight));
        assert_eq!(eight, [7, 7, 7, 7, 7, 7, 0, 0]);
        assert!(config.read(u64::MAX, &mut eight));
        assert_eq!(eight, [0; 8]);
        assert!(!config.read(0xF8, &mut eight), "a register");
    }

    #[test]
    fn a_change_is_told_once() {
        let mut config = Config::from(vec![0; 8]);
        assert!(config.change(4, &[1, 2]) && !config.change(4, &[1, 2]));
        assert!(!config.change(7, &[1, 2]) && !config.change(usize::MAX, &[1]), "beyond the end");
        assert_eq!((config.field(2), generation(&config)), ([0, 0, 1, 2], 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Change(usize, Vec<u8>),
        Write(u64, Vec<u8>),
        Reset,
    }

    proptest! {
        /// Any driver and any device: the driver changes what it may and nothing else, and no change of the device's
        /// leaves the generation as it was.
        #[test]
        fn the_driver_writes_its_part_alone(
            steps in prop::collection::vec(prop_oneof![
                (0_usize..24, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, bytes)| Step::Change(at, bytes)),
                (0xF8_u64..0x118, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
                Just(Step::Reset),
            ], 0..40),
            start in 0_usize..20, len in 0_usize..8,
        ) {
            let writable = start..(start + len).min(16).max(start);
            let mut config = Config::writable(vec![0xA5; 16], writable.clone());
            for step in steps {
                let (before, count) = (config.bytes.clone(), generation(&config));
                let outside = |config: &Config| -> Vec<u8> {
                    config.bytes.iter().enumerate().filter(|(at, _)| !writable.contains(at)).map(|(_, b)| *b).collect()
                };
                let kept = outside(&config);
                match step {
                    Step::Change(at, bytes) => {
                        let changed = config.change(at, &bytes);
                        prop_assert_eq!(changed, config.bytes != before);
                        prop_assert_eq!(changed, generation(&config) != count);
                    }
                    Step::Write(at, bytes) => {
                        config.write(at, &bytes);
                        prop_assert_eq!(outside(&config), kept);
                    }
                    Step::Reset => {
                        config.reset();
                        prop_assert!(config.bytes.get(writable.clone()).unwrap_or_default().iter().all(|byte| *byte == 0));
                        prop_assert_eq!(outside(&config), kept);
                    }
                }
                prop_assert_eq!(config.bytes.len(), 16);
            }
        }
    }
}
