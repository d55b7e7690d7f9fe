//! Frames between a tap device and a guest; on the network thread.
//!
//! A frame to the guest is read straight into the driver's buffers: as many are taken ahead as the largest frame needs, and
//! what it leaves is kept for the next. A frame from the guest goes straight out of its buffers, behind a header that was
//! copied and judged. Frames that cannot go are dropped and counted, as a network does.

mod spare;

use super::walk::{Walk, WalkError};
use super::{BadRequest, Queues, Step, put_at};
use crate::log;
use crate::log::Seldom;
use crate::progress::monotonic_ns;
use crate::ram::Ram;
use crate::sys::tap;
use crate::sys::vectored::Direction;
use rustix::fd::{AsFd, OwnedFd};
use spare::{Buffer, Spare};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use warren_devices::rate::{Limiter, Limits};
use warren_devices::virtio::chain::slice;
use warren_devices::virtio::net::{
    self, F_MRG_RXBUF, HEADER_LEN, NUM_BUFFERS_AT, RX, TX, buffers_for, judge, takes,
};
use warren_devices::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity};

/// More frames than a tap device keeps.
const FRAMES_MAX: usize = 4096;

/// The front half of a guest's network device.
#[derive(Debug)]
pub struct Net {
    tap: OwnedFd,
    mac: [u8; 6],
    /// The tap may have frames.
    readable: bool,
    /// Buffers of the driver's that no frame took yet.
    spare: Spare,
    /// Whose buffers they are.
    era: u64,
    receive: Limiter,
    send: Limiter,
    /// When a limit lets go on.
    wake_ns: Option<u64>,
    dropped: Seldom,
    unset: Seldom,
}

impl Net {
    /// Over a tap device that was set up.
    #[must_use]
    pub fn new(tap: OwnedFd, mac: [u8; 6], receive: Limits, send: Limits) -> Self {
        let now = monotonic_ns();
        Self {
            tap,
            mac,
            readable: true,
            spare: Spare::default(),
            era: 0,
            receive: Limiter::new(receive, now),
            send: Limiter::new(send, now),
            wake_ns: None,
            dropped: Seldom::default(),
            unset: Seldom::default(),
        }
    }

    /// What the driver is told.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            id: net::ID,
            features: F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | net::FEATURES,
            queues: net::QUEUES.to_vec(),
            config: net::config(self.mac).into(),
        }
    }

    /// For the event loop.
    #[must_use]
    pub fn tap(&self) -> RawFd {
        self.tap.as_raw_fd()
    }

    /// The tap has frames.
    pub fn readable(&mut self) {
        self.readable = true;
    }

    /// When this is to be asked again without anything having happened.
    #[must_use]
    pub fn wake_ns(&self) -> Option<u64> {
        self.wake_ns
    }

    /// The guest is put back to its snapshot: what came for the one before is nobody's.
    pub fn begin_again(&mut self) {
        // What of a frame has no room here goes with the rest.
        let mut frame = [0; 2048];
        for _ in 0..FRAMES_MAX {
            if !matches!(rustix::io::read(&self.tap, &mut frame), Ok(1..)) {
                break;
            }
        }
        self.readable = true;
    }

    /// One frame each way at most.
    pub fn step(&mut self, queues: &mut Queues, ram: &Ram) -> Result<Step, WalkError> {
        self.wake_ns = None;
        let features = queues.features;
        if self.era != queues.era && !queues.walks.is_empty() {
            self.era = queues.era;
            self.spare = Spare::default();
            self.readable = true;
            if let Err(error) = tap::set_offload(self.tap.as_fd(), takes(features))
                && let Some(times) = self.unset.count()
            {
                log!("the tap device does not take its settings: {error} (time {times})");
            }
        }
        let mut step = Step::Idle;
        if let Some(walk) = queues.get(TX) {
            step = step.and(self.take_frame(walk, features, ram)?);
        }
        if let Some(walk) = queues.get(RX) {
            step = step.and(self.give_frame(walk, features, ram)?);
        }
        Ok(step)
    }

    /// Whether a limit lets an operation begin; if not, when to come back.
    fn may(limiter: &mut Limiter, wake_ns: &mut Option<u64>) -> bool {
        match limiter.ready(monotonic_ns()) {
            Ok(()) => true,
            Err(later) => {
                *wake_ns = Some(wake_ns.map_or(later, |other| other.min(later)));
                false
            }
        }
    }

    /// From the guest.
    fn take_frame(&mut self, walk: &mut Walk, features: u64, ram: &Ram) -> Result<Step, WalkError> {
        if !Self::may(&mut self.send, &mut self.wake_ns) {
            return Ok(Step::Idle);
        }
        let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
        let header = chain.copy_head(ram).ok_or(BadRequest("a frame without a header"))?;
        let len = chain.readable_len().saturating_sub(HEADER_LEN);
        let sent = judge(header, len, features).is_ok_and(|header| {
            let frame = slice(chain.readable(), HEADER_LEN, len);
            ram.send_behind(self.tap.as_fd(), &header, &frame).is_ok()
        });
        self.send.charge(len.into());
        if !sent && let Some(times) = self.dropped.count() {
            log!("a frame of the guest's cannot go and is dropped (time {times})");
        }
        walk.finish(ram, head, 0)?;
        Ok(Step::Done)
    }

    /// To the guest.
    fn give_frame(&mut self, walk: &mut Walk, features: u64, ram: &Ram) -> Result<Step, WalkError> {
        if !self.readable || !Self::may(&mut self.receive, &mut self.wake_ns) {
            return Ok(Step::Idle);
        }
        let merge = features & F_MRG_RXBUF != 0;
        let wanted = if merge { buffers_for(features) } else { 0 };
        // More than the queue holds cannot be had: then what there is must do.
        while self.spare.is_empty() || self.spare.room() < wanted && self.spare.len() < walk.size().into() {
            let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
            if chain.writable_len() < if merge { HEADER_LEN } else { buffers_for(features) } {
                return Err(BadRequest("a buffer that is too short for a frame").into());
            }
            self.spare.push(head, &chain)?;
        }
        match ram.transfer_stream(self.tap.as_fd(), self.spare.ranges(merge), Direction::Read) {
            Ok(len) => self.deliver(walk, u32::try_from(len).unwrap_or(self.spare.room()), ram),
            Err(error) => {
                // Whatever else it says (a link that is down), it says again when there is something.
                self.readable = error.kind() == ErrorKind::Interrupted;
                Ok(Step::Idle)
            }
        }
    }

    /// Gives back the buffers that a frame took.
    fn deliver(&mut self, walk: &mut Walk, len: u32, ram: &Ram) -> Result<Step, WalkError> {
        self.receive.charge(len.saturating_sub(HEADER_LEN).into());
        let count = self.spare.needed(len);
        if count == 0 {
            return Ok(Step::Idle);
        }
        let number = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        put_at(self.spare.ranges(false), NUM_BUFFERS_AT, &number, ram)?;
        let mut left = len;
        for Buffer { head, len, .. } in self.spare.take(count) {
            walk.finish(ram, head, left.min(len))?;
            left = left.saturating_sub(len);
        }
        Ok(Step::Done)
    }
}
