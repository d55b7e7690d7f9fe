//! A program for tests, run in the VMM's or the compiler's place: it writes one JSON line about the jail it finds
//! itself in to its log (descriptor 1), then does what it is told over its control socket (descriptor 3), one word a
//! connection. It is never shipped.

use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags, mkdirat, openat, statvfs},
    io::Errno,
    mount::{MountFlags, mount},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, accept,
        ipproto, recvmsg, socket_with,
    },
    process::{DumpableBehavior, Pid, Resource, dumpable_behavior, getgroups, getrlimit},
    thread::{
        CapabilitySet, capabilities, capabilities_secure_bits, capability_is_in_ambient_set,
        capability_is_in_bounding_set, no_new_privs,
    },
};
use serde_json::{Value, json};
use std::{
    io::{IoSliceMut, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

fn main() {
    let mut out = std::io::stdout();
    let line = report().to_string();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(9);
    }
    let Some(control) = borrow(3) else { std::process::exit(8) };
    while let Ok(connection) = accept(control) {
        let mut word = [0_u8; 64];
        let length = read_and_keep(&connection, &mut word);
        obey(std::str::from_utf8(word.get(..length).unwrap_or_default()).unwrap_or_default(), &connection);
    }
}

/// Reads a word; a descriptor that comes along stays open to the end.
fn read_and_keep(connection: &OwnedFd, word: &mut [u8]) -> usize {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::empty();
    let received = recvmsg(connection, &mut [IoSliceMut::new(word)], &mut ancillary, flags);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            passed.for_each(std::mem::forget);
        }
    }
    received.map_or(0, |received| received.bytes)
}

fn obey(word: &str, connection: impl std::os::fd::AsFd) {
    match word {
        "exit" => std::process::exit(7),
        "memory" => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 1 << 20]);
            }
        }
        "threads" => {
            let mut count = 0_u32;
            while count < 500 {
                let park = || loop {
                    std::thread::park();
                };
                if std::thread::Builder::new().stack_size(16 << 10).spawn(park).is_err() {
                    break;
                }
                count += 1;
            }
            let _ = rustix::io::write(connection, count.to_string().as_bytes());
        }
        "files" => {
            let mut held = Vec::new();
            while let Ok(fd) = rustix::io::dup(&connection) {
                held.push(fd);
            }
            let _ = rustix::io::write(connection, held.len().to_string().as_bytes());
        }
        "kvm" => {
            // KVM_GET_API_VERSION: answers 12 wherever /dev/kvm works.
            let answer = borrow(4).map_or(-1, kvm_api_version);
            let _ = rustix::io::write(connection, answer.to_string().as_bytes());
        }
        _ => {
            let _ = rustix::io::write(connection, b"?");
        }
    }
}

fn report() -> Value {
    let sets = capabilities(None).ok();
    let bits = |set: Option<CapabilitySet>| set.map(|set| set.bits());
    let count = |has: fn(CapabilitySet) -> rustix::io::Result<bool>| {
        (0..64).filter(|number| has(CapabilitySet::from_bits_retain(1 << number)) == Ok(true)).count()
    };
    let uname = rustix::system::uname();
    json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "environment": std::env::vars_os().count(),
        "pid": rustix::process::getpid().as_raw_nonzero(),
        "parent": rustix::process::getppid().map(Pid::as_raw_nonzero),
        "session": rustix::process::getsid(None).ok().map(Pid::as_raw_nonzero),
        "uid": rustix::process::getuid().as_raw(),
        "euid": rustix::process::geteuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "egid": rustix::process::getegid().as_raw(),
        "groups": getgroups().map(|groups| groups.len()).ok(),
        "no_new_privs": no_new_privs().ok(),
        "effective": bits(sets.map(|sets| sets.effective)),
        "permitted": bits(sets.map(|sets| sets.permitted)),
        "inheritable": bits(sets.map(|sets| sets.inheritable)),
        "bounding": count(capability_is_in_bounding_set),
        "ambient": count(capability_is_in_ambient_set),
        "securebits": capabilities_secure_bits().map(|bits| bits.bits()).ok(),
        "dumpable": dumpable_behavior().ok() != Some(DumpableBehavior::NotDumpable),
        "descriptors": (0..2048).filter(|number| borrow(*number).is_some()).collect::<Vec<_>>(),
        "root": root(),
        "hostname": uname.nodename().to_string_lossy(),
        "domain": uname.domainname().to_string_lossy(),
        "limits": limits(),
        "attempts": attempts(),
    })
}

fn root() -> Value {
    let entries = std::fs::read_dir("/").map(Iterator::count).ok();
    let flags = statvfs("/").map_or(StatVfsMountFlags::empty(), |stat| stat.f_flag);
    json!({
        "entries": entries,
        "cwd": std::env::current_dir().ok(),
        "read_only": flags.contains(StatVfsMountFlags::RDONLY),
        "nosuid": flags.contains(StatVfsMountFlags::NOSUID),
        "nodev": flags.contains(StatVfsMountFlags::NODEV),
        "noexec": flags.contains(StatVfsMountFlags::NOEXEC),
    })
}

fn limits() -> Value {
    let both = |resource| {
        let limit = getrlimit(resource);
        json!([limit.current, limit.maximum])
    };
    json!({
        "CORE": both(Resource::Core),
        "NOFILE": both(Resource::Nofile),
        "FSIZE": both(Resource::Fsize),
        "NPROC": both(Resource::Nproc),
        "MEMLOCK": both(Resource::Memlock),
        "AS": both(Resource::As),
        "CPU": both(Resource::Cpu),
    })
}

/// What the jail must refuse without any filter: each as the error's name, or "DONE".
fn attempts() -> Value {
    let said = |result: Result<(), Errno>| match result {
        Ok(()) => "DONE".to_owned(),
        Err(errno) => format!("{:?}", std::io::Error::from(errno).kind()),
    };
    let open = |path: &str| said(openat(CWD, path, OFlags::RDONLY, Mode::empty()).map(drop));
    let send = |to: (Ipv4Addr, u16)| {
        let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(b"x", to));
        sent.map_or_else(|error| format!("{:?}", error.kind()), |_| "DONE".to_owned())
    };
    json!({
        "open /proc": open("/proc"),
        "open /dev/kvm": open("/dev/kvm"),
        "open /etc/passwd": open("/etc/passwd"),
        "open ../../etc/passwd": open("../../../etc/passwd"),
        "mkdir": said(mkdirat(CWD, "/x", Mode::RWXU)),
        "create": said(openat(CWD, "/x", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).map(drop)),
        "mount": said(mount("none", "/", "tmpfs", MountFlags::empty(), None)),
        "remount": said(rustix::mount::mount_remount("/", MountFlags::empty(), c"")),
        "chroot": said(rustix::process::chroot("/")),
        "setuid 0": said(rustix::thread::set_thread_uid(rustix::process::Uid::ROOT)),
        "setgid 0": said(rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)),
        "setgroups": said(rustix::thread::set_thread_groups(&[rustix::process::Gid::ROOT])),
        "sethostname": said(rustix::system::sethostname(b"x")),
        "raw socket": said(
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::empty(), Some(ipproto::ICMP)).map(drop)
        ),
        "send to 127.0.0.1": send((Ipv4Addr::LOCALHOST, 9)),
        "send to 8.8.8.8": send((Ipv4Addr::new(8, 8, 8, 8), 9)),
        "own process": std::fs::read_link("/proc/self/exe")
            .map_or_else(|error| format!("{:?}", error.kind()), |_| "DONE".to_owned()),
    })
}

fn borrow(number: RawFd) -> Option<BorrowedFd<'static>> {
    probe_sys::borrow(number)
}

fn kvm_api_version(fd: BorrowedFd<'_>) -> i32 {
    probe_sys::kvm_api_version(fd)
}

#[allow(
    unsafe_code,
    reason = "descriptors given by number have no owner type; the one ioctl has no safe form"
)]
mod probe_sys {
    use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

    pub(super) fn borrow(number: RawFd) -> Option<BorrowedFd<'static>> {
        // SAFETY: 1. F_GETFD touches no memory, whatever the number.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        // SAFETY: 1. it is open; 2. nothing in this program closes a descriptor it did not open.
        open.then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }

    pub(super) fn kvm_api_version(fd: BorrowedFd<'_>) -> i32 {
        // SAFETY: 1. KVM_GET_API_VERSION takes no pointer; on another kind of file it is refused.
        unsafe { libc::ioctl(fd.as_raw_fd(), 0xAE00, 0) }
    }
}
