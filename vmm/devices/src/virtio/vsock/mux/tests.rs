//! A guest in a few lines against the table, and a model: whatever both sides do, rows, resets and bytes stay bounded,
//! and what is said about a connection follows the drawing.

use super::super::credit::ROOM;
use super::*;
use proptest::prelude::*;

const CID: u32 = 7;

fn from_guest(key: Key, op: u16) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: key.guest,
        dst_port: key.host,
        kind: TYPE_STREAM,
        op,
        buf_alloc: 1000,
        ..Header::default()
    }
}

fn send(mux: &mut Mux, key: Key, op: u16) -> Received {
    mux.receive(&from_guest(key, op), 0)
}

fn bytes(mux: &mut Mux, key: Key, len: u32) -> Received {
    mux.receive(&Header { len, ..from_guest(key, OP_RW) }, len)
}

fn shut(mux: &mut Mux, key: Key, flags: u32) -> Received {
    mux.receive(&Header { flags, ..from_guest(key, OP_SHUTDOWN) }, 0)
}

/// The next packet to the guest, and for which connection.
fn packet(mux: &mut Mux) -> (Key, u16) {
    match mux.next_packet() {
        Some(Next::Packet(header)) => {
            assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, u64::from(CID)));
            (Key { host: header.src_port, guest: header.dst_port }, header.op)
        }
        other => panic!("{other:?}"),
    }
}

const STRAY: Key = Key { host: 5, guest: 6 };

/// A connection that the guest asked for.
fn open() -> (Mux, Key) {
    let mut mux = Mux::new(CID);
    assert_eq!(send(&mut mux, STRAY, OP_REQUEST), Received::Wanted(STRAY));
    mux.accept(STRAY);
    assert_eq!(packet(&mut mux), (STRAY, OP_RESPONSE));
    assert_eq!(mux.next_packet(), None);
    (mux, STRAY)
}

/// The connection is gone, with an RST to the guest or without.
fn gone(mux: &mut Mux, key: Key, told: bool) {
    assert_eq!(mux.take_gone(), Some(key));
    if told {
        assert_eq!(packet(mux), (key, OP_RST));
    }
    assert_eq!((mux.next_packet(), mux.table.len()), (None, 0));
}

#[test]
fn the_host_connects() {
    let mut mux = Mux::new(CID);
    let key = mux.connect(80).unwrap();
    assert_eq!(packet(&mut mux), (key, OP_REQUEST));
    assert_eq!(mux.next_packet(), None, "asked for once");
    assert_eq!(send(&mut mux, key, OP_RESPONSE), Received::Opened(key));
    assert_ne!(mux.connect(80).unwrap(), key);
    // Refused, and given up before and after the guest saw it.
    let refused = mux.connect(81).unwrap();
    while mux.next_packet().is_some() {}
    assert_eq!(send(&mut mux, refused, OP_RST), Received::Nothing);
    assert_eq!(mux.take_gone(), Some(refused));
    let unseen = mux.connect(82).unwrap();
    mux.hung_up(unseen);
    assert_eq!((mux.take_gone(), mux.next_packet()), (Some(unseen), None));
    let seen = mux.connect(83).unwrap();
    assert_eq!(packet(&mut mux), (seen, OP_REQUEST));
    mux.hung_up(seen);
    assert_eq!(packet(&mut mux), (seen, OP_RST));
}

#[test]
fn data_goes_as_credit_allows() {
    let (mut mux, key) = open();
    mux.readable(key);
    assert_eq!(mux.next_packet(), Some(Next::Data(key, 1000)));
    assert_eq!(mux.read(key, 600).len, 600);
    assert_eq!(mux.next_packet(), Some(Next::Data(key, 400)));
    mux.read(key, 400);
    assert_eq!(mux.next_packet(), None, "no credit");
    mux.receive(&Header { fwd_cnt: 1000, ..from_guest(key, OP_CREDIT_UPDATE) }, 0);
    assert_eq!(mux.next_packet(), Some(Next::Data(key, 1000)));
    mux.dry(key);
    assert_eq!(mux.next_packet(), None);
    send(&mut mux, key, OP_CREDIT_REQUEST);
    assert_eq!(packet(&mut mux), (key, OP_CREDIT_UPDATE));
    // The guest hears of room when half of it came free.
    assert_eq!(bytes(&mut mux, key, ROOM), Received::Data(key));
    mux.forwarded(key, ROOM / 2 - 1);
    assert_eq!(mux.next_packet(), None);
    mux.forwarded(key, 1);
    assert_eq!(packet(&mut mux), (key, OP_CREDIT_UPDATE));
    assert_eq!(bytes(&mut mux, key, ROOM / 2), Received::Data(key));
    assert_eq!(bytes(&mut mux, key, 1), Received::Nothing, "more than there was room for");
    gone(&mut mux, key, true);
}

#[test]
fn the_host_ends_first() {
    let (mut mux, key) = open();
    mux.ended(key);
    let Some(Next::Packet(header)) = mux.next_packet() else { panic!() };
    assert_eq!((header.op, header.flags), (OP_SHUTDOWN, SHUTDOWN_SEND));
    assert_eq!(mux.next_packet(), None, "said once");
    assert_eq!(bytes(&mut mux, key, 10), Received::Data(key), "the other way goes on");
    mux.hung_up(key);
    let Some(Next::Packet(header)) = mux.next_packet() else { panic!() };
    assert_eq!((header.op, header.flags), (OP_SHUTDOWN, SHUTDOWN_BOTH));
    assert_eq!(mux.take_gone(), Some(key), "nothing of the host's is needed any more");
    // What was on its way is nobody's; the guest's RST ends the row.
    assert_eq!(bytes(&mut mux, key, 10), Received::Nothing);
    assert_eq!((mux.next_packet(), mux.table.len()), (None, 1));
    send(&mut mux, key, OP_RST);
    assert_eq!((mux.take_gone(), mux.table.len()), (None, 0));
}

#[test]
fn both_end_at_once() {
    let (mut mux, key) = open();
    mux.ended(key);
    mux.hung_up(key);
    assert_eq!(packet(&mut mux), (key, OP_SHUTDOWN));
    assert_eq!(mux.take_gone(), Some(key));
    shut(&mut mux, key, SHUTDOWN_BOTH);
    assert_eq!((packet(&mut mux), mux.table.len()), ((key, OP_RST), 0));
}

#[test]
fn the_guest_ends_first() {
    let (mut mux, key) = open();
    bytes(&mut mux, key, 100);
    assert_eq!(shut(&mut mux, key, SHUTDOWN_SEND), Received::Shut(key));
    assert_eq!(mux.is_over(key), (false, false), "it holds what is not passed on");
    mux.forwarded(key, 100);
    assert_eq!(mux.is_over(key), (true, false));
    mux.readable(key);
    assert_eq!(mux.next_packet(), Some(Next::Data(key, 1000)), "the other way goes on");
    shut(&mut mux, key, SHUTDOWN_RECEIVE);
    gone(&mut mux, key, true);

    let (mut mux, key) = open();
    bytes(&mut mux, key, 100);
    shut(&mut mux, key, SHUTDOWN_BOTH);
    assert_eq!((mux.take_gone(), mux.held(key)), (None, 100));
    mux.forwarded(key, 100);
    gone(&mut mux, key, true);

    // Whose host is gone as well: nothing is waited for.
    let (mut mux, key) = open();
    mux.readable(key);
    shut(&mut mux, key, SHUTDOWN_RECEIVE);
    mux.hung_up(key);
    assert_eq!(packet(&mut mux), (key, OP_SHUTDOWN));
    assert_eq!(mux.take_gone(), Some(key));
}

/// What breaks an open connection.
#[test]
fn packets_out_of_rule_end_their_connection() {
    let broken = |what: &dyn Fn(&mut Mux, Key) -> Received| {
        let (mut mux, key) = open();
        what(&mut mux, key);
        gone(&mut mux, key, true);
    };
    broken(&|mux, key| send(mux, key, OP_REQUEST));
    broken(&|mux, key| send(mux, key, OP_RESPONSE));
    broken(&|mux, key| send(mux, key, 0));
    broken(&|mux, key| send(mux, key, 8));
    broken(&|mux, key| send(mux, key, u16::MAX));
    broken(&|mux, key| bytes(mux, key, ROOM + 1));
    broken(&|mux, key| bytes(mux, key, u32::MAX));
    broken(&|mux, key| mux.receive(&Header { len: 11, ..from_guest(key, OP_RW) }, 10));
    broken(&|mux, key| {
        shut(mux, key, SHUTDOWN_SEND);
        bytes(mux, key, 1)
    });
}

#[test]
fn what_is_for_nobody_is_answered_by_rst_or_not_at_all() {
    let mut mux = Mux::new(CID);
    for op in [0, OP_RESPONSE, OP_RW, OP_SHUTDOWN, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, 99] {
        assert_eq!(send(&mut mux, STRAY, op), Received::Nothing);
        assert_eq!(packet(&mut mux), (STRAY, OP_RST), "{op}");
    }
    send(&mut mux, STRAY, OP_RST);
    // Another type; another's address.
    mux.receive(&Header { kind: 2, ..from_guest(STRAY, OP_RST) }, 0);
    assert_eq!(mux.next_packet(), None);
    mux.receive(&Header { kind: 2, ..from_guest(STRAY, OP_REQUEST) }, 0);
    assert_eq!(packet(&mut mux), (STRAY, OP_RST));
    mux.receive(&Header { src_cid: 8, ..from_guest(STRAY, OP_REQUEST) }, 0);
    mux.receive(&Header { dst_cid: 1, ..from_guest(STRAY, OP_REQUEST) }, 0);
    assert_eq!((mux.next_packet(), mux.table.len()), (None, 0));
}

#[test]
fn a_flood_of_requests_meets_a_full_table_and_a_guest_that_does_not_read_is_not_heard() {
    let mut mux = Mux::new(CID);
    let mut heard = 0_u32;
    for guest in 0..10_000 {
        if !mux.listens() {
            break;
        }
        heard += 1;
        let key = Key { host: 1, guest };
        if send(&mut mux, key, OP_REQUEST) == Received::Wanted(key) {
            mux.accept(key);
        }
    }
    assert_eq!(mux.table.len(), CONNECTIONS_MAX);
    assert!(usize::try_from(heard).unwrap() < CONNECTIONS_MAX + RESETS_MAX && mux.resets.len() < RESETS_MAX);
    assert_eq!(mux.connect(1), Err(Full));
    while mux.next_packet().is_some() {}
    assert!(mux.listens());
    // A connection that only waits for the guest's last word gives its place.
    let first = Key { host: 1, guest: 0 };
    mux.ended(first);
    mux.hung_up(first);
    assert_eq!(packet(&mut mux), (first, OP_SHUTDOWN));
    assert!(mux.connect(1).is_ok());
    assert_eq!(mux.table.len(), CONNECTIONS_MAX);
}

#[test]
fn a_reset_ends_everything_but_what_is_asked_for() {
    let (mut mux, key) = open();
    let asked = mux.connect(80).unwrap();
    assert_eq!(packet(&mut mux), (asked, OP_REQUEST));
    send(&mut mux, Key { host: 3, guest: 3 }, OP_RW);
    mux.reset();
    assert_eq!((mux.take_gone(), mux.take_gone()), (Some(key), None));
    assert_eq!(packet(&mut mux), (asked, OP_REQUEST), "asked for again");
    assert_eq!(mux.next_packet(), None, "the old driver's reset is nobody's");
}

#[test]
fn connections_have_their_turns() {
    let mut mux = Mux::new(CID);
    let keys: Vec<Key> = (0..3).map(|guest| Key { host: 1, guest }).collect();
    for key in &keys {
        send(&mut mux, *key, OP_REQUEST);
        mux.accept(*key);
    }
    while mux.next_packet().is_some() {}
    for key in &keys {
        mux.readable(*key);
    }
    let turns: Vec<_> = (0..6)
        .map(|_| match mux.next_packet() {
            Some(Next::Data(key, _)) => mux.read(key, 1).dst_port,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

/// What either side does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Packet {
        host: u32,
        guest: u32,
        op: u16,
        kind: u16,
        len: u32,
        behind: u32,
        flags: u32,
        room: u32,
        forwarded: u32,
    },
    Connect(u32),
    Host {
        which: usize,
        what: u8,
        bytes: u32,
    },
    ToGuest {
        bytes: u32,
    },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let small = || prop_oneof![0_u32..4, Just(EPHEMERAL), Just(EPHEMERAL + 1)];
    let len = || prop_oneof![0_u32..100, Just(ROOM), any::<u32>()];
    prop_oneof![
        8 => (small(), small(), 0_u16..9, 0_u16..8, len(), len(), any::<u32>(), len(), len()).prop_map(
            |(host, guest, op, kind, len, behind, flags, room, forwarded)| {
                // Mostly streams.
                let kind = if kind < 7 { TYPE_STREAM } else { kind };
                Step::Packet { host, guest, op, kind, len, behind, flags, room, forwarded }
            }
        ),
        2 => small().prop_map(Step::Connect),
        4 => (0_usize..8, 0_u8..7, len()).prop_map(|(which, what, bytes)| Step::Host { which, what, bytes }),
        6 => len().prop_map(|bytes| Step::ToGuest { bytes }),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_books_stay_bounded(steps in prop::collection::vec(step(), 0..300)) {
        let mut mux = Mux::new(CID);
        // Connections that the caller has a socket for.
        let mut sockets = alloc::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Packet { host, guest, op, kind, len, behind, flags, room, forwarded } if mux.listens() => {
                    let key = Key { host, guest };
                    let header = Header { kind, len, flags, buf_alloc: room, fwd_cnt: forwarded, ..from_guest(key, op) };
                    let held = mux.held(key);
                    match mux.receive(&header, behind) {
                        Received::Nothing => {}
                        Received::Wanted(wanted) => {
                            prop_assert!(wanted == key && op == OP_REQUEST && !sockets.contains(&key));
                            if guest % 2 == 0 {
                                mux.accept(key);
                                sockets.insert(key);
                            } else {
                                mux.refuse(key);
                                prop_assert_eq!(mux.take_gone(), Some(key));
                            }
                        }
                        Received::Opened(key) | Received::Shut(key) => prop_assert!(sockets.contains(&key)),
                        Received::Data(key) => {
                            prop_assert!(sockets.contains(&key) && len <= behind);
                            prop_assert_eq!(mux.held(key), held + len);
                        }
                    }
                }
                Step::Packet { .. } => {}
                Step::Connect(port) => {
                    if let Ok(key) = mux.connect(port) {
                        prop_assert!(sockets.insert(key));
                    }
                }
                Step::Host { which, what, bytes } => {
                    let Some(key) = sockets.iter().nth(which).copied() else { continue };
                    match what {
                        0 => mux.readable(key),
                        1 => mux.dry(key),
                        2 => mux.ended(key),
                        3 => mux.hung_up(key),
                        4 => mux.abort(key),
                        _ => mux.forwarded(key, bytes),
                    }
                }
                Step::ToGuest { bytes } => {
                    let wants = mux.wants_to_send();
                    match mux.next_packet() {
                        None => prop_assert!(!wants),
                        Some(Next::Packet(header)) => {
                            prop_assert!(wants && header.len == 0 && header.op != OP_RW);
                        }
                        Some(Next::Data(key, most)) => {
                            prop_assert!(sockets.contains(&key) && most > 0);
                            let sent = mux.read(key, bytes.clamp(1, most));
                            prop_assert_eq!(sent.op, OP_RW);
                            prop_assert!(mux.table[&key].credit.free() <= most - sent.len);
                        }
                    }
                }
                Step::Reset => mux.reset(),
            }
            while let Some(key) = mux.take_gone() {
                prop_assert!(sockets.remove(&key), "closed twice");
            }
            let open = mux.table.iter().filter(|(_, row)| !row.is_closing()).map(|(key, _)| *key);
            prop_assert!(open.eq(sockets.iter().copied()), "a row is a socket");
            prop_assert!(mux.table.len() <= CONNECTIONS_MAX);
            prop_assert!(mux.resets.len() <= RESETS_MAX + CONNECTIONS_MAX);
            prop_assert!(mux.table.values().all(|row| row.credit.held() <= ROOM));
        }
    }
}
