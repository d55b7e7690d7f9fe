//! The host's side of port 1: frames in, frames out. A newer connection replaces the older.
//!
//! ```text
//!  nobody's ──Configure──▶ a function's: events, until Shutdown
//!   │ ▲ HoldStill: it may be written down, for every function that is to begin with it
//!   ╰─╯ Restored: renewed, acknowledged
//! ```
//! What is taken on which connection once it held still is [`super::lives`]'.

use super::Unprepared;
use super::event::HostEvent;
use super::lives::{Lives, Told};
use super::outgoing::Outgoing;
use super::supervisor::Supervisor;
use crate::core::Machine;
use bytes::Bytes;
use socket2::Socket;
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use warren_vmm_protocol::frame::{PREFIX, decode, read_len};
use warren_vmm_protocol::guest::{GuestConfig, GuestReply, GuestRequest, Restored};

/// Most bytes of an event's payload.
const PAYLOAD_MAX: u32 = 6 << 20;
/// The host's vsock address; programs of this guest, whatever way they find, are not the host.
const CID_HOST: u32 = 2;

/// A listening stream socket: vsock in a guest, Unix elsewhere.
///
/// A thread of its own accepts: the runtime's listeners read peers' addresses, of which they know no vsock ones.
pub(crate) struct Listener(mpsc::Receiver<OwnedFd>);

impl Listener {
    /// Takes one that is bound and listens.
    pub(crate) fn new(socket: OwnedFd) -> IoResult<Self> {
        let socket = Socket::from(socket);
        let (sender, receiver) = mpsc::channel(1);
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || {
            loop {
                let sent = match socket.accept() {
                    Ok((_, peer)) if peer.as_vsock_address().is_some_and(|(cid, _)| cid != CID_HOST) => true,
                    Ok((stream, _)) => sender.blocking_send(stream.into()).is_ok(),
                    Err(error) => {
                        matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
                    }
                };
                if !sent {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next connection. A stream socket reads and writes alike in both families, so one type serves.
    pub(crate) async fn accept(&mut self) -> IoResult<UnixStream> {
        let socket = self.0.recv().await.ok_or(ErrorKind::NotConnected)?;
        let stream = StdStream::from(socket);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }
}

/// The connection that configured, and what is known of those before.
pub(crate) struct Line {
    /// It.
    pub(crate) stream: UnixStream,
    /// Which one it is.
    number: u64,
    lives: Lives,
}

/// One that no function is in yet.
struct Nobodys<'a> {
    renew: &'a dyn Fn(&Restored) -> Result<(), Unprepared>,
    lives: Lives,
}

/// Waits for the connection that configures; `Ok(None)`: it cannot be one of its own, which is said. `renew` makes one that was
/// written down before, and brought back, a guest of its own.
pub(crate) async fn configure(
    listener: &mut Listener,
    renew: impl Fn(&Restored) -> Result<(), Unprepared>,
) -> IoResult<Option<(Box<GuestConfig>, Line)>> {
    let mut nobodys = Nobodys { renew: &renew, lives: Lives::default() };
    let mut stream = listener.accept().await?;
    for number in 0.. {
        let asked = tokio::select! {
            asked = nobodys.converse(stream, number) => asked,
            newer = listener.accept() => {
                stream = newer?;
                continue;
            }
        };
        match asked {
            Ok(Some((config, stream))) => {
                return Ok(Some((config, Line { stream, number, lives: nobodys.lives })));
            }
            Ok(None) => return Ok(None),
            // Whoever it was is gone, or not to be talked to, and hears that.
            Err(_) => stream = listener.accept().await?,
        }
    }
    Ok(None)
}

impl Nobodys<'_> {
    /// Serves one connection until it configures, or ends.
    async fn converse(
        &mut self,
        mut stream: UnixStream,
        number: u64,
    ) -> IoResult<Option<(Box<GuestConfig>, UnixStream)>> {
        loop {
            match read_request(&mut stream).await? {
                GuestRequest::Configure(config) if self.lives.is_own(number) => {
                    self.lives.go_on();
                    return Ok(Some((config, stream)));
                }
                GuestRequest::HoldStill if self.lives.is_own(number) => {
                    // What is on the way to a disk would be written by every copy.
                    let _ = tokio::task::spawn_blocking(rustix::fs::sync).await;
                    // Before it is said: whoever hears it may write this down.
                    self.lives.hold_still(number);
                    // No program is there that could run.
                    say(&mut stream, &GuestReply::Still { held: true }).await?;
                }
                GuestRequest::Restored(restored) => {
                    match self.lives.told(number, restored.generation) {
                        Told::Refused => return Err(ErrorKind::InvalidData.into()),
                        Told::Known => {}
                        Told::News => {
                            let renewed =
                                super::same_version(restored.version).and_then(|()| (self.renew)(&restored));
                            if let Err(unprepared) = renewed {
                                let reply = GuestReply::InitFailed { init_us: 0, error: unprepared.error() };
                                say_last(&mut stream, &reply).await;
                                return Ok(None);
                            }
                            self.lives.renewed(restored.generation);
                        }
                    }
                    say(&mut stream, &GuestReply::Acknowledged).await?;
                }
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Says one thing and no more, to whoever still hears it.
pub(crate) async fn say_last(stream: &mut UnixStream, reply: &GuestReply) {
    let said = async {
        say(stream, reply).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(super::LAST_WORDS, said).await;
}

async fn say(stream: &mut UnixStream, reply: &GuestReply) -> IoResult<()> {
    let bytes = warren_vmm_protocol::frame::encode(reply).map_err(IoError::other)?;
    stream.write_all(&bytes).await
}

/// What is known of the host over its connections.
struct Host {
    supervisor: Supervisor,
    renew: fn(&Restored) -> Result<(), Unprepared>,
    lives: Lives,
}

/// Serves connections, for ever: the one that configured first. `renew` makes a copy a guest of its own.
pub(crate) async fn serve(
    mut listener: Listener,
    Line { mut stream, number: first, lives }: Line,
    supervisor: Supervisor,
    renew: fn(&Restored) -> Result<(), Unprepared>,
) -> IoResult<()> {
    let mut host = Host { supervisor, renew, lives };
    for number in first.. {
        tokio::select! {
            () = host.converse(stream, number) => stream = listener.accept().await?,
            newer = listener.accept() => stream = newer?,
        }
    }
    Ok(())
}

impl Host {
    /// Serves one connection to its end.
    async fn converse(&mut self, stream: UnixStream, number: u64) {
        let (reader, writer) = stream.into_split();
        let outgoing = self.supervisor.outgoing();
        outgoing.connected();
        // Whichever ends first, the connection has.
        let _: IoResult<()> = tokio::select! {
            ended = self.listen(reader, number) => ended,
            ended = speak(writer, &outgoing) => ended,
        };
    }

    async fn listen(&mut self, mut reader: OwnedReadHalf, number: u64) -> IoResult<()> {
        loop {
            let request = read_request(&mut reader).await?;
            match request {
                GuestRequest::Shutdown => self.supervisor.feed(Machine::shutdown),
                GuestRequest::Invoke(request) if self.lives.is_own(number) => {
                    let payload = read_payload(&mut reader, request.payload_len).await?;
                    self.lives.go_on();
                    self.supervisor.event(HostEvent::new(&request, payload));
                }
                GuestRequest::HoldStill if self.lives.is_own(number) => {
                    let held = self.supervisor.still().await.map_err(|_| ErrorKind::InvalidData)?;
                    // Before it is said: whoever hears it may write this down.
                    self.lives.hold_still(number);
                    self.supervisor.outgoing().answer(&GuestReply::Still { held });
                }
                GuestRequest::Restored(restored) => match self.lives.told(number, restored.generation) {
                    Told::News => self.restored(&restored)?,
                    Told::Known => self.supervisor.outgoing().answer(&GuestReply::Acknowledged),
                    Told::Refused => return Err(ErrorKind::InvalidData.into()),
                },
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    /// This is a copy. Nothing of the function runs before it is one of its own.
    fn restored(&mut self, restored: &Restored) -> IoResult<()> {
        let renewed = super::same_version(restored.version).and_then(|()| (self.renew)(restored));
        if let Err(unprepared) = renewed {
            self.supervisor.give_up(&unprepared.error());
            return Ok(());
        }
        self.lives.renewed(restored.generation);
        self.supervisor.outgoing().answer(&GuestReply::Acknowledged);
        self.supervisor.feed(Machine::restored).map_err(|_| ErrorKind::InvalidData.into())
    }
}

async fn speak(mut writer: OwnedWriteHalf, outgoing: &Outgoing) -> IoResult<()> {
    loop {
        let message: Rc<[u8]> = outgoing.front().await;
        writer.write_all(&message).await?;
        outgoing.sent();
    }
}

async fn read_request(reader: &mut (impl AsyncRead + Unpin)) -> IoResult<GuestRequest> {
    let mut prefix = [0; PREFIX];
    reader.read_exact(&mut prefix).await?;
    let mut body = vec![0; read_len(prefix).map_err(IoError::other)?];
    reader.read_exact(&mut body).await?;
    decode(&body).map_err(IoError::other)
}

async fn read_payload(reader: &mut (impl AsyncRead + Unpin), len: u32) -> IoResult<Bytes> {
    if len > PAYLOAD_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; usize::try_from(len).unwrap_or_default()];
    reader.read_exact(&mut payload).await?;
    Ok(payload.into())
}
