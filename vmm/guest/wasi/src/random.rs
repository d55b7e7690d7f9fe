//! The sandbox's random bytes: ChaCha20, keyed by the host with every event.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// A generator that the host's seeds are mixed into.
#[derive(Debug)]
pub struct Random(ChaCha20Rng);

impl Random {
    /// Keyed by one seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Takes a new seed. It is mixed with what the generator would have given next, so that neither alone decides;
    /// with `forget` the seed stands alone, so that clones of one sandbox share nothing.
    pub fn reseed(&mut self, seed: [u8; 32], forget: bool) {
        let mut key = [0; 32];
        if !forget {
            self.fill(&mut key);
        }
        for (byte, fresh) in key.iter_mut().zip(seed) {
            *byte ^= fresh;
        }
        *self = Self::new(key);
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
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
}
