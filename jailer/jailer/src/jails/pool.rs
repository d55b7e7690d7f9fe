//! Slots that are ready: made while nothing else is to be done, taken by who asks.

use super::{Jails, RefusedSpawn};
use crate::ready::Ready;
use std::os::fd::BorrowedFd;
use warren_sandbox_plan::plan::Plan;

impl Jails {
    /// One that waits, or a new one.
    pub(super) fn take_ready(&mut self) -> Result<Ready, RefusedSpawn> {
        self.stalled = false;
        while let Some(ready) = self.ready.pop_front() {
            if ready.waits() {
                return Ok(ready);
            }
            self.discard(ready);
        }
        self.make_one()
    }

    fn make_one(&mut self) -> Result<Ready, RefusedSpawn> {
        let slot = self.slots.take().ok_or(RefusedSpawn::NoSlot)?;
        let ahead = Plan::ahead(&self.host.facts, slot, self.host.uid(slot));
        self.host.spawner().make_ready(slot, &ahead).map_err(|error| {
            self.slots.give(slot, self.host.slots);
            error.into()
        })
    }

    /// Whether a slot is to be made ready as soon as nothing else is to be done.
    pub(crate) fn wants_ready(&self) -> bool {
        !self.stalled && self.ready.len() < self.host.ready && self.slots.has_free()
    }

    /// Makes one ready: its slot and what tells of its end.
    pub(crate) fn make_ready(&mut self) -> Option<(u32, BorrowedFd<'_>)> {
        let Ok(ready) = self.make_one() else {
            // A spawn will say why.
            self.stalled = true;
            return None;
        };
        self.ready.push_back(ready);
        self.ready.back().and_then(|ready| Some((ready.slot(), ready.pidfd()?)))
    }

    /// Clears away one that has ended, or is not wanted any more, before anybody asked for it.
    pub(crate) fn lose_ready(&mut self, slot: u32) {
        if let Some(at) = self.ready.iter().position(|ready| ready.slot() == slot)
            && let Some(ready) = self.ready.remove(at)
        {
            self.stalled = true;
            self.discard(ready);
        }
    }

    fn discard(&mut self, ready: Ready) {
        self.dirty.push(ready.discard());
        self.sweep();
    }

    /// Ends all that wait.
    pub(super) fn discard_all(&mut self) {
        while let Some(ready) = self.ready.pop_front() {
            self.discard(ready);
        }
    }
}
