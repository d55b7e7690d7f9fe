//! The addresses of sandboxes' network: what a guest sees, and what the host sees of it.
//!
//! ```text
//!  guest 192.0.0.2 ──tap wt7──┐                         ┌────────── host's namespace ──────────┐
//!                             ├─ router's namespace ─veth─ rules of one table ── masquerade ──▶ out
//!  guest 192.0.0.2 ──tap wt9──┘  192.0.0.2 ⇄ POOL.1.9   └──────────────────────────────────────┘
//! ```
//! Every guest has the same address, so that nothing in it depends on where it runs. At the tap's border it is exchanged,
//! without state, for the one address of its slot: a slot's number is the only record there is.

use core::fmt::{Display, Formatter, Result as FmtResult};
use serde::{Deserialize, Serialize};

/// Every guest's address. RFC 7335 keeps 192.0.0.0/29 for addresses that mean something within one host only, so it is
/// nobody's a function could want to reach.
pub const GUEST: [u8; 4] = [192, 0, 0, 2];
/// The way out, as every guest sees it.
pub const GATEWAY: [u8; 4] = [192, 0, 0, 1];
/// Length of the prefix of the two.
pub const GUEST_PREFIX: u8 = 29;
/// Whom a guest asks for names; the host passes it on to its own resolver.
pub const RESOLVER: [u8; 4] = [192, 0, 0, 10];
/// Every guest's link address, and that of every tap.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x4E, 0, 2];
/// The other end's.
pub const TAP_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x4E, 0, 1];
/// What the names of taps begin with; the slot's number follows.
pub const TAP: &str = "wt";

/// Slots that a pool has addresses for: the first 256 of its prefix are its own.
pub const MOST_SLOTS: u32 = 0x1_0000 - 0x100;

/// The /16 that the host sees sandboxes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool([u8; 2]);

/// Text that is no [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPool;

impl Display for NoPool {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str("a pool is a network of 65,536 addresses, such as 100.100.0.0/16")
    }
}

impl core::error::Error for NoPool {}

impl Pool {
    /// One of the 64 in 100.64.0.0/10, the range that RFC 6598 keeps for address translation, chosen by a number.
    #[must_use]
    pub const fn chosen_by(number: u32) -> Self {
        let [low, ..] = number.to_le_bytes();
        Self([100, 64 + low % 64])
    }

    /// The host's end of the link to the router.
    #[must_use]
    pub const fn host(self) -> [u8; 4] {
        self.at([0, 1])
    }

    /// The router's end.
    #[must_use]
    pub const fn router(self) -> [u8; 4] {
        self.at([0, 2])
    }

    /// The first address.
    #[must_use]
    pub const fn first(self) -> [u8; 4] {
        self.at([0, 0])
    }

    /// A slot's address, if there are that many.
    #[must_use]
    pub fn of_slot(self, slot: u32) -> Option<[u8; 4]> {
        let number = slot.checked_add(0x100).filter(|number| *number < 0x1_0000)?;
        let [_, _, high, low] = number.to_be_bytes();
        Some(self.at([high, low]))
    }

    const fn at(self, [c, d]: [u8; 2]) -> [u8; 4] {
        let Self([a, b]) = self;
        [a, b, c, d]
    }
}

impl core::str::FromStr for Pool {
    type Err = NoPool;

    fn from_str(text: &str) -> Result<Self, NoPool> {
        let network = text.strip_suffix("/16").ok_or(NoPool)?;
        let address: core::net::Ipv4Addr = network.parse().map_err(|_| NoPool)?;
        match address.octets() {
            [a @ 1..=223, b, 0, 0] if a != 127 && [a, b] != [169, 254] => Ok(Self([a, b])),
            _ => Err(NoPool),
        }
    }
}

impl Display for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let Self([a, b]) = self;
        write!(f, "{a}.{b}.0.0/16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, string::ToString};

    #[test]
    fn no_two_slots_share_an_address_and_none_has_the_links() {
        let pool = Pool::chosen_by(7);
        let all: BTreeSet<_> = (0..MOST_SLOTS).filter_map(|slot| pool.of_slot(slot)).collect();
        assert_eq!(all.len(), MOST_SLOTS as usize);
        assert!([pool.host(), pool.router(), pool.first()].iter().all(|own| !all.contains(own)));
        assert_eq!(pool.of_slot(0), Some([100, 71, 1, 0]));
        assert_eq!((pool.of_slot(MOST_SLOTS), pool.of_slot(u32::MAX)), (None, None));
    }

    #[test]
    fn texts() {
        for good in ["100.64.0.0/16", "10.9.0.0/16", "198.18.0.0/16"] {
            assert_eq!(good.parse::<Pool>().map(|pool| pool.to_string()).as_deref(), Ok(good));
        }
        for bad in
            ["", "10.0.0.0", "10.0.0.0/8", "10.9.1.0/16", "127.0.0.0/16", "169.254.0.0/16", "224.1.0.0/16"]
        {
            assert_eq!(bad.parse::<Pool>(), Err(NoPool), "{bad}");
        }
        assert!(
            (0..1000)
                .all(|number| Pool::chosen_by(number).to_string().parse() == Ok(Pool::chosen_by(number)))
        );
    }
}
