//! The random bytes that every event brings its guest, fetched from the kernel some events' worth at a time: most of a
//! call's cost there is not the bytes.

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of one seed.
pub const SEED: usize = 32;
/// Seeds fetched at once: as many bytes as the kernel gives without fail and in one go.
const AT_ONCE: usize = 8;

/// Seeds not handed out yet. Each is handed out once, and gone from here then.
#[derive(Debug, Default)]
pub struct Seeds {
    waiting: [[u8; SEED]; AT_ONCE],
    left: usize,
}

impl Seeds {
    /// The next one.
    pub fn draw(&mut self) -> rustix::io::Result<[u8; SEED]> {
        if self.left == 0 {
            let len = getrandom(self.waiting.as_flattened_mut(), GetRandomFlags::empty())?;
            // Up to 256 bytes come whole; should they not, what came counts.
            self.left = len / SEED;
        }
        self.left = self.left.checked_sub(1).ok_or(rustix::io::Errno::IO)?;
        let seed = self.waiting.get_mut(self.left).ok_or(rustix::io::Errno::IO)?;
        Ok(std::mem::take(seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_seed_is_another_and_leaves_nothing() {
        let mut seeds = Seeds::default();
        let drawn: HashSet<_> = (0..5 * AT_ONCE).map(|_| seeds.draw().unwrap()).collect();
        assert_eq!((drawn.len(), drawn.contains(&[0; SEED])), (5 * AT_ONCE, false));
        assert_eq!((seeds.left, seeds.waiting), (0, [[0; SEED]; AT_ONCE]));
    }
}
