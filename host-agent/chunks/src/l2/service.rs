//! Answering other workers, from this one's own tiers alone.

use super::{
    MAX_OBJECT_BYTES, PIECE_BYTES,
    v1::{
        GetRequest, OfferRequest, OfferResponse, Piece, chunks_server::Chunks, chunks_server::ChunksServer,
    },
};
use crate::{
    l1::{Local, Own, Put},
    name::Name,
};
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Pieces that wait for a slow reader.
const AHEAD: usize = 4;
/// How long a reader may take none.
const STALLED: Duration = Duration::from_secs(10);

/// The service of one worker. Who may ask is the server's affair (mutual TLS with role-bound identities).
#[derive(Clone, Debug)]
pub struct Service {
    local: Local,
    places: Arc<Semaphore>,
    given: Arc<AtomicU64>,
}

impl Service {
    /// Serves what `local` has to so many at once; more are turned away, for they have other places to ask.
    #[must_use]
    pub fn new(local: Local, at_once: usize) -> Self {
        Self { local, places: Arc::new(Semaphore::new(at_once)), given: Arc::default() }
    }

    /// How many objects it began to give.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// As a gRPC server takes it.
    #[must_use]
    pub fn into_server(self) -> ChunksServer<Self> {
        ChunksServer::new(self).max_decoding_message_size(MAX_OBJECT_BYTES + 1024)
    }
}

fn name(bytes: &[u8]) -> Result<Name, Status> {
    bytes.try_into().map(Name).map_err(|_| Status::invalid_argument("a name has 32 bytes"))
}

#[tonic::async_trait]
impl Chunks for Service {
    type GetStream = ReceiverStream<Result<Piece, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let name = name(&request.get_ref().name)?;
        let busy = |_| Status::resource_exhausted("too many are asking");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        let mut sealed = match self.local.get(name).await {
            Own::Memory(sealed) | Own::Disk(sealed) if sealed.len() <= MAX_OBJECT_BYTES => sealed,
            _ => return Err(Status::not_found("not here")),
        };
        self.given.fetch_add(1, Ordering::Relaxed);
        let (to, pieces) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            while !sealed.is_empty() {
                let data = sealed.split_to(PIECE_BYTES.min(sealed.len()));
                // Whoever left needs no more, and who takes nothing for so long holds no place of others.
                if !matches!(timeout(STALLED, to.send(Ok(Piece { data }))).await, Ok(Ok(()))) {
                    break;
                }
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<OfferResponse>, Status> {
        let OfferRequest { name: named, sealed } = request.into_inner();
        let name = name(&named)?;
        if sealed.len() > MAX_OBJECT_BYTES || !name.is_of(&sealed) {
            return Err(Status::invalid_argument("not the object of that name"));
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Ok(Response::new(OfferResponse { kept: false }));
        };
        // The message's buffer may be larger than the object: what is kept is a copy of its size.
        let sealed = Bytes::copy_from_slice(&sealed);
        let kept = matches!(self.local.keep(name, sealed).await, Ok(Put::Stored | Put::Present));
        Ok(Response::new(OfferResponse { kept }))
    }
}
