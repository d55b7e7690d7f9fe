//! The sandbox's random bytes: ChaCha20, keyed by the host with every event.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// A generator that the host's seeds are mixed into, when bytes are next asked for: most events draw none.
#[derive(Debug)]
pub struct Random {
    generator: ChaCha20Rng,
    waiting: Option<Waiting>,
}

/// Seeds that came since the last draw, mixed with each other.
#[derive(Debug)]
struct Waiting {
    seed: [u8; 32],
    forget: bool,
}

impl Random {
    /// Keyed by one seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { generator: ChaCha20Rng::from_seed(seed), waiting: None }
    }

    /// Takes a new seed. It is mixed with what the generator would have given next, so that neither alone decides;
    /// with `forget` the seed stands alone, so that clones of one sandbox share nothing.
    pub fn reseed(&mut self, seed: [u8; 32], forget: bool) {
        let earlier = self.waiting.take().filter(|_| !forget);
        let forget = forget || earlier.as_ref().is_some_and(|earlier| earlier.forget);
        let seed = earlier.map_or(seed, |earlier| mixed(earlier.seed, seed));
        self.waiting = Some(Waiting { seed, forget });
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        if let Some(Waiting { seed, forget }) = self.waiting.take() {
            let mut past = [0; 32];
            if !forget {
                self.generator.fill_bytes(&mut past);
            }
            self.generator = ChaCha20Rng::from_seed(mixed(past, seed));
        }
        self.generator.fill_bytes(out);
    }
}

fn mixed(mut one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    for (byte, more) in one.iter_mut().zip(other) {
        *byte ^= more;
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(random: &mut Random) -> [u8; 16] {
        let mut out = [0; 16];
        random.fill(&mut out);
        out
    }

    #[test]
    fn seeds_are_mixed_or_stand_alone() {
        let (mut a, mut b) = (Random::new([1; 32]), Random::new([2; 32]));
        assert_ne!(draw(&mut a), draw(&mut b));
        // The same event seed on different pasts gives different bytes...
        a.reseed([3; 32], false);
        b.reseed([3; 32], false);
        assert_ne!(draw(&mut a), draw(&mut b));
        // ... and the same bytes once the past is forgotten; clones therefore get different seeds.
        a.reseed([4; 32], true);
        b.reseed([4; 32], true);
        assert_eq!(draw(&mut a), draw(&mut b));
    }
    #[test]
    fn every_seed_that_came_counts() {
        let after = |seeds: &[(u8, bool)]| {
            let mut random = Random::new([9; 32]);
            seeds.iter().for_each(|(seed, forget)| random.reseed([*seed; 32], *forget));
            draw(&mut random)
        };
        // Two seeds without a draw between them are not the later one alone, nor the earlier.
        let both = after(&[(1, false), (2, false)]);
        assert!(both != after(&[(2, false)]) && both != after(&[(1, false)]));
        // Forgetting drops what waits with the rest of the past, and goes on to hold for later seeds.
        assert_eq!(after(&[(1, false), (2, true)]), draw(&mut Random::new([2; 32])));
        assert_eq!(after(&[(2, true), (1, false)]), draw(&mut Random::new([3; 32])));
    }
}
