//! What the pager, its agent and its VMMs say to each other. Neither believes the other.

use crate::Input;
use std::collections::BTreeMap;
use warren_chunks::manifest::sealed::MAX_MANIFEST_BYTES;
use warren_pager::{
    journal::TOUCHED_MAX,
    protocol::{self, PACKET_MAX, Reply, Request},
    upstream::{
        asks::{Asks, Unasked},
        messages::{self, ASKS_MAX, Answer, Outcome, Wanted},
    },
};
use warren_vmm_protocol::pager::{self, Farewell, Offer};

/// What a VMM offers its pager, and the pager's last word: one line of text that is bounded, whatever came.
pub(crate) fn packet(bytes: &[u8]) {
    if let Some(offer) = pager::decode::<Offer>(bytes) {
        let again = pager::encode(&offer).expect("it came in a packet");
        assert_eq!(pager::decode::<Offer>(&again), Some(offer));
    }
    if let Some(farewell) = pager::decode::<Farewell>(bytes) {
        let why = farewell.why();
        assert!(why.len() <= 512 && !why.contains(char::is_control), "{why:?}");
    }
}

/// What an agent asks of its pager, and what that answers. A report's log names no more pages than it says.
pub(crate) fn request(bytes: &[u8]) {
    if let Some(request) = protocol::decode::<Request>(bytes) {
        let again = protocol::encode(&request).expect("it came in a packet");
        let same = protocol::decode::<Request>(&again).expect("our own");
        assert_eq!(*protocol::encode(&same).expect("our own"), *again);
    }
    let Some(reply) = protocol::decode::<Reply>(bytes) else { return };
    let again = protocol::encode(&reply).expect("it came in a packet");
    assert!(again.len() <= PACKET_MAX);
    assert_eq!(protocol::decode::<Reply>(&again).as_ref(), Some(&reply));
    let Some(entry) = reply.entry() else { return };
    // What an agent does with it: whoever reads it goes through each page that it claims.
    let claimed: u64 = entry.touched.iter().map(|run| u64::from(run.count)).sum();
    assert!(claimed <= TOUCHED_MAX.into());
    if let Some(log) = entry.log() {
        assert!(log.pages() == claimed && log.resumes() == 1, "a page twice");
    }
}

/// The socket by which a pager asks for what it cannot reach, from both ends: packets of any bytes in any order, agents that go and
/// come. No answer is taken that was not asked for, none twice, none reaches somebody else, and no more wait than may.
pub(crate) fn upstream(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut asks = Asks::new(ASKS_MAX);
    let mut model: BTreeMap<u64, (Wanted, bool)> = BTreeMap::new();
    while !input.is_empty() {
        match input.byte() % 5 {
            0 => {
                let (name, most) = ([input.byte(); 32], input.long());
                let begun = asks.begin(name, most, name[0]);
                assert_eq!(begun.is_ok(), model.len() < ASKS_MAX);
                if let Ok(wanted) = begun {
                    let packet = messages::encode(&wanted).expect("bounded");
                    assert_eq!(messages::decode::<Wanted>(&packet), Some(wanted));
                    assert!(model.insert(wanted.ask, (wanted, true)).is_none(), "a number twice");
                }
            }
            1 => {
                let ask = u64::from(input.byte());
                asks.give_up(ask);
                model.entry(ask).and_modify(|one| one.1 = false);
            }
            2 => {
                model.retain(|_, (_, waits)| *waits);
                assert!(asks.again().iter().eq(model.values().map(|(wanted, _)| wanted)));
            }
            // From the agent.
            3 => {
                let len = usize::from(input.byte());
                let Some(answer) = messages::decode::<Answer>(take(&mut input, len)) else { continue };
                let again = messages::encode(&answer).expect("it came in a packet");
                assert_eq!(messages::decode::<Answer>(&again).as_ref(), Some(&answer));
                let expected = model
                    .remove(&answer.ask)
                    .map(|(wanted, waits)| (wanted, waits.then_some(wanted.name[0])));
                assert_eq!(asks.answered(answer.ask), expected.ok_or(Unasked(answer.ask)));
                let fetched = matches!(answer.outcome, Outcome::Fetched { .. });
                match answer.outcome.judged() {
                    Ok(_) => assert!(fetched),
                    Err(error) => assert!(!fetched && error.to_string().len() < 2 * messages::PACKET_MAX),
                }
            }
            // From the pager, as an agent judges it.
            _ => {
                let len = usize::from(input.byte());
                let Some(wanted) = messages::decode::<Wanted>(take(&mut input, len)) else { continue };
                let again = messages::encode(&wanted).expect("it came in a packet");
                assert_eq!(messages::decode::<Wanted>(&again), Some(wanted));
                let may = usize::try_from(wanted.most).is_ok_and(|most| most <= MAX_MANIFEST_BYTES);
                let outcome = if may { Outcome::Absent } else { Outcome::failed("more than there is") };
                let answer = messages::encode(&Answer { ask: wanted.ask, outcome }).expect("bounded");
                assert!(answer.len() <= messages::PACKET_MAX);
            }
        }
        assert!(model.len() <= ASKS_MAX);
    }
}

fn take<'a>(input: &mut Input<'a>, len: usize) -> &'a [u8] {
    let (head, rest) = input.0.split_at(len.min(input.0.len()));
    input.0 = rest;
    head
}
