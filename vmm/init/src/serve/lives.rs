//! Which life of a guest this is, and what may be asked of it on which connection. Pure.
//!
//! ```text
//!  Own ──it held still on connection N──▶ Still(N) ──an event, or its configuration, on N──▶ Own: this is who was written down
//!                                            │ Restored on another connection
//!                                            └──▶ renewed ──▶ Own: this is a copy
//! ```
//! Who said that it holds still may be one of many afterwards: on another connection nothing is taken but that it was restored, and
//! that it is to end. It is the same before a guest is configured and after.

/// What is known of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lives {
    life: Life,
    /// The generation that it was told last.
    generation: Option<u128>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Own,
    /// It may have been written down since it said on this connection that it holds still.
    Still { on: u64 },
}

/// What follows from being told that it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is to become one of its own, and then [`Lives::renewed`].
    News,
    /// It is that already: the answer was lost.
    Known,
    /// That cannot be.
    Refused,
}

impl Lives {
    /// Whether it is surely who it was, for whoever asks on this connection.
    pub(crate) fn is_own(&self, on: u64) -> bool {
        matches!(self.life, Life::Own) || self.life == Life::Still { on }
    }

    /// It goes on, as who it was: to be asked only where [`Lives::is_own`].
    pub(crate) const fn go_on(&mut self) {
        self.life = Life::Own;
    }

    /// It is about to say on this connection that it holds still.
    pub(crate) const fn hold_still(&mut self, on: u64) {
        self.life = Life::Still { on };
    }

    /// It is told on this connection that it was restored as this generation.
    pub(crate) fn told(&self, on: u64, generation: u128) -> Told {
        match self.life {
            Life::Still { on: held } if held != on => Told::News,
            Life::Own if self.generation == Some(generation) => Told::Known,
            _ => Told::Refused,
        }
    }

    /// It is a copy, and one of its own from here on.
    pub(crate) const fn renewed(&mut self, generation: u128) {
        (self.life, self.generation) = (Life::Own, Some(generation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Connect,
        HoldStill,
        /// What it was when it said last that it holds still is brought back: connections are other ones.
        BringBack,
        Restored(u8),
        Work,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Connect),
            Just(Step::HoldStill),
            Just(Step::BringBack),
            (0_u8..3).prop_map(Step::Restored),
            Just(Step::Work),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Nothing runs in a copy that was not made one of its own, none is made so twice, and each can be.
        #[test]
        fn no_copy_works_as_another(steps in prop::collection::vec(step(), 0..40)) {
            let (mut lives, mut on) = (Lives::default(), 0);
            // As it was written down, with the connection of then; whether this is a copy that nobody told.
            let (mut written, mut is_untold) = (None, false);
            for step in steps {
                match step {
                    Step::Connect => on += 1,
                    Step::HoldStill if lives.is_own(on) => {
                        prop_assert!(!is_untold, "one that is not its own holds still for another");
                        lives.hold_still(on);
                        written = Some((lives.clone(), on));
                    }
                    Step::BringBack => if let Some((was, then)) = &written {
                        (lives, on, is_untold) = (was.clone(), then + 1, true);
                    }
                    Step::Restored(generation) => match lives.told(on, generation.into()) {
                        Told::News => {
                            lives.renewed(generation.into());
                            is_untold = false;
                            prop_assert!(lives.is_own(on) && lives.told(on, generation.into()) == Told::Known);
                        }
                        Told::Known => prop_assert!(!is_untold, "another's generation is taken for its own"),
                        Told::Refused => prop_assert!(!is_untold || lives.is_own(on), "a copy is refused its own life"),
                    },
                    Step::Work if lives.is_own(on) => {
                        prop_assert!(!is_untold, "a copy works as another");
                        lives.go_on();
                    }
                    Step::HoldStill | Step::Work => {}
                }
            }
        }
    }

    #[test]
    fn on_its_own_connection_it_is_who_it_was() {
        let mut lives = Lives::default();
        assert_eq!(lives.told(0, 7), Told::Refused, "nobody wrote it down");
        lives.hold_still(0);
        assert!(lives.is_own(0) && !lives.is_own(1));
        assert_eq!((lives.told(0, 7), lives.told(1, 7)), (Told::Refused, Told::News));
        lives.go_on();
        assert!(lives.is_own(1));
        assert_eq!(lives.told(1, 7), Told::Refused);
    }
}
