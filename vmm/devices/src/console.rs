//! The log behind the serial port: what a guest prints, in lines, bounded in every direction.
//!
//! A flood must cost neither memory nor the operator's disk: a line has a longest length, the lines that are passed on
//! have a budget that refills with time, and only the last of them are kept for the end.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Longest line; a longer one is cut into several.
pub const LINE_MAX: usize = 512;
/// Lines that wait to be passed on.
const WAITING_MAX: usize = 256;
/// Lines kept for the end.
const LAST_MAX: usize = 16;
/// What a line takes of the log beside its text: who says it, and its end. Else a guest could write twenty times its budget, in empty
/// lines.
const FRAME: u64 = 32;
/// Bytes that may be passed on at once, and that come back a second.
const BURST: u64 = 256 << 10;
const REFILL: u64 = 16 << 10;

/// Lines of a guest's console.
#[derive(Clone, Debug)]
pub struct ConsoleLog {
    line: Vec<u8>,
    waiting: VecDeque<String>,
    last: VecDeque<String>,
    budget: u64,
    refilled_ns: u64,
    dropped: u64,
}

impl Default for ConsoleLog {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            waiting: VecDeque::new(),
            last: VecDeque::new(),
            budget: BURST,
            refilled_ns: 0,
            dropped: 0,
        }
    }
}

impl ConsoleLog {
    /// One byte of output; whether a line became whole.
    pub fn push(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => self.finish_line(),
            b'\r' => false,
            byte => {
                self.line.push(byte);
                self.line.len() >= LINE_MAX && self.finish_line()
            }
        }
    }

    /// The line that has no end yet.
    #[must_use]
    pub fn open_line(&self) -> &[u8] {
        &self.line
    }

    fn finish_line(&mut self) -> bool {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if self.last.len() == LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        if self.waiting.len() == WAITING_MAX {
            self.dropped += 1;
        } else {
            self.waiting.push_back(line);
        }
        true
    }

    /// The next line to pass on, if there is one and the budget allows it at `now_ns`.
    pub fn take(&mut self, now_ns: u64) -> Option<String> {
        let passed = now_ns.saturating_sub(self.refilled_ns);
        let refill = passed.saturating_mul(REFILL) / 1_000_000_000;
        if refill > 0 {
            self.budget = self.budget.saturating_add(refill).min(BURST);
            self.refilled_ns = now_ns;
        }
        while let Some(line) = self.waiting.pop_front() {
            let cost = line.len() as u64 + FRAME;
            if cost <= self.budget {
                self.budget -= cost;
                return Some(line);
            }
            self.dropped += 1;
        }
        None
    }

    /// Lines that were not passed on since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    /// The last lines, for the end of a guest: also those that were dropped, and one that has no end.
    pub fn last(&self) -> impl Iterator<Item = String> + '_ {
        let open = (!self.line.is_empty()).then(|| String::from_utf8_lossy(&self.line).into_owned());
        self.last.iter().cloned().chain(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(log: &mut ConsoleLog, text: &str) {
        for byte in text.bytes() {
            log.push(byte);
        }
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let mut log = ConsoleLog::default();
        push(&mut log, "one\r\ntwo\n\nhalf");
        let mut out = || log.take(0);
        assert_eq!(
            [out(), out(), out(), out()],
            [Some("one".into()), Some("two".into()), Some(String::new()), None]
        );
        assert_eq!(log.last().last().as_deref(), Some("half"));
        assert_eq!(log.take_dropped(), 0);
    }

    #[test]
    fn a_flood_is_cut_and_counted_and_time_lets_it_go_on() {
        let mut log = ConsoleLog::default();
        let line = "x".repeat(99);
        let mut passed = 0;
        for _ in 0..10_000 {
            push(&mut log, &line);
            log.push(b'\n');
            passed += u64::from(log.take(1).is_some());
        }
        assert_eq!(passed, BURST / (99 + FRAME));
        assert_eq!(log.take_dropped(), 10_000 - passed);
        assert_eq!(log.last().count(), LAST_MAX);
        push(&mut log, "after\n");
        assert_eq!(log.take(2_000_000_000).as_deref(), Some("after"));
        // Nor is one of nothing but ends of lines free of charge.
        let mut log = ConsoleLog::default();
        let empty = (0..BURST).filter(|_| log.push(b'\n') && log.take(1).is_some()).count();
        assert_eq!(empty as u64, BURST / FRAME);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_whatever_comes(bytes in prop::collection::vec(any::<u8>(), 0..4000), take: bool) {
            let mut log = ConsoleLog::default();
            for (at, byte) in bytes.iter().enumerate() {
                log.push(*byte);
                if take {
                    log.take(at as u64);
                }
                prop_assert!(log.line.len() < LINE_MAX && log.waiting.len() <= WAITING_MAX && log.last.len() <= LAST_MAX);
            }
        }
    }
}
