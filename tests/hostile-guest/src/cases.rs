//! The table of what a Linux machine's guest does. One row a case.
//!
//! Modules: [`rings`] and [`registers`] what every device is tried with, [`requests`] what only one of them has, [`platform`] the machine
//! around them.

pub mod platform;
pub mod registers;
pub mod requests;
pub mod rings;

use crate::driver::{Device, Machine};
use crate::script::Script;

/// What a case must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Its devices answer by the book afterwards, and the guest powers itself off.
    GoesOn,
    /// It does nothing more: the VMM answers, and ends when it is told to.
    Told,
    /// What its host's KVM makes of it: it goes on, or stays where it is and is ended, or the VMM ends by name.
    Named,
    /// The VMM ends: its status, a piece of its last words.
    By(i32, &'static str),
}

/// What a case does.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// To a device.
    To(Device, fn(Device, &mut Script)),
    /// To the machine.
    All(fn(&mut Script)),
}

/// A case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is, for people.
    pub name: &'static str,
    /// What it does.
    pub does: Does,
    /// What the guest prints meanwhile, a line each.
    pub said: &'static [&'static str],
    /// What it must come to.
    pub ends: Ends,
}

/// A row for one device.
pub(crate) const fn to(
    device: Device,
    name: &'static str,
    said: &'static [&'static str],
    does: fn(Device, &mut Script),
) -> Case {
    Case { name, does: Does::To(device, does), said, ends: Ends::GoesOn }
}

/// A row for the machine.
pub(crate) const fn all(name: &'static str, ends: Ends, does: fn(&mut Script)) -> Case {
    Case { name, does: Does::All(does), said: &[], ends }
}

/// Every case.
#[must_use]
pub fn every() -> Vec<Case> {
    let mut cases = Vec::new();
    let every_device = [Machine::Jailed, Machine::Sealed].map(Machine::devices).concat();
    for (row, at) in rings::ROWS.iter().chain(registers::ROWS).zip(0..) {
        // Each with every kind of device; the second disk is no kind of its own, and has some.
        let devices = every_device.iter().filter(|device| **device != Device::ReadOnly || at % 8 == 0);
        cases.extend(devices.map(|device| to(*device, row.0, row.1, row.2)));
    }
    cases.extend_from_slice(requests::ROWS);
    cases.extend_from_slice(platform::ROWS);
    cases
}

impl Case {
    /// For people: what it is tried on.
    #[must_use]
    pub fn on(&self) -> String {
        match self.does {
            Does::To(device, _) => format!("{device:?}").to_lowercase(),
            Does::All(_) => "machine".into(),
        }
    }

    /// The machine it needs.
    #[must_use]
    pub fn machine(&self) -> Machine {
        match self.does {
            Does::To(device, _) => device.machine(),
            Does::All(_) => Machine::Jailed,
        }
    }

    /// What the guest does, all of it.
    #[must_use]
    pub fn script(&self) -> Script {
        let mut script = Script::default();
        match self.does {
            Does::To(device, does) => does(device, &mut script),
            Does::All(does) => does(&mut script),
        }
        for device in self.machine().devices() {
            device.answers(&mut script);
        }
        script.say("answers").end();
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_is_there_once_and_there_are_enough() {
        let cases = every();
        let names: HashSet<_> = cases.iter().map(|case| (case.on(), case.name)).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.len() >= 250, "{}", cases.len());
    }
}
