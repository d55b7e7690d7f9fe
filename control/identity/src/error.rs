//! What can go wrong when identities are made or loaded.

use std::{io, path::PathBuf};

/// An identity could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity directory could not be read or written.
    #[error("identity file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the identity directory holds something else than it should.
    #[error("identity file {path} is damaged ({what}); remove it and start again to have it made anew")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The certificate library refused.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A host id that is not 1 to 63 characters of `[a-z0-9-]`.
    #[error("host id {0:?} is not 1 to 63 characters of [a-z0-9-] beginning with a letter or digit")]
    HostId(String),
}
