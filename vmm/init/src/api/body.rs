//! Reading a request's body to its end, bounded.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};

/// A body and what came behind it.
pub(super) struct Whole {
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// Trailers of a stream.
    pub(super) trailers: HeaderMap,
}

/// Why there is no whole body.
pub(super) enum Broken {
    /// It is larger than it may be. All of it was read: whoever still writes does not read an answer.
    TooLarge,
    /// The connection ended first.
    Truncated,
}

/// Reads a body of at most `most` bytes.
pub(super) async fn read(mut body: Incoming, most: usize) -> Result<Whole, Broken> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut too_large = expected > most;
    let mut bytes = BytesMut::with_capacity(if too_large { 0 } else { expected });
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Broken::Truncated)?;
        match frame.into_data() {
            Ok(data) => {
                too_large |= bytes.len().saturating_add(data.len()) > most;
                if too_large {
                    bytes.clear();
                } else {
                    bytes.extend_from_slice(&data);
                }
            }
            Err(other) => {
                if let Ok(behind) = other.into_trailers() {
                    trailers = behind;
                }
            }
        }
    }
    if too_large { Err(Broken::TooLarge) } else { Ok(Whole { bytes: bytes.freeze(), trailers }) }
}
