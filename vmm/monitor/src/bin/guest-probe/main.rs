//! What the lab's tests run inside a Linux guest: a server of socket streams that does as each stream's first byte says.
//! Arguments: the port it listens on, and a port of the host that is told so by a connection.
//!
//! | first byte | then |
//! |---|---|
//! | `e` | gives back what comes, ends when it ends |
//! | `s` N | sends N bytes of the pattern, ends |
//! | `z` N | sends N bytes that were made before, ends |
//! | `w` | waits for the gate, reads to the end, answers count and sum |
//! | `t` | sends until there is no room; goes on when the gate opens, up to N bytes in all, ends |
//! | `b` | answers how much a `t` sent before there was no room |
//! | `g` | opens the gate |
//! | `c` P N | connects to port P of the host, sends N bytes, ends, reads to the end there; answers count and sum |
//! | `r` | reads to the end, writes until that fails; answers on a `b` how the writing failed |
//! | `d` K S N D | reads (K = 0) or writes N pieces of S bytes of the first disk past the page cache, D at once; answers a byte |
//! | `n` K N | over TCP to the host's end of the network card: sends N bytes (K = 0), takes N, or N times a byte there and back; answers a byte |
//! | `x` | ends the program |
//!
//! `guest-probe tcp ADDRESS FILE BACK` sends the file over TCP in one piece, ends, and keeps what comes back.
#![allow(unsafe_code, reason = "the standard library knows no such sockets")]

mod aio;
mod devices;

use std::io::{ErrorKind, Read, Result, Write};
use std::mem::size_of;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

const HOST: u32 = 2;

fn main() -> Result<()> {
    if let [tcp, address, file, back] = std::env::args().skip(1).collect::<Vec<_>>().as_slice()
        && tcp == "tcp"
    {
        return there_and_back(address, file, back);
    }
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(1000);
    let listener = socket(libc::VMADDR_CID_ANY, port, libc::bind)?;
    // SAFETY: plain numbers.
    check(unsafe { libc::listen(listener.as_raw_fd(), 64) })?;
    println!("guest-probe: listening");
    // Who waits for that on a port of the host is told.
    if let Some(port) = std::env::args().nth(2).and_then(|port| port.parse().ok()) {
        drop(socket(HOST, port, libc::connect)?);
    }
    let shared = Arc::<Shared>::default();
    loop {
        // SAFETY: no address is asked for.
        let fd = check(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        })?;
        // SAFETY: the descriptor is new. It is no Unix socket, but read, written and shut down like one.
        let stream = unsafe { UnixStream::from_raw_fd(fd) };
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, &shared) {
                println!("guest-probe: {error}");
            }
        });
    }
}

fn there_and_back(address: &str, file: &str, back: &str) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(&std::fs::read(file)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    std::fs::write(back, bytes)
}

fn serve(mut stream: UnixStream, shared: &Shared) -> Result<()> {
    let mut what = [0];
    stream.read_exact(&mut what)?;
    match what[0] {
        b'e' => {
            echo(&mut stream)?;
            stream.shutdown(Shutdown::Write)?;
            // Closed when the host has.
            stream.read_to_end(&mut Vec::new())?;
        }
        b's' => {
            let all = take(&mut &stream)?;
            send_pattern(&mut stream, 0, all)?;
        }
        b'z' => {
            let all = take(&mut &stream)?;
            let piece = vec![0; 64 << 10];
            let mut left = usize::try_from(all).unwrap_or(0);
            while left > 0 {
                let now = left.min(piece.len());
                stream.write_all(piece.get(..now).unwrap_or_default())?;
                left -= now;
            }
        }
        b'w' => {
            shared.wait_open();
            let answer = sum(&mut stream)?;
            stream.write_all(&answer)?;
        }
        b't' => {
            let all = take(&mut &stream)?;
            let stuck = send_until_stuck(&mut stream, all)?;
            shared.tell(stuck);
            shared.wait_open();
            send_pattern(&mut stream, stuck, all)?;
        }
        b'b' => stream.write_all(&shared.wait_told().to_le_bytes())?,
        b'g' => shared.open(),
        b'c' => {
            let (port, all) = (take(&mut &stream)?, take(&mut &stream)?);
            let port = u32::try_from(port).unwrap_or(0);
            let far = match socket(HOST, port, libc::connect) {
                Ok(far) => far,
                Err(error) => return stream.write_all(format!("{error}").as_bytes()),
            };
            let mut far = UnixStream::from(far);
            send_pattern(&mut far, 0, all)?;
            far.shutdown(Shutdown::Write)?;
            stream.write_all(&sum(&mut far)?)?;
        }
        b'r' => {
            std::io::copy(&mut stream, &mut std::io::sink())?;
            let error = loop {
                if let Err(error) = stream.write_all(&[0; 4096]) {
                    break error;
                }
            };
            shared.tell(u64::try_from(error.raw_os_error().unwrap_or(0)).unwrap_or(0));
        }
        b'd' => {
            let words = [take(&mut &stream)?, take(&mut &stream)?, take(&mut &stream)?, take(&mut &stream)?];
            devices::disk(words)?;
            stream.write_all(&[0])?;
        }
        b'n' => {
            let (kind, count) = (take(&mut &stream)?, take(&mut &stream)?);
            devices::card(kind, count)?;
            stream.write_all(&[0])?;
        }
        b'x' => std::process::exit(0),
        other => println!("guest-probe: {other:#x} is no request"),
    }
    Ok(())
}

fn echo(stream: &mut UnixStream) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..got).unwrap_or_default())?;
    }
}

/// A gate, and a number that somebody waits for.
#[derive(Default)]
struct Shared {
    state: Mutex<(bool, Option<u64>)>,
    changed: Condvar,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut (bool, Option<u64>))) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn open(&self) {
        self.change(|state| state.0 = true);
    }

    fn tell(&self, number: u64) {
        self.change(|state| state.1 = Some(number));
    }

    fn wait_open(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |state| !state.0));
    }

    fn wait_told(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state =
            self.changed.wait_while(state, |state| state.1.is_none()).unwrap_or_else(PoisonError::into_inner);
        state.1.take().unwrap_or(0)
    }
}

/// A number of eight bytes.
fn take(stream: &mut impl Read) -> Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn pattern(at: u64) -> u8 {
    at.wrapping_mul(2_654_435_761).to_le_bytes()[2]
}

fn send_pattern(stream: &mut impl Write, from: u64, to: u64) -> Result<()> {
    let mut at = from;
    while at < to {
        let end = to.min(at + 50_000);
        stream.write_all(&(at..end).map(pattern).collect::<Vec<_>>())?;
        at = end;
    }
    Ok(())
}

fn send_until_stuck(stream: &mut UnixStream, to: u64) -> Result<u64> {
    stream.set_nonblocking(true)?;
    let mut at = 0;
    while at < to {
        let bytes: Vec<u8> = (at..to.min(at + 10_000)).map(pattern).collect();
        match stream.write(&bytes) {
            Ok(count) => at += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(at)
}

/// Reads to the end: how many bytes, and their FNV-1a.
fn sum(stream: &mut impl Read) -> Result<[u8; 16]> {
    let (mut count, mut sum) = (0_u64, 0xCBF2_9CE4_8422_2325_u64);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        count += got as u64;
        for byte in buffer.iter().take(got) {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        }
    }
    let mut answer = [0; 16];
    answer[..8].copy_from_slice(&count.to_le_bytes());
    answer[8..].copy_from_slice(&sum.to_le_bytes());
    Ok(answer)
}

type WithAddress = unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int;

/// A socket that was bound or connected.
fn socket(cid: u32, port: u32, call: WithAddress) -> Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is new and nobody else's.
    let socket = unsafe {
        let fd = check(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: all zeroes is a valid address structure.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or(0);
    (address.svm_cid, address.svm_port) = (cid, port);
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or(0);
    // SAFETY: the address lives through the call and is as long as said.
    check(unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
