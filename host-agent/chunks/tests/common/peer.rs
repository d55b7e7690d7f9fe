//! Peers as they are and as they should not be, on real sockets.

use bytes::Bytes;
use std::fmt;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Server},
};
use warren_chunks::{
    l1::Local,
    l2::{
        Peer, Service,
        v1::{
            GetRequest, OfferRequest, OfferResponse, Piece,
            chunks_server::{Chunks, ChunksServer},
        },
    },
};

/// What a peer does.
#[derive(Clone)]
pub(crate) enum Kind {
    /// What it should: this is what it has, and how many it serves at once.
    Serving(Local, usize),
    /// Takes connections and says nothing.
    Silent,
    /// Nobody is there.
    Dead,
    /// Gives other bytes than it is asked for.
    Garbage,
    /// Gives bytes without end.
    Endless,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving(_, 0) => "Busy",
            Self::Serving(..) => "Serving",
            Self::Silent => "Silent",
            Self::Dead => "Dead",
            Self::Garbage => "Garbage",
            Self::Endless => "Endless",
        })
    }
}

/// Starts one.
pub(crate) async fn start(id: &str, kind: Kind) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    match kind {
        Kind::Serving(local, at_once) => {
            let server = Server::builder().add_service(Service::new(local, at_once).into_server());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        Kind::Silent => drop(tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        })),
        Kind::Dead => drop(listener),
        Kind::Garbage | Kind::Endless => {
            let service = ChunksServer::new(Liar { endless: matches!(kind, Kind::Endless) });
            let server = Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
    }
    Peer { id: id.into(), channel: Channel::from_shared(address).unwrap().connect_lazy() }
}

struct Liar {
    endless: bool,
}

#[tonic::async_trait]
impl Chunks for Liar {
    type GetStream = tokio_stream::Iter<Box<dyn Iterator<Item = Result<Piece, Status>> + Send>>;

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let data = Bytes::from(vec![7; 50_000]);
        let piece = move || Ok(Piece { data: data.clone() });
        let pieces: Box<dyn Iterator<Item = _> + Send> = if self.endless {
            Box::new(std::iter::repeat_with(piece))
        } else {
            Box::new(std::iter::repeat_with(piece).take(4))
        };
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn offer(&self, _: Request<OfferRequest>) -> Result<Response<OfferResponse>, Status> {
        Ok(Response::new(OfferResponse { kept: true }))
    }
}
