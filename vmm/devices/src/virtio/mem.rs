//! Memory that is plugged while the guest runs (virtio 1.2, 5.15): a region of blocks, each of them there or not.
//!
//! ```text
//!               PLUG, as far as the host wants                    UNPLUG, UNPLUG_ALL
//!  Unplugged ---------------------------------------> Plugged -----------------------> Unplugged
//! ```
//! A request is judged first ([`Blocks::judge`]), then whoever has the memory makes the change, and only what was made is written
//! down ([`Blocks::made`]). All or nothing: a request that fits in part changes nothing.
//!
//! A reset of the device unplugs nothing (5.15.6): the memory stays the guest's, and its next driver asks what is there.

use super::chain::{Chain, Memory};
use alloc::vec::Vec;
use core::ops::Range;

/// Device id (5).
pub const ID: u32 = 24;
/// Its queue's largest size.
pub const QUEUES: [u16; 1] = [64];
/// The driver touches no block that is not plugged.
pub const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Bytes of the smallest block: a large page, so that blocks neither share nor split one.
pub const BLOCK_MIN: u64 = 2 << 20;
/// Most blocks of a region: each that stands alone can cost the host a mapping.
pub const BLOCKS_MAX: u64 = 1 << 14;

/// Where the configuration says how much is plugged.
pub const PLUGGED_AT: usize = 40;
/// Where it says how much the host wants to be.
pub const REQUESTED_AT: usize = 48;

/// Bytes of a request.
const REQUEST_LEN: usize = 24;
/// Bytes of an answer.
pub const ANSWER_LEN: usize = 10;

/// What a driver asks for; nothing of it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Blocks to be there.
    Plug(Place),
    /// Blocks to go.
    Unplug(Place),
    /// All to go.
    UnplugAll,
    /// Whether blocks are there.
    State(Place),
    /// A type that there is not.
    Unknown,
}

/// Blocks as a driver names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte.
    pub gpa: u64,
    /// How many.
    pub blocks: u16,
}

/// An answer (5.15.6.1 and following).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Ack,
    /// Not now: more than the host wants.
    Nack,
    /// Not now: the host cannot.
    Busy,
    /// Never: the request is wrong.
    Error,
    /// To a question of state.
    State(State),
}

/// The state of some blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of them are there.
    Plugged = 0,
    /// None is.
    Unplugged = 1,
    /// Some are.
    Mixed = 2,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes.
    Say(Answer),
    /// These change, and then the answer is [`Answer::Ack`].
    Do(Change),
}

/// Blocks that change, one behind the other. Holding one proves that they lie in the region, and that it is a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Numbers of the blocks.
    pub blocks: Range<usize>,
    /// Whether they are to be there.
    pub plug: bool,
}

/// The blocks of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    start: u64,
    block: u64,
    plugged: Vec<bool>,
}

impl Request {
    /// Reads a request; `None` if it is too short to be one.
    pub fn read(chain: &Chain, memory: &impl Memory) -> Option<Self> {
        let [t0, t1, _, _, _, _, _, _, a0, a1, a2, a3, a4, a5, a6, a7, n0, n1, ..] =
            chain.copy_head::<REQUEST_LEN>(memory)?;
        let place = Place {
            gpa: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            blocks: u16::from_le_bytes([n0, n1]),
        };
        Some(match u16::from_le_bytes([t0, t1]) {
            0 => Self::Plug(place),
            1 => Self::Unplug(place),
            2 => Self::UnplugAll,
            3 => Self::State(place),
            _ => Self::Unknown,
        })
    }
}

impl Answer {
    /// As the driver reads it.
    #[must_use]
    pub fn bytes(self) -> [u8; ANSWER_LEN] {
        let (kind, state) = match self {
            Self::Ack => (0, 0),
            Self::Nack => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
            Self::State(state) => (0, state as u8),
        };
        [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
    }
}

/// Bytes of a block of a region: a power of two.
#[must_use]
pub fn block_for(region: u64) -> u64 {
    region.div_ceil(BLOCKS_MAX).next_power_of_two().max(BLOCK_MIN)
}

impl Blocks {
    /// A region of which nothing is plugged; what is left over behind the last whole block is not part of it.
    #[must_use]
    pub fn new(start: u64, len: u64) -> Self {
        let block = block_for(len);
        let count = usize::try_from(len / block).unwrap_or(0);
        Self { start, block, plugged: alloc::vec![false; count] }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block(&self) -> u64 {
        self.block
    }

    /// Bytes of the region.
    #[must_use]
    pub fn region(&self) -> u64 {
        self.plugged.len() as u64 * self.block
    }

    /// Bytes that are plugged.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        self.plugged.iter().filter(|plugged| **plugged).count() as u64 * self.block
    }

    /// The configuration space, with so much wanted.
    #[must_use]
    pub fn config(&self, requested: u64) -> Vec<u8> {
        let node = 0;
        [self.block, node, self.start, self.region(), self.region(), self.plugged(), requested]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// What becomes of a request while the host wants so many bytes plugged.
    #[must_use]
    pub fn judge(&self, request: Request, requested: u64) -> Verdict {
        let (place, plug) = match request {
            Request::Plug(place) => (place, true),
            Request::Unplug(place) => (place, false),
            Request::UnplugAll if self.plugged.iter().any(|plugged| *plugged) => {
                return Verdict::Do(Change { blocks: 0..self.plugged.len(), plug: false });
            }
            Request::UnplugAll => return Verdict::Say(Answer::Ack),
            Request::State(place) => {
                return Verdict::Say(self.state(place).map_or(Answer::Error, Answer::State));
            }
            Request::Unknown => return Verdict::Say(Answer::Error),
        };
        let opposite = if plug { State::Unplugged } else { State::Plugged };
        let Some(blocks) = self.numbers(place).filter(|_| self.state(place) == Some(opposite)) else {
            return Verdict::Say(Answer::Error);
        };
        let more = blocks.len() as u64 * self.block;
        if plug && self.plugged().saturating_add(more) > requested {
            return Verdict::Say(Answer::Nack);
        }
        Verdict::Do(Change { blocks, plug })
    }

    /// A change was made.
    pub fn made(&mut self, change: &Change) {
        if let Some(blocks) = self.plugged.get_mut(change.blocks.clone()) {
            blocks.fill(change.plug);
        }
    }

    /// Where blocks lie in the region: first byte and how many.
    #[must_use]
    pub fn bytes(&self, blocks: &Range<usize>) -> (u64, u64) {
        (blocks.start as u64 * self.block, blocks.len() as u64 * self.block)
    }

    fn state(&self, place: Place) -> Option<State> {
        let blocks = self.plugged.get(self.numbers(place)?)?;
        Some(match blocks.iter().filter(|plugged| **plugged).count() {
            0 => State::Unplugged,
            all if all == blocks.len() => State::Plugged,
            _ => State::Mixed,
        })
    }

    /// The numbers of blocks that a driver names, if they are whole blocks of the region.
    fn numbers(&self, place: Place) -> Option<Range<usize>> {
        let at = place.gpa.checked_sub(self.start).filter(|at| at.is_multiple_of(self.block))?;
        let first = usize::try_from(at / self.block).ok()?;
        let end = first.checked_add(usize::from(place.blocks))?;
        (first < end && end <= self.plugged.len()).then_some(first..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::chain::tests::{Flat, chain};
    use proptest::prelude::*;

    const START: u64 = 4 << 30;
    const MIB: u64 = 1 << 20;

    fn at(block: u64, blocks: u16) -> Place {
        Place { gpa: START + block * BLOCK_MIN, blocks }
    }

    /// Judges, and makes what is to be made.
    fn ask(blocks: &mut Blocks, request: Request, requested: u64) -> Answer {
        match blocks.judge(request, requested) {
            Verdict::Say(answer) => answer,
            Verdict::Do(change) => {
                blocks.made(&change);
                Answer::Ack
            }
        }
    }

    #[test]
    fn blocks_come_and_go_as_the_host_wants() {
        let mut blocks = Blocks::new(START, 32 * MIB);
        let wanted = 16 * MIB;
        for (request, answer, plugged) in [
            (Request::State(at(0, 16)), Answer::State(State::Unplugged), 0),
            (Request::Plug(at(2, 4)), Answer::Ack, 8),
            (Request::State(at(2, 4)), Answer::State(State::Plugged), 8),
            (Request::State(at(1, 2)), Answer::State(State::Mixed), 8),
            (Request::Plug(at(5, 1)), Answer::Error, 8),
            (Request::Plug(at(5, 2)), Answer::Error, 8),
            (Request::Plug(at(6, 5)), Answer::Nack, 8),
            (Request::Plug(at(12, 4)), Answer::Ack, 16),
            (Request::Unplug(at(1, 2)), Answer::Error, 16),
            (Request::Unplug(at(3, 1)), Answer::Ack, 14),
            (Request::Plug(at(0, 0)), Answer::Error, 14),
            (Request::Plug(at(16, 1)), Answer::Error, 14),
            (Request::Plug(at(0, u16::MAX)), Answer::Error, 14),
            (Request::State(Place { gpa: START + 4096, blocks: 1 }), Answer::Error, 14),
            (Request::State(Place { gpa: 0, blocks: 1 }), Answer::Error, 14),
            (Request::State(Place { gpa: u64::MAX - BLOCK_MIN + 1, blocks: 1 }), Answer::Error, 14),
            (Request::Unknown, Answer::Error, 14),
            (Request::UnplugAll, Answer::Ack, 0),
            (Request::UnplugAll, Answer::Ack, 0),
        ] {
            assert_eq!(ask(&mut blocks, request, wanted), answer, "{request:?}");
            assert_eq!(blocks.plugged(), plugged * MIB, "{request:?}");
        }
    }

    #[test]
    fn messages_are_as_the_specification_has_them() {
        let memory = Flat::new(64);
        let bytes =
            [&1_u16.to_le_bytes()[..], &[0xEE; 6], &START.to_le_bytes(), &7_u16.to_le_bytes(), &[0xEE; 6]];
        memory.0.borrow_mut()[..REQUEST_LEN].copy_from_slice(&bytes.concat());
        let request = Request::read(&chain(&memory, &[(0, 24)], &[]), &memory);
        assert_eq!(request, Some(Request::Unplug(at(0, 7))));
        assert_eq!(Request::read(&chain(&memory, &[(0, 23)], &[]), &memory), None);
        assert_eq!(Answer::State(State::Mixed).bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(Answer::Error.bytes(), [3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let config = Blocks::new(START, 9 * MIB).config(4 * MIB);
        let word = |at: usize| u64::from_le_bytes(config[at..at + 8].try_into().unwrap());
        let words = [0, 8, 16, 24, 32, PLUGGED_AT, REQUESTED_AT].map(word);
        assert_eq!(words, [2 * MIB, 0, START, 8 * MIB, 8 * MIB, 0, 4 * MIB]);
    }

    #[test]
    fn large_regions_have_larger_blocks() {
        for (region, block) in
            [(0, 2 * MIB), (32 << 30, 2 * MIB), ((32 << 30) + 1, 4 * MIB), (512 << 30, 32 * MIB)]
        {
            assert_eq!(block_for(region), block, "{region:#x}");
        }
    }

    proptest! {
        /// Any driver: it never has more than the host wanted when it asked, and the state is what was acknowledged.
        #[test]
        fn nothing_is_plugged_that_nobody_wanted(
            steps in prop::collection::vec((0_u8..4, 0_u64..20, 0_u16..20, 0_u64..20), 0..60)
        ) {
            let mut blocks = Blocks::new(START, 16 * BLOCK_MIN);
            let mut model = [false; 16];
            for (kind, block, count, wanted) in steps {
                let place = at(block, count);
                let named = usize::try_from(block).unwrap()..usize::try_from(block).unwrap() + usize::from(count);
                let request = match kind {
                    0 => Request::Plug(place),
                    1 => Request::Unplug(place),
                    2 => Request::State(place),
                    _ => Request::UnplugAll,
                };
                let before = blocks.plugged();
                let answer = ask(&mut blocks, request, wanted * BLOCK_MIN);
                match (kind, answer) {
                    (0 | 1, Answer::Ack) => model[named].fill(kind == 0),
                    (3, Answer::Ack) => model.fill(false),
                    _ => {}
                }
                prop_assert_eq!(&blocks.plugged, &model);
                prop_assert!(blocks.plugged() <= before.max(wanted * BLOCK_MIN));
            }
        }
    }
}
