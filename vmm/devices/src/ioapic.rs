//! The I/O APIC (Intel 82093AA): from interrupt lines to messages for the processors' own controllers.
//!
//! ```text
//!             raise, unmasked                     unmasked by the guest
//!  Quiet ----------------------> message    Waits -----------------------> message, Quiet
//!    '-- raise, masked --> Waits
//! ```
//! Every line is an edge, as the ACPI tables say, so nothing is ever waited for at the end of an interrupt; what a guest
//! says of levels is kept and has no effect. A line has no second device on it, because a controller of this kind may have
//! as many lines as a guest has devices.
//!
//! Any thread may raise a line while any vCPU programs it: a line is one word, and a raised one is told exactly once after
//! it was raised, by whoever sees it unmasked first.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// Most lines: its version register counts in eight bits, and Linux takes 240.
pub const LINES_MAX: usize = 240;

/// Registers of the window: the selector, and what it selects.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// Registers behind the selector.
const ID: u32 = 0x00;
const VERSION: u32 = 0x01;
const ARBITRATION: u32 = 0x02;
const REDIRECTION: u32 = 0x10;
/// As KVM's own: 82093AA.
const VERSION_NUMBER: u32 = 0x11;
/// The id's place in its registers.
const ID_BITS: u32 = 0x0F00_0000;

/// Bits of a line's entry.
const VECTOR: u64 = 0xFF;
const DELIVERY: u64 = 7 << 8;
const LOGICAL: u64 = 1 << 11;
const MASKED: u64 = 1 << 16;
const DESTINATION_SHIFT: u32 = 56;
/// What a guest can write: not the delivery status and the remote IRR.
const WRITABLE: u64 = VECTOR | DELIVERY | LOGICAL | 1 << 13 | 1 << 15 | MASKED | 0xFF << DESTINATION_SHIFT;
/// Delivery modes that lines can have here: fixed, and lowest priority. The others (SMI, NMI, INIT, ExtINT) have no use for
/// a device of ours.
const LOWEST_PRIORITY: u64 = 1 << 8;

/// Where messages to local APICs go (Intel SDM volume 3, 11.11.1).
const MESSAGE_BASE: u32 = 0xFEE0_0000;
const MESSAGE_HINT: u32 = 1 << 3;
const MESSAGE_LOGICAL: u32 = 1 << 2;

/// An interrupt as a message: an address and what is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which processors.
    pub address: u32,
    /// Which vector, and how.
    pub data: u32,
}

/// A controller with some lines.
#[derive(Debug)]
pub struct IoApic {
    selected: AtomicU32,
    id: AtomicU32,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    entry: AtomicU64,
    /// Raised and not told.
    waits: AtomicBool,
}

/// A controller as it is written down. [`Self::is_sound`] says whether one can have been so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    /// The register that is selected.
    pub selected: u32,
    /// The id's register.
    pub id: u32,
    /// By line.
    pub lines: Vec<LineState>,
}

/// One line of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineState {
    /// Its entry.
    pub entry: u64,
    /// Raised and not told.
    pub waits: bool,
}

impl IoApicState {
    /// Whether a guest can have brought a controller there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.selected <= 0xFF
            && self.id & !ID_BITS == 0
            && self.lines.len() <= LINES_MAX
            && self.lines.iter().all(|line| line.entry & !WRITABLE == 0)
    }
}

impl From<&IoApicState> for IoApic {
    /// What is not sound is as if a guest had tried to write it.
    fn from(state: &IoApicState) -> Self {
        let line = |line: &LineState| Line {
            entry: AtomicU64::new(line.entry & WRITABLE),
            waits: AtomicBool::new(line.waits),
        };
        Self {
            selected: AtomicU32::new(state.selected & 0xFF),
            id: AtomicU32::new(state.id & ID_BITS),
            lines: state.lines.iter().take(LINES_MAX).map(line).collect(),
        }
    }
}

impl IoApic {
    /// As it stands. Nobody raises or programs it meanwhile.
    #[must_use]
    pub fn state(&self) -> IoApicState {
        let line = |line: &Line| LineState {
            entry: line.entry.load(Ordering::SeqCst),
            waits: line.waits.load(Ordering::SeqCst),
        };
        IoApicState {
            selected: self.selected.load(Ordering::SeqCst),
            id: self.id.load(Ordering::SeqCst),
            lines: self.lines.iter().map(line).collect(),
        }
    }

    /// Goes on where one with as many lines was written down. Nobody raises or programs it meanwhile.
    pub fn resume(&self, state: &IoApicState) {
        let was = Self::from(state);
        self.selected.store(was.selected.into_inner(), Ordering::SeqCst);
        self.id.store(was.id.into_inner(), Ordering::SeqCst);
        for (line, was) in self.lines.iter().zip(was.lines) {
            line.entry.store(was.entry.into_inner(), Ordering::SeqCst);
            line.waits.store(was.waits.into_inner(), Ordering::SeqCst);
        }
    }

    /// With so many lines, at most [`LINES_MAX`], all masked.
    #[must_use]
    pub fn new(lines: usize) -> Self {
        let line = || Line { entry: AtomicU64::new(MASKED), waits: AtomicBool::new(false) };
        let lines = (0..lines.min(LINES_MAX)).map(|_| line()).collect();
        Self { selected: AtomicU32::new(0), id: AtomicU32::new(0), lines }
    }

    /// A read of the window: aligned words; anything else reads as 0.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        let Ok(word) = <&mut [u8; 4]>::try_from(bytes) else { return };
        let selected = self.selected.load(Ordering::SeqCst);
        let value = match (offset, selected) {
            (SELECT, _) => selected,
            (WINDOW, ID | ARBITRATION) => self.id.load(Ordering::SeqCst),
            (WINDOW, VERSION) => {
                VERSION_NUMBER | u32::try_from(self.lines.len().max(1) - 1).unwrap_or(0) << 16
            }
            (WINDOW, register) => self.line(register).map_or(0, |(line, shift)| {
                u32::try_from(line.entry.load(Ordering::SeqCst) >> shift & u64::from(u32::MAX)).unwrap_or(0)
            }),
            _ => 0,
        };
        *word = value.to_le_bytes();
    }

    /// A write to the window: the interrupt that waited for it, if one did.
    #[must_use]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Option<Message> {
        let value = u32::from_le_bytes(bytes.try_into().ok()?);
        match (offset, self.selected.load(Ordering::SeqCst)) {
            (SELECT, _) => self.selected.store(value & 0xFF, Ordering::SeqCst),
            (WINDOW, ID) => self.id.store(value & ID_BITS, Ordering::SeqCst),
            (WINDOW, register) => {
                let (line, shift) = self.line(register)?;
                let half = u64::from(u32::MAX) << shift;
                let update = |old: u64| Some(old & !half | u64::from(value) << shift & WRITABLE);
                // It never refuses.
                let _ = line.entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
                return line.due();
            }
            _ => {}
        }
        None
    }

    /// A device raises its line: the interrupt, unless the guest masks it; then it waits.
    #[must_use]
    pub fn raise(&self, line: usize) -> Option<Message> {
        let line = self.lines.get(line)?;
        line.waits.store(true, Ordering::SeqCst);
        line.due()
    }

    /// The line of a register, and where its half of the entry stands.
    fn line(&self, register: u32) -> Option<(&Line, u32)> {
        let at = register.checked_sub(REDIRECTION)?;
        Some((self.lines.get(usize::try_from(at / 2).ok()?)?, at % 2 * 32))
    }
}

impl Line {
    /// Who sees a raised line unmasked takes it; both sides write theirs before they look at the other's.
    fn due(&self) -> Option<Message> {
        let entry = self.entry.load(Ordering::SeqCst);
        if entry & MASKED != 0 || !self.waits.swap(false, Ordering::SeqCst) {
            return None;
        }
        message(entry)
    }
}

/// The message of an entry; none where the guest asks for what no device of ours does.
fn message(entry: u64) -> Option<Message> {
    let mode = entry & DELIVERY;
    let low = |value: u64| u32::try_from(value).unwrap_or(0);
    let address = MESSAGE_BASE
        | low(entry >> DESTINATION_SHIFT) << 12
        | if entry & LOGICAL != 0 { MESSAGE_LOGICAL } else { 0 }
        | if mode == LOWEST_PRIORITY { MESSAGE_HINT } else { 0 };
    (mode <= LOWEST_PRIORITY).then(|| Message { address, data: low(entry & (VECTOR | DELIVERY)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(apic: &IoApic, register: u32) -> u32 {
        assert_eq!(apic.write(SELECT, &register.to_le_bytes()), None);
        let mut word = [0; 4];
        apic.read(WINDOW, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(apic: &IoApic, register: u32, value: u32) -> Option<Message> {
        assert_eq!(apic.write(SELECT, &register.to_le_bytes()), None);
        apic.write(WINDOW, &value.to_le_bytes())
    }

    #[test]
    fn says_what_it_is() {
        for (lines, last) in [(1, 0), (24, 23), (133, 132), (LINES_MAX, 239), (LINES_MAX + 9, 239)] {
            let apic = IoApic::new(lines);
            assert_eq!(get(&apic, VERSION), 0x11 | last << 16, "{lines}");
            assert_eq!(get(&apic, REDIRECTION), 1 << 16, "masked");
        }
        let apic = IoApic::new(2);
        assert_eq!(set(&apic, ID, u32::MAX), None);
        assert_eq!((get(&apic, ID), get(&apic, ARBITRATION)), (ID_BITS, ID_BITS));
        // Beyond the last line there is nothing, nor in a window of another width.
        assert_eq!(set(&apic, REDIRECTION + 4, 0x31), None);
        assert_eq!((get(&apic, REDIRECTION + 4), get(&apic, 0x0F)), (0, 0));
        assert_eq!(apic.write(WINDOW, &[1]), None);
        let mut bytes = [7; 8];
        apic.read(WINDOW, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }

    #[test]
    fn entries_become_messages() {
        for (high, low, expect) in [
            (0, 0x31, Some((0xFEE0_0000, 0x31))),
            (3 << 24, 0x8041, Some((0xFEE0_3000, 0x41))),
            (0xFF << 24, 0x0922, Some((0xFEEF_F00C, 0x0122))),
            (1 << 24, 0x0800 | 0x55, Some((0xFEE0_1004, 0x55))),
            (0, 0x0431, None),
            (0, 0x0531, None),
            (0, 0x0731, None),
            (0, 0x0231, None),
            (0, 0x1_0031, None),
        ] {
            let apic = IoApic::new(4);
            assert_eq!(set(&apic, REDIRECTION + 7, high), None);
            assert_eq!(set(&apic, REDIRECTION + 6, low), None);
            let got = apic.raise(3).map(|message| (message.address, message.data));
            assert_eq!(got, expect, "{high:#x} {low:#x}");
            assert_eq!(apic.raise(4), None, "no such line");
        }
    }

    #[test]
    fn a_masked_line_waits() {
        let apic = IoApic::new(2);
        assert_eq!((apic.raise(1), apic.raise(1)), (None, None));
        assert_eq!(set(&apic, REDIRECTION, 0x30), None, "another line");
        assert_eq!(set(&apic, REDIRECTION + 2, 0x31).map(|message| message.data), Some(0x31));
        assert_eq!(set(&apic, REDIRECTION + 2, 0x31), None, "once");
    }

    #[test]
    fn what_no_guest_can_have_written_is_not_sound() {
        let apic = IoApic::new(4);
        assert!(apic.state().is_sound());
        let broken = |change: fn(&mut IoApicState)| {
            let mut state = IoApic::new(4).state();
            change(&mut state);
            assert!(!state.is_sound() && IoApic::from(&state).state().is_sound(), "{state:?}");
        };
        broken(|state| state.selected = 0x100);
        broken(|state| state.id = 1);
        broken(|state| state.lines[0].entry |= 1 << 12);
        broken(|state| state.lines = alloc::vec![LineState::default(); LINES_MAX + 1]);
    }

    proptest! {
        /// Whatever is programmed and raised: a message for a line comes exactly when the line is unmasked and something
        /// was raised since the last; and what cannot be written never reads back.
        #[test]
        fn is_its_model(steps in prop::collection::vec((0_usize..5, prop::option::of((any::<bool>(), any::<u32>()))), 0..200)) {
            let mut apic = IoApic::new(4);
            let mut model = [(MASKED, false); 4];
            for (line, write) in steps {
                // Written down and brought back at every step, it goes on as if nothing had been.
                let state = apic.state();
                prop_assert!(state.is_sound());
                apic = IoApic::from(&state);
                let got = match write {
                    None => apic.raise(line),
                    Some((high, value)) => {
                        set(&apic, REDIRECTION + u32::try_from(line).unwrap() * 2 + u32::from(high), value)
                    }
                };
                let Some((entry, waits)) = model.get_mut(line) else {
                    prop_assert_eq!(got, None);
                    continue;
                };
                match write {
                    None => *waits = true,
                    Some((true, value)) => *entry = *entry & 0xFFFF_FFFF | u64::from(value) << 32,
                    Some((false, value)) => *entry = *entry & !0xFFFF_FFFF | u64::from(value),
                }
                let told = *waits && *entry & MASKED == 0;
                *waits &= !told;
                prop_assert_eq!(got.is_some(), told && *entry >> 8 & 7 < 2);
                let base = REDIRECTION + u32::try_from(line).unwrap() * 2;
                prop_assert_eq!(u64::from(get(&apic, base)), *entry & 0x1_AFFF);
                prop_assert_eq!(u64::from(get(&apic, base + 1)), *entry >> 32 & 0xFF00_0000);
            }
        }
    }
}
