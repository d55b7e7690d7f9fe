//! The holder's core: what a frontend holds of one pool.

use crate::leader::{Grant, GrantId, TTL_MS};

/// Slots asked for at once: enough that a burst asks rarely, few enough that many frontends get some.
const STEP: u32 = 16;

#[derive(Clone, Debug)]
struct Held {
    id: GrantId,
    epoch: u64,
    slots: u32,
    used: u32,
    until_ms: u64,
}

/// What is held of one pool.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    held: Vec<Held>,
    /// Most slots in use at once since the last look.
    peak: u32,
}

impl Slices {
    /// A grant arrived; asked for at that time on this clock.
    pub fn add(&mut self, grant: &Grant, asked_ms: u64) {
        self.held.push(Held {
            id: grant.id,
            epoch: grant.epoch,
            slots: grant.slots,
            used: 0,
            until_ms: asked_ms.saturating_add(TTL_MS),
        });
    }

    /// Takes a slot, if one is free and still good.
    pub fn admit(&mut self, now_ms: u64) -> Option<(GrantId, u64)> {
        let held = self.held.iter_mut().find(|held| held.used < held.slots && now_ms < held.until_ms)?;
        held.used += 1;
        let ticket = (held.id, held.epoch);
        self.peak = self.peak.max(self.used());
        Some(ticket)
    }

    /// Gives a slot back that was taken under this grant.
    pub fn release(&mut self, id: GrantId) {
        if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
            held.used = held.used.saturating_sub(1);
        }
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.held.iter().fold(0, |sum, held| sum.saturating_add(held.used))
    }

    /// Slots free.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.held.iter().fold(0, |sum, held| sum.saturating_add(held.slots.saturating_sub(held.used)))
    }

    /// How many more to ask for, ahead of need; 0 if there is enough.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        let used = self.used();
        // A quarter in reserve; growing by half of what is in use keeps a burst to a few questions.
        if self.free() > used / 4 { 0 } else { STEP.max(used / 2) }
    }

    /// What to give back: slots that the last spell did not need, beyond a step; and whatever is free beyond the
    /// pool's limit, which may have shrunk. Looking begins a new spell.
    pub fn resize(&mut self, limit: u32) -> Vec<(GrantId, u32)> {
        let keep = self.peak.saturating_add(STEP.max(self.peak / 2)).min(limit);
        self.peak = self.used();
        let slots = self.held.iter().fold(0_u32, |sum, held| sum.saturating_add(held.slots));
        self.take_free(slots.saturating_sub(keep))
    }

    /// Everything that is held and not in use, to give back.
    pub fn take_idle(&mut self) -> Vec<(GrantId, u32)> {
        self.take_free(u32::MAX)
    }

    /// Grants to renew.
    pub fn ids(&self) -> impl Iterator<Item = GrantId> {
        self.held.iter().map(|held| held.id)
    }

    /// The leader's answer to a renewal that was asked at that time; a closed grant admits nothing more.
    pub fn renewed(&mut self, id: GrantId, still_good: bool, asked_ms: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
            held.until_ms = if still_good { asked_ms.saturating_add(TTL_MS) } else { 0 };
        }
        self.held.retain(|held| held.until_ms > 0 || held.used > 0);
    }

    fn take_free(&mut self, most: u32) -> Vec<(GrantId, u32)> {
        let mut left = most;
        let mut back = Vec::new();
        for held in self.held.iter_mut().rev() {
            let some = held.slots.saturating_sub(held.used).min(left);
            if some > 0 {
                held.slots -= some;
                left -= some;
                back.push((held.id, some));
            }
        }
        self.held.retain(|held| held.slots > 0);
        back
    }
}
