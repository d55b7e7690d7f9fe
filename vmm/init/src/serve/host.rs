//! The host's side of port 1: frames in, frames out. A newer connection replaces the older.

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
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use warren_vmm_protocol::frame::{PREFIX, decode, read_len};
use warren_vmm_protocol::guest::{GuestConfig, GuestReply, GuestRequest};

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

/// Serves connections, for ever: the given one first.
pub(crate) async fn serve(mut listener: Listener, first: UnixStream, supervisor: Supervisor) -> IoResult<()> {
    let mut stream = first;
    loop {
        tokio::select! {
            () = converse(stream, &supervisor) => stream = listener.accept().await?,
            newer = listener.accept() => stream = newer?,
        }
    }
}

/// Serves one connection to its end.
async fn converse(stream: UnixStream, supervisor: &Supervisor) {
    let (mut reader, writer) = stream.into_split();
    let outgoing = supervisor.outgoing();
    let listen = async {
        loop {
            match read_request(&mut reader).await? {
                GuestRequest::Invoke(request) => {
                    let payload = read_payload(&mut reader, request.payload_len).await?;
                    supervisor.event(HostEvent::new(&request, payload));
                }
                GuestRequest::Shutdown => supervisor.feed(Machine::shutdown),
                GuestRequest::Configure(_) => return Err(ErrorKind::InvalidData.into()),
            }
        }
    };
    // Whichever ends first, the connection has.
    let _: IoResult<()> = tokio::select! {
        ended = listen => ended,
        ended = speak(writer, &outgoing) => ended,
    };
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
