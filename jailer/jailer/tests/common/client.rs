//! The agent's side of the jailer's protocol.

use super::{LIMITS, named};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use warren_sandbox_plan::{
    packet::{decode_reply, encode},
    request::{
        ExitStatus, JAILER_PROTOCOL_VERSION, Jailed, LIST_PAGE, Limits, MAX_PACKET, Program, Reply, Request,
        Spawn,
    },
};

/// The agent's end.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self { socket }
    }

    /// Starts a jailer that serves at this socket, with these programs, users and folders, and greets it.
    pub(crate) fn of_new(jailer: &mut Command, socket: &Path) -> (Child, Self) {
        let mut jailer =
            jailer.arg("--socket").arg(socket).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(jailer.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "the jailer did not come up; its last words are above");
        let mut client = Self::connect(socket);
        let said = client.ask(&Request::Hello { version: JAILER_PROTOCOL_VERSION }, &[]).0;
        assert!(matches!(said, Reply::Hello { .. }), "{said:?}");
        (jailer, client)
    }

    pub(crate) fn send_raw(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(&self.socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL)
    }

    /// The next packet; `None` once the jailer has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<(Reply, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags).ok()?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        if received.bytes == 0 {
            return None;
        }
        Some((decode_reply(&buffer[..received.bytes]).unwrap(), fds))
    }

    pub(crate) fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> (Reply, Vec<OwnedFd>) {
        self.try_ask(request, fds).unwrap()
    }

    /// `None` if the jailer is gone.
    pub(crate) fn try_ask(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Option<(Reply, Vec<OwnedFd>)> {
        self.send_raw(&encode(request).unwrap(), fds).ok()?;
        self.receive()
    }

    pub(crate) fn try_spawn(&mut self, name: &str, limits: Limits) -> Result<Running, Reply> {
        self.try_start(name, limits).unwrap()
    }

    /// `None` if the jailer is gone.
    pub(crate) fn try_start(&mut self, name: &str, limits: Limits) -> Option<Result<Running, Reply>> {
        self.try_start_program(name, limits, Program::Vmm)
    }

    /// A program that takes what a VMM takes.
    pub(crate) fn try_start_program(
        &mut self,
        name: &str,
        limits: Limits,
        program: Program,
    ) -> Option<Result<Running, Reply>> {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control");
        let listener = UnixListener::bind(&control).unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let spawn = Spawn { name: named(name), program, limits };
        let (reply, mut fds) = self.try_ask(&Request::Spawn(spawn), &[listener.as_fd(), write.as_fd()])?;
        Some(match reply {
            Reply::Spawned(jailed) => {
                let network = program.linux_machine().is_some_and(|machine| machine.network);
                assert_eq!(fds.len(), 1 + usize::from(network), "one pidfd comes with it, and a tap");
                let log = BufReader::new(File::from(read));
                let tap = network.then(|| fds.remove(1));
                Ok(Running { jailed, pidfd: fds.remove(0), tap, log, control, _folder: folder })
            }
            other => Err(other),
        })
    }

    pub(crate) fn spawn(&mut self, name: &str) -> Running {
        self.try_spawn(name, LIMITS).unwrap()
    }

    pub(crate) fn kill(&mut self, name: &str) -> Option<ExitStatus> {
        match self.ask(&Request::Kill { name: named(name) }, &[]).0 {
            Reply::Killed { name: killed, exit, .. } if killed.as_str() == name => exit,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn list(&mut self) -> Vec<Jailed> {
        let mut all: Vec<Jailed> = Vec::new();
        loop {
            let last = all.last().map(|jailed| jailed.name.clone());
            let request = last.map_or(Request::List, |name| Request::ListAfter { name });
            match self.ask(&request, &[]).0 {
                Reply::Listed(page) => {
                    let full = page.len() == LIST_PAGE;
                    all.extend(page);
                    if !full {
                        return all;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A jail with the probe in it.
pub(crate) struct Running {
    pub(crate) jailed: Jailed,
    pub(crate) pidfd: OwnedFd,
    pub(crate) tap: Option<OwnedFd>,
    pub(crate) log: BufReader<File>,
    control: PathBuf,
    _folder: TempDir,
}

impl Running {
    pub(crate) fn report(&mut self) -> Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// A connection to what listens in the jail.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.control).unwrap()
    }

    /// Tells the probe one word and returns what it answers until it hangs up or ends.
    pub(crate) fn tell(&self, word: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Gives the probe a descriptor, which it keeps.
    pub(crate) fn give(&self, fd: BorrowedFd<'_>) {
        let stream = self.connect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&stream, &[IoSlice::new(b"keep")], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        // It hangs up when it has it.
        (&stream).read_to_end(&mut Vec::new()).unwrap();
    }

    pub(crate) fn wait_for_end(&self) {
        let mut waiting = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut waiting, Some(&limit)), Ok(1), "the jail did not end");
    }
}
