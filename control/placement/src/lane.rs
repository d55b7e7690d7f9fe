//! The express lane to a worker: the one connection its warm invocations go over.
//!
//! ```text
//!   closed --a call--> dialling --handshake--> open --broken, no answer to a ping--> closed
//!     ^                   |                     |  ^
//!     +------ failed -----+   a call finds that |  | handshake, or failed: the next call tries again
//!                             the certificate   v  |
//!                             was renewed      open, dialling beside it
//!
//!   (a call that finds it open touches nothing but HTTP/2's own state)
//! ```
//! It is gRPC like any other connection, but without the queue and the three tasks that a general channel puts
//! between a caller and the socket: the calling task hands its frames to HTTP/2 itself and is woken by the answer. What
//! is not on the warm path keeps using the general channel.
//!
//! A call that breaks is not tried again here: whether it may have run is for the caller to think about.

use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream,
    client::{Connection, SendRequest},
};
use http_body::{Body as _, Frame};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tonic::body::Body;
use warren_identity::{Credentials, Peer};
use warren_proto::{MAX_MESSAGE_BYTES, v1::worker_service_client::WorkerServiceClient};

/// How long a worker may take to accept a connection.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// How often an open connection is asked for a sign of life, and how long that may take.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// One large payload must not hold up the others.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The generated client, on an express lane.
pub type Express = WorkerServiceClient<Lane>;

/// Why a call on the lane got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The worker's address or name is none.
    #[error("not an address: {0}")]
    Address(String),
    /// It cannot be connected to.
    #[error("cannot connect")]
    Connect(#[from] std::io::Error),
    /// It takes too long to accept.
    #[error("no connection within {DIAL_PATIENCE:?}")]
    Slow,
    /// The connection or the stream ended.
    #[error("the connection failed")]
    Http2(#[from] h2::Error),
    /// The request could not be encoded.
    #[error("the request does not encode")]
    Request(#[from] tonic::Status),
}

/// One worker's lane; clones share its connection.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: String,
    name: String,
    credentials: Credentials,
    open: Mutex<State>,
    /// Held while dialling, so that a burst dials once.
    dialling: tokio::sync::Mutex<()>,
    /// A task makes the connection anew beside the one there is.
    renewing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Connections made so far: its driver's number tells a connection from its successors.
    made: u64,
    open: Option<Open>,
}

/// An open connection.
#[derive(Clone, Debug)]
struct Open {
    sender: SendRequest<Bytes>,
    /// Of the credentials that it was made with.
    generation: u64,
}

/// A client for `peer` at `address` (host and port); dials with the first call, and again when others than those credentials are
/// in use.
#[must_use]
pub fn express(address: &str, peer: &Peer, credentials: Credentials) -> Express {
    let shared = Shared {
        address: address.to_owned(),
        name: peer.server_name(),
        credentials,
        open: Mutex::default(),
        dialling: tokio::sync::Mutex::default(),
        renewing: AtomicBool::new(false),
    };
    let origin = format!("https://{address}").parse().unwrap_or_default();
    WorkerServiceClient::with_origin(Lane(Arc::new(shared)), origin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl tower::Service<http::Request<Body>> for Lane {
    type Response = http::Response<Incoming>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // Streams beyond the worker's limit wait inside HTTP/2; admission is what bounds them.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.call(request).await })
    }
}

impl Shared {
    async fn call(self: Arc<Self>, request: http::Request<Body>) -> Result<http::Response<Incoming>, Broken> {
        let open = self.lock().open.clone();
        let mut sender = match open {
            Some(open) => {
                if open.generation != self.credentials.generation() {
                    self.renew();
                }
                open.sender
            }
            None => self.dial().await?,
        };
        let (head, mut body) = request.into_parts();
        let mut piece = next_data(&mut body).await?;
        let (answer, mut stream) =
            sender.send_request(http::Request::from_parts(head, ()), piece.is_none())?;
        // One piece ahead, so that the last one carries the end of the stream. What exceeds the window waits in memory;
        // a request is bounded by its message size.
        while let Some(data) = piece {
            piece = next_data(&mut body).await?;
            stream.send_data(data, piece.is_none())?;
        }
        Ok(answer.await?.map(Incoming))
    }

    /// Makes the connection anew beside calls, which go on over the one that there is: it ends with the last of them.
    fn renew(self: &Arc<Self>) {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = shared.dial().await {
                tracing::warn!(
                    address = shared.address,
                    "no connection with the renewed certificate: {error}"
                );
                sleep(PING_EVERY).await;
            }
            shared.renewing.store(false, Ordering::Release);
        });
    }

    async fn dial(self: &Arc<Self>) -> Result<SendRequest<Bytes>, Broken> {
        let _dialling = self.dialling.lock().await;
        // Before the credentials are asked for: they may be renewed in between, and this connection be told for too old.
        let generation = self.credentials.generation();
        if let Some(open) = self.lock().open.clone()
            && open.generation == generation
        {
            return Ok(open.sender);
        }
        let (sender, connection) =
            timeout(DIAL_PATIENCE, self.connect()).await.map_err(|_| Broken::Slow)??;
        let number = {
            let mut state = self.lock();
            state.made += 1;
            state.open = Some(Open { sender: sender.clone(), generation });
            state.made
        };
        tokio::spawn(drive(Arc::clone(self), number, connection));
        Ok(sender)
    }

    async fn connect(&self) -> Result<Connected, Broken> {
        let name = ServerName::try_from(self.name.clone()).map_err(|_| Broken::Address(self.name.clone()))?;
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        let tls = TlsConnector::from(self.credentials.client()).connect(name, socket).await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(tls);
        Ok(handshake.await?)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Replaced as a whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Connected = (SendRequest<Bytes>, Connection<TlsStream<TcpStream>>);

/// Moves the connection's bytes until it ends; then the next call dials.
async fn drive(shared: Arc<Shared>, number: u64, mut connection: Connection<TlsStream<TcpStream>>) {
    let pings = connection.ping_pong();
    tokio::select! {
        biased;
        ended = connection => if let Err(error) = ended {
            tracing::debug!(address = shared.address, %error, "a lane to a worker ended");
        },
        () = silence(pings) => tracing::warn!(address = shared.address, "a worker does not answer pings"),
    }
    let mut state = shared.lock();
    if state.made == number {
        state.open = None;
    }
}

/// Returns when a ping was not answered.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(PING_EVERY).await;
        match timeout(PING_PATIENCE, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
    }
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Broken> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(frame) => {
                // Requests have no trailers in gRPC.
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// An answer's body; what was read makes room for more.
#[derive(Debug)]
pub struct Incoming(RecvStream);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match std::task::ready!(self.0.poll_data(context)) {
            Some(Ok(data)) => {
                self.0.flow_control().release_capacity(data.len())?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = std::task::ready!(self.0.poll_trailers(context));
                Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
