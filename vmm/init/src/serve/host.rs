//! The host's side of port 1: frames in, frames out. A newer connection replaces the older.
//!
//! ```text
//!  Own ──HoldStill──▶ Still(on connection N) ──an event on N──▶ Own: this is who was written down
//!                          │ Restored on another connection
//!                          └──▶ renewed, acknowledged ──▶ Own: this is a copy
//! ```
//! Who said that it holds still may be one of many afterwards: on another connection nothing but `Restored` and `Shutdown` is taken.

use super::Unprepared;
use super::event::HostEvent;
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

/// Waits for the connection that configures.
pub(crate) async fn configure(listener: &mut Listener) -> IoResult<(UnixStream, Box<GuestConfig>)> {
    loop {
        let mut stream = listener.accept().await?;
        if let Ok(GuestRequest::Configure(config)) = read_request(&mut stream).await {
            return Ok((stream, config));
        }
    }
}

/// Says one thing and no more.
pub(crate) async fn say_once(stream: &mut UnixStream, reply: &GuestReply) -> IoResult<()> {
    let bytes = warren_vmm_protocol::frame::encode(reply).map_err(IoError::other)?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Which life this is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Its own.
    Own,
    /// It may have been written down since it said on this connection that it holds still.
    Still { on: u64 },
}

/// What is known of the host over its connections.
struct Host {
    supervisor: Supervisor,
    renew: fn(&Restored) -> Result<(), Unprepared>,
    life: Life,
    /// The generation that it was told last.
    generation: Option<u128>,
}

/// Serves connections, for ever: the given one first. `renew` makes a copy a guest of its own.
pub(crate) async fn serve(
    mut listener: Listener,
    first: UnixStream,
    supervisor: Supervisor,
    renew: fn(&Restored) -> Result<(), Unprepared>,
) -> IoResult<()> {
    let mut host = Host { supervisor, renew, life: Life::Own, generation: None };
    let mut stream = first;
    for number in 0.. {
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
            let still = match self.life {
                Life::Own => None,
                Life::Still { on } => Some(on == number),
            };
            match (request, still) {
                (GuestRequest::Shutdown, _) => self.supervisor.feed(Machine::shutdown),
                (GuestRequest::Invoke(request), None | Some(true)) => {
                    let payload = read_payload(&mut reader, request.payload_len).await?;
                    self.life = Life::Own;
                    self.supervisor.event(HostEvent::new(&request, payload));
                }
                (GuestRequest::HoldStill, None | Some(true)) => {
                    let held = self.supervisor.still().await.map_err(|_| ErrorKind::InvalidData)?;
                    // Before it is said: whoever hears it may write this down.
                    self.life = Life::Still { on: number };
                    self.supervisor.outgoing().answer(&GuestReply::Still { held });
                }
                (GuestRequest::Restored(restored), Some(false)) => self.restored(&restored)?,
                (GuestRequest::Restored(restored), None) if self.generation == Some(restored.generation) => {
                    self.supervisor.outgoing().answer(&GuestReply::Acknowledged);
                }
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
        self.life = Life::Own;
        self.generation = Some(restored.generation);
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
