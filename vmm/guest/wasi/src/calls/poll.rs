//! `poll_oneoff`: stdin, stdout and files are always ready, so only clocks are ever waited for.

use super::process::clock_from;
use crate::{Answer, Errno, Host, Memory, Wasi, abi::Clock, abi::rights, table::Target};

const SUBSCRIPTION_SIZE: u32 = 48;
const EVENT_SIZE: u32 = 32;
const ABSTIME: u16 = 1;

/// What one subscription waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Until(Clock, u64),
    Read(u32),
    Write(u32),
    Invalid(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subscription {
    userdata: u64,
    /// `eventtype`.
    tag: u8,
    wait: Wait,
}

impl<H: Host> Wasi<H> {
    /// `poll_oneoff`. A clock that nobody reaches before the deadline ends with the sandbox.
    pub fn poll_oneoff(
        &mut self,
        memory: &mut Memory<'_>,
        subs: u32,
        events: u32,
        count: u32,
        nevents: u32,
    ) -> Answer {
        if count == 0 {
            return Err(Errno::Inval.into());
        }
        memory.slice(subs, count.checked_mul(SUBSCRIPTION_SIZE).ok_or(Errno::Fault)?)?;
        memory.slice(events, count.checked_mul(EVENT_SIZE).ok_or(Errno::Fault)?)?;
        // Relative times count from here, each on its own clock.
        let start = [self.clock_ns(Clock::Realtime), self.clock_ns(Clock::Monotonic)];
        loop {
            let mut written = 0;
            for index in 0..count {
                let subscription = subscription(memory, subs + index * SUBSCRIPTION_SIZE, start)?;
                if let Some((errno, bytes)) = self.ready(subscription.wait) {
                    write_event(memory, events + written * EVENT_SIZE, subscription, errno, bytes)?;
                    written += 1;
                }
            }
            if written > 0 {
                return Ok(memory.write_u32(nevents, written)?);
            }
            self.host.pause();
        }
    }

    /// Whether a wait is over: its error and the bytes there are.
    fn ready(&mut self, wait: Wait) -> Option<(Option<Errno>, u64)> {
        match wait {
            Wait::Until(clock, deadline) => (self.clock_ns(clock) >= deadline).then_some((None, 0)),
            Wait::Invalid(errno) => Some((Some(errno), 0)),
            Wait::Read(fd) => Some(self.available(fd, rights::FD_READ)),
            Wait::Write(fd) => Some(self.available(fd, rights::FD_WRITE)),
        }
    }

    fn available(&self, fd: u32, right: u64) -> (Option<Errno>, u64) {
        let Ok(descriptor) = self.table.get(fd) else { return (Some(Errno::BadF), 0) };
        if let Err(errno) = descriptor.require(right | rights::POLL_FD_READWRITE) {
            return (Some(errno), 0);
        }
        let bytes = match descriptor.target {
            Target::Stdin(place) => self.host.stdin().len().saturating_sub(place) as u64,
            Target::File(node, place) => self.fs.stat(node).map_or(0, |stat| stat.size.saturating_sub(place)),
            _ => 0,
        };
        (None, bytes)
    }
}

fn subscription(memory: &Memory<'_>, at: u32, start: [u64; 2]) -> Result<Subscription, Errno> {
    let bytes: [u8; SUBSCRIPTION_SIZE as usize] = memory.read(at)?;
    let word = |offset: usize| {
        bytes.get(offset..offset + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let userdata = word(0);
    let [tag, ..] = word(8).to_le_bytes();
    let fd = u32::try_from(word(16) & u64::from(u32::MAX)).map_err(|_| Errno::Inval)?;
    let wait = match tag {
        0 => {
            let [low, high, ..] = word(40).to_le_bytes();
            let absolute = u16::from_le_bytes([low, high]) & ABSTIME != 0;
            match clock_from(fd) {
                Ok(clock) if absolute => Wait::Until(clock, word(24)),
                Ok(clock) => {
                    let [wall, monotonic] = start;
                    let from = if clock == Clock::Realtime { wall } else { monotonic };
                    Wait::Until(clock, from.saturating_add(word(24)))
                }
                Err(errno) => Wait::Invalid(errno),
            }
        }
        1 => Wait::Read(fd),
        2 => Wait::Write(fd),
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription { userdata, tag, wait })
}

fn write_event(
    memory: &mut Memory<'_>,
    at: u32,
    subscription: Subscription,
    errno: Option<Errno>,
    bytes: u64,
) -> Result<(), Errno> {
    let error = errno.map_or(0, |errno| errno as u64);
    let words = [subscription.userdata, error | u64::from(subscription.tag) << 16, bytes, 0];
    let mut event = [0; EVENT_SIZE as usize];
    for (field, word) in event.chunks_exact_mut(8).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    memory.write(at, &event)
}
