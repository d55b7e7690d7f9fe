//! Digests of files, as everywhere in Warren: blake3, hex.

use crate::BuildError;
use std::{fs::File, io, path::Path};

/// The digest of a file's bytes.
pub fn of_file(path: &Path) -> Result<String, BuildError> {
    let failed = || BuildError::io(format!("read {}", path.display()));
    of_open(&File::open(path).map_err(failed())?).map_err(failed())
}

/// The same of one that is open, from where it stands: the bytes that were compared are those that are used.
pub fn of_open(mut file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}
