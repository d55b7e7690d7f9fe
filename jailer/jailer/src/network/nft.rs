//! nftables as bytes: tables, chains, sets and rules, made in one transaction.
//!
//! Attributes and numbers are those of linux/netfilter/nf_tables.h. Only what [`super::rules`] uses is here.

use super::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, Socket};
use rustix::{io::Errno, net::netlink::NETFILTER};

const SUBSYSTEM: u16 = 10;
const NFPROTO_IPV4: u8 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const NAME: u16 = 1;
const NEXT: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const ELEMENT_ENDS_INTERVAL: u32 = 1;
const TYPE_ADDRESS: u32 = 7;
const TYPE_NAME: u32 = 41;
/// Bytes of a link's name in a register.
const NAME_LEN: usize = 16;
/// Elements in one message: an attribute holds less than 64 KiB.
const ELEMENTS: usize = 512;

/// Where a chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Postrouting = 4,
}

/// A chain and its rules.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) priority: i32,
    /// Whether it translates addresses.
    pub(super) nat: bool,
    /// What becomes of a packet that no rule decided on.
    pub(super) drop: bool,
    pub(super) rules: Vec<Vec<Expression>>,
}

/// A link's name and an address.
pub(super) type Pair = (String, [u8; 4]);

/// A table with everything in it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Ranges of addresses, first to last, in order and apart.
    pub(super) ranges: Vec<(&'static str, Vec<(u32, u32)>)>,
    /// From names of links to addresses.
    pub(super) maps: Vec<(&'static str, Vec<Pair>)>,
    pub(super) chains: Vec<Chain>,
    /// A chain that nothing leads to: what is to be known of the table as long as it is there.
    pub(super) mark: Option<&'static str>,
}

/// One step of a rule. Each either lets the next one be asked or ends the rule.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    /// Something is loaded into register 1.
    Load(What),
    /// Register 1 begins with these bytes, or does not.
    Is(bool, Vec<u8>),
    /// Register 1 has any of these bits.
    HasBits(u32),
    /// Register 1 is in a set.
    In(&'static str),
    /// Register 1 becomes what a map says of it, in register 2.
    Map(&'static str),
    /// Register 2 becomes these bytes.
    Set([u8; 4]),
    /// Register 2 goes into the packet.
    Write(Field),
    /// Destination becomes register 2.
    Dnat,
    /// Source becomes the address of the link that it leaves by.
    Masquerade,
    /// Refused, and its sender is told so.
    Reject,
    Accept,
    Drop,
}

/// What is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The name of the link it came by.
    From,
    /// The name of the link it leaves by.
    To,
    /// The number of its protocol.
    Protocol,
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Destination port.
    Port,
    /// Kind of an ICMP message.
    IcmpKind,
    /// The first two bytes of the packet that an ICMP message is about.
    IcmpAbout,
    /// What its destination is to this host.
    DestinationKind,
    /// Where its connection stands.
    Connection,
}

/// What is written, and which checksums follow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Source,
    Destination,
    /// Source of the packet that an ICMP message is about.
    IcmpSource,
    /// Its destination.
    IcmpDestination,
}

/// Tables of one namespace.
#[derive(Debug)]
pub(super) struct Tables(Socket);

impl Tables {
    /// Of the namespace that this process is in.
    pub(super) fn here() -> Result<Self, Errno> {
        Socket::new(Some(NETFILTER)).map(Self)
    }

    /// Makes a table as it is given, in place of what is there by that name: all of it or, but for the elements of maps, none.
    pub(super) fn replace(&mut self, table: &Table) -> Result<(), Errno> {
        let mut messages = clearing(&table.name);
        messages.push(named(NEWTABLE, &table.name));
        for (name, ranges) in &table.ranges {
            messages.push(set(&table.name, name, TYPE_ADDRESS, 4, SET_INTERVAL));
            messages.extend(elements(&table.name, name, ranges.iter().copied().flat_map(range)));
        }
        for (name, _) in &table.maps {
            let set = set(&table.name, name, TYPE_NAME, 16, SET_MAP);
            messages.push(set.number(6, TYPE_ADDRESS).number(7, 4));
        }
        messages.extend(table.mark.map(|mark| named(NEWCHAIN, &table.name).text(3, mark)));
        for chain in &table.chains {
            messages.push(chain_message(&table.name, chain));
            messages.extend(chain.rules.iter().map(|rule| rule_message(&table.name, chain.name, rule)));
        }
        self.transact(messages)?;
        for (name, pairs) in &table.maps {
            for message in elements(&table.name, name, pairs.iter().map(pair)) {
                self.transact(vec![message])?;
            }
        }
        Ok(())
    }

    /// Removes a table, if it is there.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Errno> {
        self.transact(clearing(name))
    }

    /// Whether a table is there and has this mark.
    pub(super) fn has_mark(&mut self, name: &str, mark: &str) -> bool {
        self.0.get(named(GETCHAIN, name).text(3, mark)).is_ok()
    }

    /// How many rules a table has.
    pub(super) fn count_rules(&mut self, name: &str) -> Result<usize, Errno> {
        let mut count = 0;
        self.0.dump(named(GETRULE, name), |_| count += 1)?;
        Ok(count)
    }

    fn transact(&mut self, messages: Vec<Message>) -> Result<(), Errno> {
        let around = |kind| {
            let [high, low] = SUBSYSTEM.to_be_bytes();
            Message::new(kind, 0).raw(&[0, 0, high, low])
        };
        self.0.ask_all(messages, Some((around(BATCH_BEGIN), around(BATCH_END))))
    }
}

/// A removal that does not mind whether there was something.
fn clearing(name: &str) -> Vec<Message> {
    vec![named(NEWTABLE, name), named(DELTABLE, name)]
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags).raw(&[NFPROTO_IPV4, 0, 0, 0])
}

/// About something whose first attribute is the table's name.
fn named(kind: u16, table: &str) -> Message {
    message(kind, NLM_F_CREATE).text(NAME, table)
}

fn set(table: &str, name: &str, key: u32, len: u32, flags: u32) -> Message {
    // The last is a number within the transaction, which nothing here refers to.
    named(NEWSET, table).text(NEXT, name).number(3, flags).number(4, key).number(5, len).number(10, 1)
}

type Element = Box<dyn FnOnce(Message) -> Message>;

fn elements(table: &str, set: &str, all: impl Iterator<Item = Element>) -> Vec<Message> {
    let mut all = all.peekable();
    let mut messages = Vec::new();
    while all.peek().is_some() {
        let message = named(NEWSETELEM, table).text(NEXT, set);
        let some: Vec<Element> = all.by_ref().take(ELEMENTS).collect();
        messages.push(
            message.nest(3, |list| {
                some.into_iter().fold(list, |list, element| list.nest(LIST_ELEMENT, element))
            }),
        );
    }
    messages
}

/// A range as its first address and the one behind its last. One that reaches the end has none behind.
fn range((first, last): (u32, u32)) -> Vec<Element> {
    let value = |at: u32| move |key: Message| key.attribute(1, &at.to_be_bytes());
    let first: Element = Box::new({
        let value = value(first);
        move |it: Message| it.nest(1, value)
    });
    let behind = last.checked_add(1).map(|behind| -> Element {
        Box::new(move |it: Message| it.nest(1, value(behind)).number(3, ELEMENT_ENDS_INTERVAL))
    });
    [first].into_iter().chain(behind).collect()
}

fn pair((name, address): &Pair) -> Element {
    let (key, address) = (padded(name), *address);
    Box::new(move |it| it.nest(1, |it| it.attribute(1, &key)).nest(2, |it| it.attribute(1, &address)))
}

/// A link's name as a register holds it.
fn padded(name: &str) -> [u8; NAME_LEN] {
    let mut bytes = [0; NAME_LEN];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn chain_message(table: &str, chain: &Chain) -> Message {
    let message = named(NEWCHAIN, table).text(3, chain.name);
    let message =
        message.nest(4, |hook| hook.number(1, chain.hook as u32).number(2, chain.priority.cast_unsigned()));
    message.number(5, u32::from(!chain.drop)).text(7, if chain.nat { "nat" } else { "filter" })
}

fn rule_message(table: &str, chain: &str, rule: &[Expression]) -> Message {
    let message = message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND).text(NAME, table).text(NEXT, chain);
    message.nest(4, |list| {
        rule.iter().fold(list, |list, one| {
            // Bits are tested in two steps.
            if let Expression::HasBits(mask) = one {
                let list = expression(list, "bitwise", |it| {
                    let it = it.number(1, 1).number(2, 1).number(3, 4);
                    let it = it.nest(4, |it| it.attribute(1, &mask.to_ne_bytes()));
                    it.nest(5, |it| it.attribute(1, &[0; 4]))
                });
                return compare(list, false, &[0; 4]);
            }
            one.encode(list)
        })
    })
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(LIST_ELEMENT, |it| it.text(1, name).nest(2, data))
}

fn compare(list: Message, same: bool, bytes: &[u8]) -> Message {
    expression(list, "cmp", |it| {
        it.number(1, 1).number(2, u32::from(!same)).nest(3, |it| it.attribute(1, bytes))
    })
}

fn verdict(list: Message, code: u32) -> Message {
    expression(list, "immediate", |it| it.number(1, 0).nest(2, |it| it.nest(2, |it| it.number(1, code))))
}

impl Expression {
    fn encode(&self, list: Message) -> Message {
        match self {
            Self::Load(what) => what.encode(list),
            Self::Is(same, bytes) => compare(list, *same, bytes),
            Self::HasBits(_) => list,
            Self::In(set) => expression(list, "lookup", |it| it.text(1, set).number(2, 1)),
            Self::Map(map) => expression(list, "lookup", |it| it.text(1, map).number(2, 1).number(3, 2)),
            Self::Set(bytes) => {
                expression(list, "immediate", |it| it.number(1, 2).nest(2, |it| it.attribute(1, bytes)))
            }
            Self::Write(field) => field.encode(list),
            Self::Dnat => expression(list, "nat", |it| {
                it.number(1, 1).number(2, NFPROTO_IPV4.into()).number(3, 2).number(4, 2)
            }),
            Self::Masquerade => expression(list, "masq", |it| it),
            // Unreachable, by an administrator's wish.
            Self::Reject => expression(list, "reject", |it| it.number(1, 0).attribute(2, &[13])),
            Self::Accept => verdict(list, 1),
            Self::Drop => verdict(list, 0),
        }
    }
}

impl What {
    fn encode(self, list: Message) -> Message {
        let meta = |list, key| expression(list, "meta", |it| it.number(1, 1).number(2, key));
        let payload = |list, base, offset, len| {
            expression(list, "payload", |it| it.number(1, 1).number(2, base).number(3, offset).number(4, len))
        };
        match self {
            Self::From => meta(list, 6),
            Self::To => meta(list, 7),
            Self::Protocol => meta(list, 16),
            Self::Source => payload(list, 1, 12, 4),
            Self::Destination => payload(list, 1, 16, 4),
            Self::Port => payload(list, 2, 2, 2),
            Self::IcmpKind => payload(list, 2, 0, 1),
            Self::IcmpAbout => payload(list, 2, 8, 1),
            // The kind of the destination's address.
            Self::DestinationKind => expression(list, "fib", |it| it.number(1, 1).number(2, 3).number(3, 2)),
            Self::Connection => expression(list, "ct", |it| it.number(1, 1).number(2, 0)),
        }
    }
}

impl Field {
    fn encode(self, list: Message) -> Message {
        // Base, offset, offset of the header's checksum, whether TCP's and UDP's follows.
        let (base, offset, checksum, pseudo) = match self {
            Self::Source => (1, 12, 10, 1),
            Self::Destination => (1, 16, 10, 1),
            // Behind ICMP's own header of eight bytes. With its checksum corrected that header sums up to what it did, and so
            // does the message.
            Self::IcmpSource => (2, 8 + 12, 8 + 10, 0),
            Self::IcmpDestination => (2, 8 + 16, 8 + 10, 0),
        };
        expression(list, "payload", |it| {
            let it = it.number(5, 2).number(2, base).number(3, offset).number(4, 4).number(6, 1);
            it.number(7, checksum).number(8, pseudo)
        })
    }
}
