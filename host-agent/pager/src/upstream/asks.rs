//! The questions that have no answer yet: pure.
//!
//! ```text
//! begun ──▶ waiting ──answered──▶ forgotten, who waits has it
//!              │ who waits gives up                ▲ answered after all: thrown away
//!              ╰──────────▶ given up ──────────────╯
//! another agent: what is given up is forgotten, as it was never asked; what waits is asked again
//! ```
//! One that is given up keeps its place until it is answered, so an agent never has more of them at once than may be.

use super::messages::Wanted;
use std::collections::BTreeMap;

/// An answer to a question that nobody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to question {0}, which nobody asked")]
pub struct Unasked(pub u64);

/// As many questions wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many questions wait for the agent as may")]
pub struct Full;

#[derive(Debug)]
struct Ask<T> {
    wanted: Wanted,
    /// `None`: given up.
    waits: Option<T>,
}

/// All of them; `T` is told what becomes of one.
#[derive(Debug)]
pub struct Asks<T> {
    next: u64,
    most: usize,
    all: BTreeMap<u64, Ask<T>>,
}

impl<T> Asks<T> {
    /// At most so many at once.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { next: 0, most, all: BTreeMap::new() }
    }

    /// A question for an object of at most `most` bytes.
    pub fn begin(&mut self, name: [u8; 32], most: u64, waits: T) -> Result<Wanted, Full> {
        if self.all.len() >= self.most {
            return Err(Full);
        }
        self.next += 1;
        let wanted = Wanted { ask: self.next, name, most };
        self.all.insert(self.next, Ask { wanted, waits: Some(waits) });
        Ok(wanted)
    }

    /// One is answered: what it was, and who waits for that, unless he gave up.
    pub fn answered(&mut self, ask: u64) -> Result<(Wanted, Option<T>), Unasked> {
        let Ask { wanted, waits } = self.all.remove(&ask).ok_or(Unasked(ask))?;
        Ok((wanted, waits))
    }

    /// Nobody waits for this one any more.
    pub fn give_up(&mut self, ask: u64) {
        if let Some(ask) = self.all.get_mut(&ask) {
            ask.waits = None;
        }
    }

    /// What another agent is to be asked, in the order in which it was.
    pub fn again(&mut self) -> Vec<Wanted> {
        self.all.retain(|_, ask| ask.waits.is_some());
        self.all.values().map(|ask| ask.wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Begin(u8),
        Answer(u64),
        GiveUp(u64),
        Again,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Begin),
            3 => (0..40_u64).prop_map(Step::Answer),
            2 => (0..40_u64).prop_map(Step::GiveUp),
            1 => Just(Step::Again),
        ]
    }

    proptest! {
        /// The model: a list of what was asked and is not answered. Nobody's answer goes to somebody else, none is given twice, none
        /// that was not asked for is taken, and there are never more than may be.
        #[test]
        fn answers_go_to_who_asked(steps in prop::collection::vec(step(), 0..120)) {
            const MOST: usize = 5;
            let mut asks = Asks::new(MOST);
            let mut model: Vec<(Wanted, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin(byte) => {
                        let begun = asks.begin([byte; 32], u64::from(byte), byte);
                        prop_assert_eq!(begun.is_ok(), model.len() < MOST);
                        if let Ok(wanted) = begun {
                            prop_assert_eq!((wanted.name, wanted.most), ([byte; 32], u64::from(byte)));
                            prop_assert!(model.iter().all(|(other, _)| other.ask < wanted.ask), "a number twice");
                            model.push((wanted, true));
                        }
                    }
                    Step::Answer(ask) => {
                        let place = model.iter().position(|(wanted, _)| wanted.ask == ask);
                        let expected = place.map(|place| model.remove(place));
                        let expected = expected.map(|(wanted, waits)| (wanted, waits.then_some(wanted.name[0])));
                        prop_assert_eq!(asks.answered(ask), expected.ok_or(Unasked(ask)));
                    }
                    Step::GiveUp(ask) => {
                        asks.give_up(ask);
                        model.iter_mut().filter(|(wanted, _)| wanted.ask == ask).for_each(|one| one.1 = false);
                    }
                    Step::Again => {
                        model.retain(|(_, waits)| *waits);
                        prop_assert_eq!(asks.again(), model.iter().map(|(wanted, _)| *wanted).collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
