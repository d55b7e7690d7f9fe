//! Who is asked for a name: the worker whose id weighs most with it, then the next.
//!
//! Every worker computes the same from the same list. When one comes or goes, only the names it had move.

use crate::name::Name;

/// The places of `ids` in the order they are asked for a name.
#[must_use]
pub fn ranked<'a>(name: Name, ids: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let mut weighed: Vec<([u8; 32], usize)> = ids
        .into_iter()
        .enumerate()
        .map(|(place, id)| (*blake3::keyed_hash(&name.0, id.as_bytes()).as_bytes(), place))
        .collect();
    weighed.sort_unstable_by(|one, two| two.cmp(one));
    weighed.into_iter().map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> Name {
        Name::of(&number.to_le_bytes())
    }

    #[test]
    fn names_spread_and_only_those_of_who_leaves_move() {
        let ids = ["a", "b", "c", "d", "e"];
        let mut counts = [0u32; 5];
        for number in 0..1000 {
            let before = ranked(name(number), ids);
            counts[before[0]] += 1;
            // Whoever lists them in another order finds the same worker.
            let other_order = ["e", "d", "c", "b", "a"];
            assert_eq!(other_order[ranked(name(number), other_order)[0]], ids[before[0]]);
            let after = ranked(name(number), ids[..4].iter().copied());
            let expected: Vec<usize> = before.into_iter().filter(|&place| place != 4).collect();
            assert_eq!(after, expected);
        }
        assert!(counts.iter().all(|&count| (120..280).contains(&count)), "{counts:?}");
    }
}
