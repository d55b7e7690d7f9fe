//! What a pager and its agent say to each other about objects that the pager cannot reach: SOCK_SEQPACKET, one message a packet,
//! postcard. Versioned with the requests ([`crate::protocol::PROTOCOL_VERSION`]).

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use warren_chunks::{l3::OriginError, store::Whence};
use warren_vmm_protocol::pager::{decode_within, encode_within};

/// Most bytes of a packet, either way.
pub const PACKET_MAX: usize = 1024;
/// Most questions without an answer. An agent may refuse one more.
pub const ASKS_MAX: usize = 32;
/// Most bytes of a reason.
const WHY_MAX: usize = 400;

/// Pager to agent: an object that is in none of the pager's own tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What the answer is to say.
    pub ask: u64,
    /// Which object.
    pub name: [u8; 32],
    /// Most bytes it may have.
    pub most: u64,
}

/// Agent to pager. With [`Outcome::Fetched`] rides a memory file that nobody can change any more, which is the sealed object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// To which question.
    pub ask: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Here it is.
    Fetched {
        /// Which of the agent's tiers had it.
        from: Whence,
    },
    /// Nobody has it.
    Absent,
    /// What the origin has is not of its name.
    Damaged,
    /// Nobody answered the agent in time.
    Slow,
    /// Too much is under way.
    Overloaded,
    /// Something else.
    Failed {
        /// Why, in words.
        why: String,
    },
}

/// Why an agent has not got it, as it said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

impl Outcome {
    /// A failure in words, of a bounded length.
    #[must_use]
    pub fn failed(why: &str) -> Self {
        let end = (0..=why.len().min(WHY_MAX)).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        Self::Failed { why: why.get(..end).unwrap_or_default().to_owned() }
    }

    /// Where it was, or why it was not had.
    pub fn judged(self) -> Result<Whence, OriginError> {
        Err(match self {
            Self::Fetched { from } => return Ok(from),
            Self::Absent => OriginError::Absent,
            Self::Damaged => OriginError::Damaged,
            Self::Slow => OriginError::Slow,
            Self::Overloaded => OriginError::Overloaded,
            Self::Failed { why } => OriginError::Unavailable(Arc::new(Said(why))),
        })
    }
}

/// A packet of a message; `None` if it is larger than any.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    encode_within(PACKET_MAX, message)
}

/// The message of a packet, all of it; `None` if it is none.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Option<T> {
    decode_within(PACKET_MAX, packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes is a message, or none; what is one survives being sent on.
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(wanted) = decode::<Wanted>(&bytes) {
                prop_assert_eq!(decode::<Wanted>(&encode(&wanted).unwrap()), Some(wanted));
            }
            if let Some(answer) = decode::<Answer>(&bytes) {
                prop_assert_eq!(decode::<Answer>(&encode(&answer).unwrap()), Some(answer));
            }
        }

        /// However long a reason is, and wherever its characters end, it goes into a packet.
        #[test]
        fn any_reason_fits_a_packet(why in "\\PC{0,900}", ask: u64) {
            let answer = Answer { ask, outcome: Outcome::failed(&why) };
            prop_assert_eq!(decode::<Answer>(&encode(&answer).unwrap()), Some(answer.clone()));
            let Outcome::Failed { why: kept } = answer.outcome else { panic!("it failed") };
            prop_assert!(why.starts_with(&kept) && kept.len() <= WHY_MAX && kept.len() + 4 > why.len().min(WHY_MAX));
        }

        #[test]
        fn a_cut_question_is_none(ask: u64, name: [u8; 32], most: u64, cut in any::<prop::sample::Index>()) {
            let packet = encode(&Wanted { ask, name, most }).unwrap();
            prop_assert!(decode::<Wanted>(&packet[..cut.index(packet.len())]).is_none());
        }
    }
}
