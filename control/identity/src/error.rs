//! What can go wrong when identities are made or loaded.

use crate::{Service, Unfit};
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
    /// A secret that others may read, or that is somebody else's: it may have leaked.
    #[error("identity file {path} has mode {mode:o} and owner {owner}: it must be 0600 and ours")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// A service's certificate, key and CA do not go together.
    #[error("the certificate files of {} in {dir}: {why}", service.stem())]
    Unfit {
        /// Where they are.
        dir: PathBuf,
        /// Whose they should be.
        service: Service,
        /// What is wrong with them.
        why: Unfit,
    },
    /// A key does not sign.
    #[error("the identity's key does not sign")]
    Sign,
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
