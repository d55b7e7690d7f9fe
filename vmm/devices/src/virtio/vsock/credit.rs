//! Credit of one connection (virtio 1.2, 5.10.6.3): nobody sends what the other side has no room for.
//!
//! Counters run modulo 2^32, as in the packets. What the guest says about its own room is believed: who lies there only
//! starves or floods itself. What it *sends* is checked against the room it was told of.

/// Bytes held for a guest's connection until the host's side takes them.
pub const ROOM: u32 = 64 << 10;
/// The guest is told of room again when so much of it has become free since it was last told.
const TELL_AT: u32 = ROOM / 2;

/// The books of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// The guest's room, and how much it has passed on, as it last said.
    peer_alloc: u32,
    peer_forwarded: u32,
    /// Bytes sent to the guest.
    sent: u32,
    /// Bytes that came from the guest, and those of them that the host's side took.
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest last saw it.
    told: u32,
    /// The guest asked.
    asked: bool,
}

/// The guest sent more than there was room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than there was room for")]
pub struct Overrun;

impl Credit {
    /// Every packet of the guest's brings its side of the books.
    pub fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        (self.peer_alloc, self.peer_forwarded) = (buf_alloc, fwd_cnt);
    }

    /// How much may be sent to the guest now. Nothing when its counter is ahead of ours.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.peer_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// Bytes went to the guest.
    pub fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Bytes came from the guest, and are held until [`Self::forwarded`].
    pub fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        let held = self.held().checked_add(bytes).filter(|held| *held <= ROOM).ok_or(Overrun)?;
        self.received = self.forwarded.wrapping_add(held);
        Ok(())
    }

    /// The host's side took so many of the bytes held; more than that are no bytes.
    pub fn forwarded(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes.min(self.held()));
    }

    /// Bytes of the guest's that the host's side has not taken.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// The guest asked for the books.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether the guest should hear of room, if no packet tells it by the way.
    #[must_use]
    pub fn must_tell(&self) -> bool {
        self.asked || self.forwarded.wrapping_sub(self.told) >= TELL_AT
    }

    /// Our side of the books for a packet to the guest: `buf_alloc` and `fwd_cnt`.
    pub fn tell(&mut self) -> (u32, u32) {
        (self.told, self.asked) = (self.forwarded, false);
        (ROOM, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What two honest ends and the wire between them do.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        GuestSends(u32),
        HostTakes(u32),
        HostSends(u32),
        GuestTakes(u32),
        /// A packet each way, without bytes.
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || 0_u32..100_000;
        prop_oneof![
            bytes().prop_map(Step::GuestSends),
            bytes().prop_map(Step::HostTakes),
            bytes().prop_map(Step::HostSends),
            bytes().prop_map(Step::GuestTakes),
            Just(Step::Tell),
        ]
    }

    proptest! {
        /// The model counts in 64 bits from any start; counters may wrap at any moment.
        #[test]
        fn honest_ends_never_overrun_and_never_starve(
            start: u32,
            alloc in 1_u32..300_000,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut credit = Credit {
                sent: start, peer_forwarded: start, received: start, forwarded: start, told: start,
                ..Credit::default()
            };
            credit.update(alloc, start);
            let (mut held, mut unseen) = (0_u32, 0_u32);
            let (mut in_guest, mut guest_forwarded) = (0_u32, start);
            // What the guest knows of the host's room.
            let mut guest_sees_free = ROOM;
            for step in steps {
                match step {
                    Step::GuestSends(bytes) => {
                        let bytes = bytes.min(guest_sees_free);
                        prop_assert_eq!(credit.receive(bytes), Ok(()));
                        (held, guest_sees_free) = (held + bytes, guest_sees_free - bytes);
                        prop_assert_eq!(credit.receive(ROOM - held + 1), Err(Overrun));
                    }
                    Step::HostTakes(bytes) => {
                        credit.forwarded(bytes);
                        let bytes = bytes.min(held);
                        (held, unseen) = (held - bytes, unseen + bytes);
                    }
                    Step::HostSends(bytes) => {
                        let bytes = bytes.min(credit.free());
                        credit.sent(bytes);
                        in_guest += bytes;
                    }
                    Step::GuestTakes(bytes) => {
                        let bytes = bytes.min(in_guest);
                        in_guest -= bytes;
                        guest_forwarded = guest_forwarded.wrapping_add(bytes);
                    }
                    Step::Tell => {
                        credit.update(alloc, guest_forwarded);
                        credit.ask();
                        prop_assert!(credit.must_tell());
                        prop_assert_eq!(credit.free(), alloc - in_guest);
                    }
                }
                prop_assert_eq!(credit.held(), held);
                prop_assert!(held <= ROOM && in_guest <= alloc);
                prop_assert!(unseen < TELL_AT || credit.must_tell());
                if credit.must_tell() {
                    let (room, _) = credit.tell();
                    guest_sees_free = room - held;
                    unseen = 0;
                    prop_assert!(!credit.must_tell());
                }
            }
        }

        /// Whatever a guest writes into its packets.
        #[test]
        fn lies_are_numbers(fields in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()), 0..50)) {
            let mut credit = Credit::default();
            for (alloc, forwarded, bytes, sent) in fields {
                credit.update(alloc, forwarded);
                prop_assert!(credit.free() <= alloc);
                let before = credit.held();
                prop_assert_eq!(credit.receive(bytes).is_ok(), u64::from(before) + u64::from(bytes) <= u64::from(ROOM));
                prop_assert!(credit.held() <= ROOM);
                credit.forwarded(sent);
                credit.sent(sent.min(credit.free()));
            }
        }
    }
}
