//! The rules, as data: how many there are depends on nothing but the host's settings.
//!
//! ```text
//!  tap ─▶ router: in ─── forward ───────────────────────────▶ host: own ── names ── forward ── out ─▶ the world
//!         only the guest's address,  not to another sandbox,        not the host's   the host's   masquerade
//!         which becomes the slot's   not where nobody may go        own addresses    resolver
//!
//!  tap ◀─ router: out ◀─ forward ◀──────────────────────────── host: forward: what belongs to a connection from inside
//! ```

use super::nft::{
    Chain,
    Expression::{self, Accept, Dnat, Drop, HasBits, In, Is, Load, Map, Masquerade, Reject, Set, Write},
    Field, Hook, Table, What,
};
use std::net::Ipv4Addr;
use warren_sandbox_plan::network::{GUEST, Pool, RESOLVER, TAP};

/// The router's end of the link to the host.
pub(super) const UPLINK: &str = "up0";
/// The router's table; its namespace has no other.
pub(super) const ROUTER: &str = "warren";

/// The mark of the host's table that says: forwarding was off before, and is to be off again.
pub(super) const SWITCHED: &str = "forwarding-was-off";

/// Where no function is to go: what is of this host alone, of its owner's own networks, or of nobody.
const PRIVATE: [(Ipv4Addr, u8); 8] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
/// Whatever an operator says: loopback; link-local addresses, with the metadata of whoever rents this machine out.
const NEVER: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(169, 254, 0, 0), 16)];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const DOMAIN: [u8; 2] = 53_u16.to_be_bytes();
/// Established or related.
const KNOWN: u32 = 2 | 4;
/// What fib says of an address of this host.
const LOCAL: u32 = 2;

/// A network, as text: `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    first: u32,
    last: u32,
}

/// Text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as 10.1.0.0/16, an address as 10.1.2.3")]
pub(crate) struct NoNetwork;

impl std::str::FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or(NoNetwork)?;
        let network = Self::of(address.parse().map_err(|_| NoNetwork)?, prefix);
        if u32::from(address.parse::<Ipv4Addr>().map_err(|_| NoNetwork)?) == network.first {
            Ok(network)
        } else {
            Err(NoNetwork)
        }
    }
}

impl Network {
    fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let first = u32::from(address) & !rest;
        Self { first, last: first | rest }
    }
}

/// Where functions may not go, as ranges in order and apart: what is private but not opened, and what never is.
fn denied(open: &[Network], pool: Pool) -> Vec<(u32, u32)> {
    let network = |(address, prefix): (Ipv4Addr, u8)| Network::of(address, prefix);
    let mut left: Vec<(u32, u32)> = Vec::new();
    for Network { first, last } in PRIVATE.map(network) {
        let mut pieces = vec![(first, last)];
        for open in open {
            pieces = pieces.into_iter().flat_map(|piece| without(piece, *open)).collect();
        }
        left.extend(pieces);
    }
    left.extend(NEVER.map(network).map(|it| (it.first, it.last)));
    let pool = Network::of(pool.first().into(), 16);
    left.push((pool.first, pool.last));
    merged(left)
}

/// A range without what lies in another.
fn without((first, last): (u32, u32), hole: Network) -> Vec<(u32, u32)> {
    if hole.last < first || last < hole.first {
        return vec![(first, last)];
    }
    let before = hole.first.checked_sub(1).filter(|end| hole.first > first && *end >= first);
    let behind = hole.last.checked_add(1).filter(|begin| *begin <= last);
    [before.map(|end| (first, end)), behind.map(|begin| (begin, last))].into_iter().flatten().collect()
}

fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// The router's table.
pub(super) fn router(pool: Pool, slots: u32, resolver: bool, open: &[Network]) -> Table {
    let tap = |what| [Load(what), Is(true, TAP.as_bytes().to_vec())];
    let addresses = (0..slots).filter_map(|slot| Some((tap_name(slot), pool.of_slot(slot)?))).collect();
    let mut incoming = vec![
        rule(&[&tap(What::From), &[Load(What::Source), Is(false, GUEST.to_vec()), Drop]]),
        rule(&[&[Load(What::From), Map("addresses"), Write(Field::Source)]]),
        // What has no address of a slot goes nowhere.
        rule(&[&tap(What::From), &[Load(What::Source), Is(true, GUEST.to_vec()), Drop]]),
    ];
    let mut outgoing = vec![];
    for kind in [3, 11, 12] {
        // Messages about packets carry the begin of one, which has the addresses that its sender knows.
        let about: Vec<Expression> = vec![
            Load(What::Protocol),
            Is(true, vec![ICMP]),
            Load(What::IcmpKind),
            Is(true, vec![kind]),
            // Version 4 and no options, so that its addresses are where they are looked for.
            Load(What::IcmpAbout),
            Is(true, vec![0x45]),
        ];
        incoming.push(rule(&[&about, &[Load(What::From), Map("addresses"), Write(Field::IcmpDestination)]]));
        outgoing.push(rule(&[&tap(What::To), &about, &[Set(GUEST), Write(Field::IcmpSource)]]));
    }
    outgoing.push(rule(&[&tap(What::To), &[Set(GUEST), Write(Field::Destination)]]));

    let mut forward = vec![
        rule(&[&[Load(What::From), Is(true, name(UPLINK))], &tap(What::To), &[Accept]]),
        rule(&[&[Load(What::To), Is(false, name(UPLINK)), Reject]]),
    ];
    if resolver {
        for protocol in [UDP, TCP] {
            forward.push(rule(&[&asks(RESOLVER, protocol), &[Accept]]));
        }
    }
    forward.push(rule(&[&[Load(What::Destination), In("denied"), Reject]]));
    forward.push(rule(&[&tap(What::From), &[Accept]]));
    let chain = |name, hook, priority, drop, rules| Chain { name, hook, priority, nat: false, drop, rules };
    Table {
        name: ROUTER.to_owned(),
        ranges: vec![("denied", denied(open, pool))],
        maps: vec![("addresses", addresses)],
        mark: None,
        chains: vec![
            chain("in", Hook::Prerouting, -300, false, incoming),
            // The router itself is nobody's to talk to.
            chain("own", Hook::Input, 0, true, vec![]),
            chain("forward", Hook::Forward, 0, true, forward),
            chain("out", Hook::Postrouting, 300, false, outgoing),
        ],
    }
}

/// The host's table, by its name, that of the link to the router, and whom guests' questions for names go to.
pub(super) fn host(
    (table, link): (&str, &str),
    pool: Pool,
    resolver: Option<Ipv4Addr>,
    switched: bool,
) -> Table {
    let from = [Load(What::From), Is(true, name(link))];
    let mut names = vec![];
    let mut input = vec![];
    if let Some(resolver) = resolver {
        for protocol in [UDP, TCP] {
            names.push(rule(&[&from, &asks(RESOLVER, protocol), &[Set(resolver.octets()), Dnat]]));
            // It may be this host itself.
            input.push(rule(&[&from, &asks(resolver.octets(), protocol), &[Accept]]));
        }
    }
    input.push(rule(&[&from, &[Drop]]));
    let [a, b, ..] = pool.first();
    let chain = |name, hook, priority, nat, rules| Chain { name, hook, priority, nat, drop: false, rules };
    let own = rule(&[&from, &[Load(What::DestinationKind), Is(true, LOCAL.to_ne_bytes().to_vec()), Reject]]);
    let leave: [Expression; 5] =
        [Load(What::Source), Is(true, vec![a, b]), Load(What::To), Is(false, name(link)), Masquerade];
    let back = [Load(What::To), Is(true, name(link))];
    let forward =
        vec![rule(&[&back, &[Load(What::Connection), HasBits(KNOWN), Accept]]), rule(&[&back, &[Drop]])];
    Table {
        name: table.to_owned(),
        ranges: vec![],
        maps: vec![],
        mark: switched.then_some(SWITCHED),
        chains: vec![
            // Before any translation: what somebody publishes on an address of this host is this host's.
            chain("own", Hook::Prerouting, -150, false, vec![own]),
            chain("names", Hook::Prerouting, -100, true, names),
            chain("input", Hook::Input, -10, false, input),
            chain("forward", Hook::Forward, -10, false, forward),
            chain("out", Hook::Postrouting, 100, true, vec![leave.to_vec()]),
        ],
    }
}

/// The name of a slot's tap.
pub(super) fn tap_name(slot: u32) -> String {
    format!("{TAP}{slot}")
}

/// A question for names to this address.
fn asks(address: [u8; 4], protocol: u8) -> [Expression; 6] {
    [
        Load(What::Destination),
        Is(true, address.to_vec()),
        Load(What::Protocol),
        Is(true, vec![protocol]),
        Load(What::Port),
        Is(true, DOMAIN.to_vec()),
    ]
}

fn rule(parts: &[&[Expression]]) -> Vec<Expression> {
    parts.concat()
}

/// A link's whole name, with its end: another that begins so is not meant.
fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network() -> impl Strategy<Value = Network> {
        (any::<u32>(), 0_u8..=32).prop_map(|(address, prefix)| Network::of(address.into(), prefix))
    }

    fn within(ranges: &[(u32, u32)], address: u32) -> bool {
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&address))
    }

    proptest! {
        /// Against the definition, asked address by address, at every edge that there is.
        #[test]
        fn what_is_denied(open in prop::collection::vec(network(), 0..4), more in any::<u32>()) {
            let pool = Pool::chosen_by(1);
            let ranges = denied(&open, pool);
            prop_assert!(ranges.iter().all(|(first, last)| first <= last));
            prop_assert!(ranges.is_sorted_by(|(_, end), (begin, _)| end.saturating_add(1) < *begin));
            let of = |list: &[(Ipv4Addr, u8)]| list.iter().map(|(a, p)| Network::of(*a, *p)).collect::<Vec<_>>();
            let mut never = of(&NEVER);
            never.push(Network::of(pool.first().into(), 16));
            let has = |list: &[Network], it: u32| list.iter().any(|one| (one.first..=one.last).contains(&it));
            let edges = of(&PRIVATE).into_iter().chain(never.clone()).chain(open.clone());
            let edges = edges.flat_map(|one| [one.first, one.last]).chain([more]);
            for at in edges.flat_map(|at| [at.wrapping_sub(1), at, at.wrapping_add(1)]) {
                let expect = has(&never, at) || has(&of(&PRIVATE), at) && !has(&open, at);
                prop_assert_eq!(within(&ranges, at), expect, "{}", Ipv4Addr::from(at));
            }
        }
    }

    #[test]
    fn networks() {
        for good in ["10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "1.2.3.4/32"] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for bad in ["", "10.1.0.0/33", "10.1.2.0/16", "10.1", "a/8", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad}");
        }
    }

    #[test]
    fn more_slots_are_no_more_rules() {
        let count = |slots| {
            router(Pool::chosen_by(1), slots, true, &[])
                .chains
                .iter()
                .map(|chain| chain.rules.len())
                .sum::<usize>()
        };
        assert_eq!(count(1), count(4096));
    }
}
