//! The sandboxes' network, in namespaces of the test's own: a host, a world beyond it, and guests whose taps are pumped into
//! namespaces with a kernel's own TCP behind them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]
#![allow(unsafe_code, reason = "a tap device is made by a plain call")]

#[path = "../common/mod.rs"]
mod common;
mod world;

use common::Jailer;
use rustix::process::Signal;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    thread,
};
use warren_sandbox_plan::{
    network::{GATEWAY, GUEST, RESOLVER},
    request::Reply,
};
use world::{
    Guest, HOST, HOSTS_PORT, Lab, METADATA, PATIENCE, POOL, PORT, PRIVATE, WORLD, address_of, received, spawn,
};

#[test]
fn out_and_nowhere_else() {
    let lab = Lab::new("a");
    let jailer = lab.jailer(&[]);
    let mut client = jailer.connect();
    let (one, two) = (Guest::start(&mut client, "one"), Guest::start(&mut client, "two"));
    let host: Ipv4Addr = HOST.parse().unwrap();
    assert_eq!(
        (one.fetch(WORLD), two.fetch(WORLD)),
        (host, host),
        "the host's address is what the world sees"
    );

    // The host itself, at any of its addresses; what is private; metadata; each other; the router.
    for address in [HOST, PRIVATE, METADATA, "100.99.0.1"] {
        one.assert_closed(address, if address == HOST { HOSTS_PORT } else { PORT }, true);
    }
    one.assert_closed(&Ipv4Addr::from(GATEWAY).to_string(), HOSTS_PORT, false);
    let listener = two.space.within(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    one.assert_closed(&address_of(&two), PORT, true);
    // Nor does anybody get in, from the world or from the host.
    let to = SocketAddr::new(address_of(&two).parse().unwrap(), PORT);
    for space in [&lab.world, &lab.host] {
        let error = space.within(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap_err();
        if space.0 == lab.world.0 {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
    }
    drop(listener);

    // Names: the host's resolver, though its address is a private one.
    let names = one.space.within(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    names.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    names.send_to(b"who is it", (Ipv4Addr::from(RESOLVER), 53)).unwrap();
    let (count, from) = received(&names);
    assert_eq!((count, from.ip()), (9, Ipv4Addr::from(RESOLVER).into()));

    // An address that is not its own goes nowhere.
    one.space.ip("addr add 192.0.0.3/32 dev guest0");
    one.space.ip(&format!("route add {WORLD}/32 via {} src 192.0.0.3", Ipv4Addr::from(GATEWAY)));
    one.assert_closed(WORLD, PORT, false);
}

/// What a guest sends at once, and reads back: more than any buffer on the way, in frames that the way out is too narrow for.
fn round_trip(stream: &mut TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut reader = stream.try_clone().unwrap();
    let wanted = sent.clone();
    let back = thread::spawn(move || {
        let mut got = vec![0; wanted.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got == wanted, "other bytes came back");
    });
    stream.write_all(&sent).unwrap();
    back.join().unwrap();
}

#[test]
fn a_narrow_way_is_told_through_the_exchange_of_addresses() {
    let lab = Lab::new("b");
    for space in [&lab.host, &lab.world] {
        space.ip("link set eth0 mtu 1280");
    }
    let jailer = lab.jailer(&[]);
    let guest = Guest::start(&mut jailer.connect(), "narrow");
    let mut stream = guest.connect(WORLD, PORT).unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    round_trip(&mut stream, 1 << 20);
}

#[test]
fn a_network_that_is_opened_is_reached_and_nothing_else() {
    let lab = Lab::new("c");
    let jailer = lab.jailer(&["--network-open", "10.9.0.0/16"]);
    let guest = Guest::start(&mut jailer.connect(), "open");
    guest.fetch(PRIVATE);
    guest.assert_closed("10.8.9.9", PORT, true);
    guest.assert_closed(METADATA, PORT, true);
}

#[test]
fn two_guests_use_the_same_port_at_once() {
    let lab = Lab::new("d");
    let jailer = lab.jailer(&[]);
    let mut client = jailer.connect();
    let guests = [Guest::start(&mut client, "p1"), Guest::start(&mut client, "p2")];
    let connect = |guest: &Guest| {
        guest.space.within(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
                    .unwrap();
            let own = SocketAddr::from((GUEST, 40_000));
            rustix::net::bind(&socket, &own).unwrap();
            let world: SocketAddr = (WORLD.parse::<Ipv4Addr>().unwrap(), PORT).into();
            rustix::net::connect(&socket, &world).unwrap();
            TcpStream::from(socket)
        })
    };
    let mut streams = guests.each_ref().map(connect);
    let mut ports = Vec::new();
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE * 10)).unwrap();
        let mut said = [0; 6];
        stream.read_exact(&mut said).unwrap();
        ports.push([said[4], said[5]]);
        round_trip(stream, 100_000);
    }
    assert_ne!(ports[0], ports[1], "the world tells them apart");
}

#[test]
fn rules_do_not_grow_and_nothing_stays() {
    let lab = Lab::new("e");
    let mut jailer = lab.jailer(&[]);
    let mut client = jailer.connect();
    let mut holders = Vec::new();
    let mut counts = Vec::new();
    for number in 0..20 {
        let mut running = spawn(&mut client, &format!("n{number}")).unwrap();
        let tap = running.tap.take().unwrap();
        running.give(tap.as_fd());
        holders.push(running);
        if [1, 20].contains(&holders.len()) {
            let status = lab.status(&jailer);
            assert_eq!(status["router"]["taps"].as_array().map(Vec::len), Some(holders.len()), "{status}");
            counts.push((status["rules"].clone(), status["router"]["rules"].clone()));
        }
    }
    assert_eq!(counts[0], counts[1]);
    for number in 1..20 {
        client.kill(&format!("n{number}"));
    }
    let status = lab.status(&jailer);
    assert_eq!(status["router"]["taps"], serde_json::json!(["wt0"]), "a tap is gone with its machine");
    jailer.stop(Signal::TERM);
    lab.assert_no_network(&jailer);
    jailer.assert_clean();
}

#[test]
fn a_jailer_that_is_killed_leaves_a_network_that_the_next_one_finds() {
    let lab = Lab::new("f");
    let jailer = lab.jailer(&[]);
    let guest = Guest::start(&mut jailer.connect(), "kept");
    let mut stream = guest.connect(WORLD, PORT).unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    round_trip(&mut stream, 1000);
    let arguments = ["--network", "auto", "--network-pool", POOL, "--network-resolver", PRIVATE];
    let mut jailer = lab.host.within(|| jailer.restart_after_crash(&arguments));
    round_trip(&mut stream, 100_000);
    let mut client = jailer.connect();
    let other = Guest::start(&mut client, "more");
    other.fetch(WORLD);
    guest.fetch(WORLD);
    let taps = lab.status(&jailer)["router"]["taps"].as_array().map(Vec::len);
    assert_eq!(taps, Some(2), "both are in one namespace");
    // What the first one began is forgotten with it, and its machine's end ends its tap.
    client.kill("kept");
    client.kill("more");
    drop((guest, other));
    let forwards = || lab.host.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let forwards = || forwards().lines().nth(1).unwrap().split(' ').nth(1) == Some("1");
    assert!(forwards());
    jailer.stop(Signal::TERM);
    lab.assert_no_network(&jailer);
    assert!(!forwards(), "the host forwards no more than before");
}

/// What comes late for a machine that is gone is not the next one's, though it has the same address.
#[test]
fn connections_of_the_one_before_are_forgotten() {
    let lab = Lab::new("h");
    let jailer = lab.jailer(&["--slots", "1"]);
    let mut client = jailer.connect();
    let world = lab.world.within(|| UdpSocket::bind((WORLD, 7001)).unwrap());
    world.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    let talk = |guest: &Guest, port: u16| {
        let socket = guest.space.within(|| UdpSocket::bind((Ipv4Addr::from(GUEST), port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE * 10)).unwrap();
        socket.send_to(b"hello", (WORLD, 7001)).unwrap();
        let (_, from) = received(&world);
        (socket, from)
    };
    let first = Guest::start(&mut client, "first");
    let (_, mapped) = talk(&first, 5000);
    client.kill("first");
    drop(first);
    let second = Guest::start(&mut client, "second");
    let late = second.space.within(|| UdpSocket::bind((Ipv4Addr::from(GUEST), 5000)).unwrap());
    late.set_nonblocking(true).unwrap();
    world.send_to(b"late", mapped).unwrap();
    // Behind it on the same way: once this is there, that would be.
    let (own, mapped) = talk(&second, 5001);
    world.send_to(b"now", mapped).unwrap();
    assert_eq!(received(&own).0, 3);
    assert_eq!(late.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn without_a_network_who_asks_for_one_is_told() {
    let jailer = Jailer::start(&[]);
    let refused = spawn(&mut jailer.connect(), "a").err();
    let Some(Reply::Failed { step, message, retryable: false }) = &refused else { panic!("{refused:?}") };
    assert!(step == "network" && message.contains("--network none"), "{message}");
    jailer.assert_clean();
}

#[test]
fn a_tap_that_somebody_still_holds_is_taken_away() {
    let lab = Lab::new("g");
    let jailer = lab.jailer(&["--slots", "1"]);
    let mut client = jailer.connect();
    let held = spawn(&mut client, "a").unwrap();
    client.kill("a");
    let guest = Guest::start(&mut client, "again");
    guest.fetch(WORLD);
    drop(held);
}
