//! Connections by live credentials: what a server takes in, and a channel to one peer.
//!
//! ```text
//!  Incoming:  accept ─▶ handshake (each in a task, 10 s at most, with what is in use when it begins) ─▶ tonic
//!  Line:      channel() ─┬─ made with what is in use ───────────▶ the same channel
//!                        ╰─ made before others were taken up ───▶ another one; calls that run end on the one before
//! ```
//! tonic's own TLS is fixed when a server or endpoint is made, so it is not used here. Its certificates are told to handlers all the
//! same: a TLS stream is one of the connections whose peer it knows how to ask for.

use crate::{Credentials, Peer};
use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};

/// A peer that dawdles longer over its handshake is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Handshakes at once. Those beyond wait in the kernel's queue, so that strangers cannot use up this process's descriptors.
const HANDSHAKES: usize = 1024;
/// After the kernel had no descriptor or memory for another connection.
const BREATH: Duration = Duration::from_millis(50);

/// Connections whose handshake is done, for tonic to serve. Ends with the listener's task when dropped.
#[derive(Debug)]
pub struct Incoming {
    done: ReceiverStream<io::Result<server::TlsStream<TcpStream>>>,
}

impl Incoming {
    /// Of this listener. Must be called inside the runtime.
    #[must_use]
    pub fn new(listener: TcpListener, credentials: Credentials) -> Self {
        let (give, done) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut handshakes = JoinSet::new();
            loop {
                let room = handshakes.len() < HANDSHAKES;
                tokio::select! {
                    accepted = listener.accept(), if room => match accepted {
                        Ok((socket, _)) => {
                            handshakes.spawn(shake(socket, TlsAcceptor::from(credentials.server())));
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a connection could not be taken");
                            sleep(BREATH).await;
                        }
                    },
                    Some(shaken) = handshakes.join_next() => match shaken {
                        Ok(Ok(stream)) => if give.send(Ok(stream)).await.is_err() { return },
                        Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                        Err(error) => tracing::error!(%error, "a handshake's task ended"),
                    },
                    () = give.closed() => return,
                }
            }
        });
        Self { done: ReceiverStream::new(done) }
    }
}

async fn shake(socket: TcpStream, tls: TlsAcceptor) -> io::Result<server::TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    timeout(HANDSHAKE_TIME, tls.accept(socket)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl Stream for Incoming {
    type Item = io::Result<server::TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.done).poll_next(context)
    }
}

/// The way to one peer: a channel that shows the certificate in use, and accepts only one of that very role.
#[derive(Debug)]
pub struct Line {
    endpoint: Endpoint,
    credentials: Credentials,
    name: ServerName<'static>,
    made: ArcSwap<(u64, Channel)>,
}

impl Line {
    /// To `peer` at `address` (host and port); `tune` sets timeouts and windows. Connects with the first call. Must be called inside
    /// the runtime.
    pub fn new(
        credentials: Credentials,
        peer: &Peer,
        address: &str,
        tune: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Self, tonic::transport::Error> {
        // To tonic these are plain connections: the handshake is the connector's. What it says to the peer is https.
        let origin = Endpoint::from_shared(format!("https://{address}"))?.uri().clone();
        let endpoint = tune(Endpoint::from_shared(format!("http://{address}"))?).origin(origin);
        let name = server_name(peer);
        let made = (credentials.generation(), open(&endpoint, &credentials, &name));
        Ok(Self { endpoint, credentials, name, made: ArcSwap::from_pointee(made) })
    }

    /// The channel for a call that begins now; cheap. Must be called inside the runtime.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let now = self.credentials.generation();
        let made = self.made.load();
        if made.0 == now {
            return made.1.clone();
        }
        let channel = open(&self.endpoint, &self.credentials, &self.name);
        // Two that come at once both make one: the later stays, the other ends with its calls.
        self.made.store(Arc::new((now, channel.clone())));
        channel
    }
}

fn open(endpoint: &Endpoint, credentials: &Credentials, name: &ServerName<'static>) -> Channel {
    let (credentials, name) = (credentials.clone(), name.clone());
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: http::Uri| {
        let (credentials, name) = (credentials.clone(), name.clone());
        async move { dial(&uri, &credentials, name).await.map(TokioIo::new) }
    }))
}

async fn dial(
    uri: &http::Uri,
    credentials: &Credentials,
    name: ServerName<'static>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let address = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.as_str();
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream = TlsConnector::from(credentials.client()).connect(name, socket).await?;
    if stream.get_ref().1.alpn_protocol() != Some(crate::tls::ALPN) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak HTTP/2"));
    }
    Ok(stream)
}

/// A role's name is a DNS name by its own rules.
fn server_name(peer: &Peer) -> ServerName<'static> {
    ServerName::try_from(peer.server_name())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}
