//! A host, a world beyond it, and guests with a kernel behind their taps, all in namespaces of the test's own.

use crate::common::{Client, Jailer, LIMITS, Running, programs};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};
use warren_sandbox_plan::{
    network::{GATEWAY, GUEST, GUEST_MAC},
    request::{LinuxMachine, Program, Reply},
};

pub(crate) const WORLD: &str = "203.0.113.1";
pub(crate) const HOST: &str = "203.0.113.2";
pub(crate) const METADATA: &str = "169.254.169.254";
pub(crate) const PRIVATE: &str = "10.9.9.9";
pub(crate) const PORT: u16 = 7000;
pub(crate) const HOSTS_PORT: u16 = 8080;
/// What a pool's address is said by.
pub(crate) const POOL: &str = "100.99.0.0/16";
/// A sign that nothing comes; no assertion is about how long it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A namespace by name, gone at the end.
pub(crate) struct Space(pub(crate) String);

impl Space {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("wtest{}{name}", std::process::id());
        ip(&["netns", "add", &name]);
        let space = Self(name);
        space.ip("link set lo up");
        space
    }

    pub(crate) fn ip(&self, words: &str) {
        let words: Vec<_> = ["-n", &self.0].into_iter().chain(words.split(' ')).collect();
        ip(&words);
    }

    /// From now on this thread, and what it starts, is there.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Does something there.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                self.enter();
                act()
            };
            scope.spawn(inside).join().unwrap()
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub(crate) fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).output().unwrap();
    assert!(done.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A host with services of its own, and a world with a server at several addresses.
pub(crate) struct Lab {
    pub(crate) host: Space,
    pub(crate) world: Space,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let (host, world) = (Space::new(&format!("h{name}")), Space::new(&format!("w{name}")));
        host.ip(&format!("link add eth0 type veth peer name eth0 netns {}", world.0));
        host.ip(&format!("addr add {HOST}/24 dev eth0"));
        host.ip("link set eth0 up");
        world.ip("link set eth0 up");
        for address in [WORLD, METADATA, PRIVATE] {
            world.ip(&format!("addr add {address}/24 dev eth0"));
            host.ip(&format!("route replace {address}/32 dev eth0"));
        }
        // A peer that knows where sandboxes are, and must not get there.
        world.ip(&format!("route add {POOL} via {HOST}"));
        let lab = Self { host, world };
        lab.world.within(|| {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
            thread::spawn(move || {
                listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(stream))));
            });
            let names = UdpSocket::bind((PRIVATE, 53)).unwrap();
            thread::spawn(move || {
                let mut packet = [0; 512];
                while let Ok((count, from)) = names.recv_from(&mut packet) {
                    let _ = names.send_to(&packet[..count], from);
                }
            });
        });
        lab.host.within(|| {
            let listener = TcpListener::bind(("0.0.0.0", HOSTS_PORT)).unwrap();
            thread::spawn(move || {
                listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(stream))));
            });
        });
        lab
    }

    pub(crate) fn jailer(&self, more: &[&str]) -> Jailer {
        let arguments = ["--network", "auto", "--network-pool", POOL, "--network-resolver", PRIVATE];
        let arguments = [&arguments, more].concat();
        self.host.within(|| Jailer::start(&arguments))
    }

    pub(crate) fn status(&self, jailer: &Jailer) -> Value {
        let state = jailer.folder.path().join("state");
        let done = self.host.within(|| {
            let mut command = Command::new(&programs().jailer);
            command
                .arg("network")
                .arg("--cgroup-name=warren-test")
                .arg("--state")
                .arg(&state)
                .output()
                .unwrap()
        });
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Nothing of a network is in the host's namespace.
    pub(crate) fn assert_no_network(&self, jailer: &Jailer) {
        let status = self.status(jailer);
        assert_eq!((&status["has_link"], &status["rules"]), (&false.into(), &0.into()), "{status}");
    }
}

/// Says who asks, then sends back what comes.
pub(crate) fn serve(mut stream: TcpStream) {
    let peer = stream.peer_addr().unwrap();
    let _ = stream.write_all(&[peer_bytes(peer).as_slice(), &peer.port().to_be_bytes()].concat());
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Waits for a datagram: its length and who sent it. A wait with a limit is not begun again by the kernel when a stopped machine
/// goes on.
pub(crate) fn received(socket: &UdpSocket) -> (usize, SocketAddr) {
    loop {
        match socket.recv_from(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result.unwrap(),
        }
    }
}

pub(crate) fn peer_bytes(peer: SocketAddr) -> Vec<u8> {
    match peer {
        SocketAddr::V4(peer) => peer.ip().octets().to_vec(),
        SocketAddr::V6(_) => Vec::new(),
    }
}

/// A sandbox with a kernel behind its tap, as a guest has one.
pub(crate) struct Guest {
    pub(crate) running: Running,
    pub(crate) space: Space,
}

impl Guest {
    pub(crate) fn start(client: &mut Client, name: &str) -> Self {
        let mut running = spawn(client, name).unwrap();
        running.report();
        let tap = running.tap.take().unwrap();
        // The program in the VMM's place holds it, as a VMM does.
        running.give(tap.as_fd());
        let space = Space::new(name);
        let inner = space.within(inner_tap);
        let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        space.ip(&format!("link set guest0 address {mac}"));
        space.ip("link set guest0 up");
        space.ip(&format!("addr add {}/29 dev guest0", Ipv4Addr::from(GUEST)));
        space.ip(&format!("route add default via {}", Ipv4Addr::from(GATEWAY)));
        for (from, to) in [(&tap, &inner), (&inner, &tap)] {
            let (from, to) = (File::from(from.try_clone().unwrap()), File::from(to.try_clone().unwrap()));
            thread::spawn(move || pump(from, to));
        }
        Self { running, space }
    }

    pub(crate) fn connect(&self, address: &str, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let stream = self.space.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE * 10)).unwrap();
        Ok(stream)
    }

    /// What the server says of who asks.
    pub(crate) fn fetch(&self, address: &str) -> Ipv4Addr {
        let mut stream = self.connect(address, PORT).unwrap();
        let mut said = [0; 6];
        stream.read_exact(&mut said).unwrap();
        Ipv4Addr::new(said[0], said[1], said[2], said[3])
    }

    /// It does not get there; `told` if it is told so and need not wait.
    pub(crate) fn assert_closed(&self, address: &str, port: u16, told: bool) {
        let error = self.connect(address, port).unwrap_err();
        let waited = error.kind() == ErrorKind::TimedOut;
        assert!(waited != told && error.kind() != ErrorKind::ConnectionRefused, "{address}:{port}: {error}");
    }
}

pub(crate) fn spawn(client: &mut Client, name: &str) -> Result<Running, Reply> {
    let machine = LinuxMachine { memory_mib: 128, cpus: 1, disks: 1, disk_bytes: 0, network: true };
    client.try_start_program(name, LIMITS, Program::Linux(machine)).unwrap()
}

/// Frames from one tap to another, until either is gone.
pub(crate) fn pump(mut from: File, mut to: File) {
    let mut frame = vec![0; 70 << 10];
    loop {
        match from.read(&mut frame) {
            // Not every frame is taken; that is what networks are like.
            Ok(count) => drop(to.write(&frame[..count])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waiting = [rustix::event::PollFd::new(&from, rustix::event::PollFlags::IN)];
                let _ = rustix::event::poll(&mut waiting, None);
            }
            Err(_) => return,
        }
    }
}

pub(crate) fn inner_tap() -> OwnedFd {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"guest0") {
        *to = libc::c_char::try_from(*from).unwrap();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
    // SAFETY: the request lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    file.into()
}

pub(crate) fn address_of(guest: &Guest) -> String {
    let slot = guest.running.jailed.slot;
    Ipv4Addr::from(POOL.parse::<warren_sandbox_plan::network::Pool>().unwrap().of_slot(slot).unwrap())
        .to_string()
}
