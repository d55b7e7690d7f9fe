//! Why files are not taken. Always the fault of who made them.

use crate::{MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_RATIO, MAX_ZIP_BYTES};

/// Why files are not taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The zip itself.
    #[error("the zip has {0} bytes; at most {MAX_ZIP_BYTES} (50 MiB) are taken")]
    ZipTooLarge(usize),
    /// What is in it.
    #[error("the files are more than {MAX_ARCHIVE_BYTES} bytes (250 MiB) unpacked")]
    TooLarge,
    /// Too many.
    #[error("there are more than {MAX_ENTRIES} files and folders")]
    TooMany,
    /// Far more than it says it is, or unpacks to nonsense of any size.
    #[error("the zip unpacks to more than {MAX_RATIO} times its size (at {0:?})")]
    Bomb(String),
    /// Not a zip, damaged, cut short, or with two opinions about what is in it.
    #[error("the zip cannot be read: {0}")]
    Malformed(String),
    /// A name that leads out, is absolute, or is none.
    #[error("entry {0:?} is not a relative path without '..' in plain UTF-8")]
    Name(String),
    /// A name that a ustar header cannot hold.
    #[error("entry {0:?} has too long a name; a path may have 255 bytes, its last part 100")]
    LongName(String),
    /// Named twice, or once as a file and once as a folder.
    #[error("entry {0:?} is there twice")]
    Twice(String),
    /// A symbolic link.
    #[error("entry {0:?} is a link; only files and folders are taken (zip without --symlinks)")]
    Link(String),
    /// A device, a pipe, a socket.
    #[error("entry {0:?} is neither a file nor a folder")]
    Special(String),
    /// Encrypted.
    #[error("entry {0:?} is encrypted")]
    Encrypted(String),
    /// Compressed in a way that is not read here.
    #[error("entry {name:?} is compressed with {method}; only deflate and none are read")]
    Method {
        /// Which entry.
        name: String,
        /// Which way.
        method: String,
    },
    /// A folder of the caller's own.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl BundleError {
    /// The word by which programs tell it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ZipTooLarge(_) | Self::TooLarge => "CODE_TOO_LARGE",
            Self::TooMany => "ZIP_TOO_MANY_ENTRIES",
            Self::Bomb(_) => "ZIP_BOMB",
            Self::Malformed(_) | Self::Io { .. } => "ZIP_MALFORMED",
            Self::Name(_) | Self::LongName(_) => "ZIP_UNSAFE_NAME",
            Self::Twice(_) => "ZIP_DUPLICATE_NAME",
            Self::Link(_) | Self::Special(_) => "ZIP_SPECIAL_FILE",
            Self::Encrypted(_) | Self::Method { .. } => "ZIP_UNSUPPORTED",
        }
    }
}
