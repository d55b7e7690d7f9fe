//! Why a read or a put failed.

use crate::{l3::OriginError, manifest::sealed::ManifestError, seal::OpenError};
use std::sync::Arc;

/// No tier gave the object. Everybody who waited for it is told the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// No tier has it.
    #[error("no tier has the object")]
    Absent,
    /// Nobody nearer has it, and the origin failed.
    #[error("the object is not near, and the origin failed")]
    Origin(#[source] Arc<OriginError>),
    /// It is what its name says, and is not what the manifest says of it: the manifest's maker's fault.
    #[error(transparent)]
    Chunk(#[from] OpenError),
    /// It is what its name says, and no manifest for this reader.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The process is ending.
    #[error("the store is stopped")]
    Stopped,
}

impl From<OriginError> for ReadError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Absent => Self::Absent,
            error => Self::Origin(Arc::new(error)),
        }
    }
}

/// An object was not kept; nothing was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The bytes are not those of the name: the caller's fault.
    #[error("the bytes are not those of their name")]
    NotItsName,
    /// Larger than anything that can be read back: the caller's fault.
    #[error("the object is larger than any")]
    TooLarge,
    /// The origin did not keep it.
    #[error("the origin did not keep it")]
    Origin(#[from] OriginError),
}
