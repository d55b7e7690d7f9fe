//! Who sent a request: by its connection's certificate, or by a bearer token.

use crate::{HostId, IdentityError, Peer, TokenHashes, authority::peer_of, files};
use arc_swap::ArcSwapOption;
use std::{path::Path, sync::Arc};
use tonic::{Code, Request, Status, metadata::MetadataMap, service::Interceptor};
use warren_proto::error::{Fault, WireError};

/// Says who sent a request. One for each server; cheap to share.
#[derive(Debug)]
pub struct Gate {
    tokens: TokenHashes,
    /// The certificate seen last and its role: on a worker it is control's every time, and comparing 500 bytes is
    /// cheaper than parsing them.
    last_peer: ArcSwapOption<(Vec<u8>, Peer)>,
}

impl Gate {
    /// Accepts certificates only: for agents.
    #[must_use]
    pub fn certificates_only() -> Self {
        Self { tokens: TokenHashes::default(), last_peer: ArcSwapOption::empty() }
    }

    /// Accepts certificates, and the client tokens of an identity directory: for control.
    pub fn with_tokens(dir: &Path) -> Result<Self, IdentityError> {
        let tokens = TokenHashes::parse(&files::demand(dir, files::TOKEN_HASHES)?);
        Ok(Self { tokens, last_peer: ArcSwapOption::empty() })
    }

    /// The role that the request's connection proved, if it did.
    pub fn peer<T>(&self, request: &Request<T>) -> Option<Peer> {
        let certificates = request.peer_certs()?;
        let first = certificates.first()?.as_ref();
        if let Some(last) = &*self.last_peer.load()
            && last.0 == first
        {
            return Some(last.1.clone());
        }
        let peer = peer_of(first)?;
        self.last_peer.store(Some(Arc::new((first.to_vec(), peer.clone()))));
        Some(peer)
    }

    /// The client whose token the metadata carries.
    #[must_use]
    pub fn client(&self, metadata: &MetadataMap) -> Option<Arc<str>> {
        let header = metadata.get("authorization")?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.tokens.name_of(token.trim())
    }
}

/// Lets workers of this fleet through and nobody else, before a message is read.
#[derive(Clone, Debug)]
pub struct WorkersOnly(Arc<Gate>);

impl WorkersOnly {
    /// By this gate.
    #[must_use]
    pub const fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }
}

impl Interceptor for WorkersOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        require_worker(&self.0, &request)?;
        Ok(request)
    }
}

/// The client that sent this request, or UNAUTHENTICATED.
pub fn require_client<T>(gate: &Gate, request: &Request<T>) -> Result<Arc<str>, Status> {
    gate.client(request.metadata()).ok_or_else(|| {
        let message = "no valid bearer token; `warren up` writes one to the client configuration";
        WireError::new(Code::Unauthenticated, "NO_VALID_TOKEN", Fault::Caller, message).into()
    })
}

/// The worker that sent this request, or PERMISSION_DENIED.
pub fn require_worker<T>(gate: &Gate, request: &Request<T>) -> Result<HostId, Status> {
    match gate.peer(request) {
        Some(Peer::Worker(host)) => Ok(host),
        _ => Err(wrong_role("only a worker's certificate may call this")),
    }
}

/// Nothing if control sent this request, else PERMISSION_DENIED.
pub fn require_control<T>(gate: &Gate, request: &Request<T>) -> Result<(), Status> {
    match gate.peer(request) {
        Some(Peer::Control) => Ok(()),
        _ => Err(wrong_role("only control's certificate may call this")),
    }
}

fn wrong_role(message: &str) -> Status {
    WireError::new(Code::PermissionDenied, "WRONG_ROLE", Fault::Caller, message).into()
}
