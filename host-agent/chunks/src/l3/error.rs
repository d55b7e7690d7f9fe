//! Why the origin did not do it, whichever it is.

use crate::files::{FileError, is_full};
use std::{error::Error as _, io, path::PathBuf, sync::Arc};

/// Why the origin did not do it.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// There is no such object.
    #[error("the origin has no such object")]
    Absent,
    /// No answer in time, however often it was tried.
    #[error("the origin did not answer in time")]
    Slow,
    /// Its credentials or permissions do not suffice: an operator's affair.
    #[error("the origin forbids it")]
    Forbidden(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// No room: an operator's affair.
    #[error("the origin is full")]
    Full,
    /// More calls wait for this worker's places than may: come back later.
    #[error("too many requests of this worker wait for the origin")]
    Overloaded,
    /// What lies there is not what its name says.
    #[error("the origin gave other bytes than were asked for")]
    Damaged,
    /// It cannot be reached, or fails.
    #[error("the origin is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The file of root certificates cannot be used.
    #[error("root certificates {file}: {what}", file = file.display())]
    Roots {
        /// Which.
        file: PathBuf,
        /// Why.
        what: String,
    },
}

impl OriginError {
    pub(super) const fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Slow | Self::Unavailable(_))
    }
}

impl From<FileError> for OriginError {
    fn from(error: FileError) -> Self {
        match error.source.kind() {
            _ if error.is_full() => Self::Full,
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Forbidden(Arc::new(error))
            }
            _ => Self::Unavailable(Arc::new(error)),
        }
    }
}

impl From<object_store::Error> for OriginError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Absent,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Self::Forbidden(Arc::new(error))
            }
            error => {
                let mut cause = error.source();
                while let Some(found) = cause {
                    match found.downcast_ref::<io::Error>() {
                        Some(source) if is_full(source) => return Self::Full,
                        Some(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                            return Self::Forbidden(Arc::new(error));
                        }
                        _ => {}
                    }
                    cause = found.source();
                }
                Self::Unavailable(Arc::new(error))
            }
        }
    }
}
