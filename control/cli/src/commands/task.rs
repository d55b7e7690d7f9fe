//! A function's own files, as the archive that Warren shows under /var/task.

use super::payload;
use bytes::Bytes;
use std::path::Path;
use warren_bundle::{BundleError, from_folder, from_zip, is_zip};
use warren_client::{Failure, Outcome};

/// A directory packed, a zip made an archive, a tar file as it is.
pub(crate) fn archive(path: &Path) -> Outcome<Bytes> {
    if path.is_dir() {
        return from_folder(path).map(Bytes::from).map_err(|error| refused(path, &error));
    }
    let bytes = payload::file(path)?;
    if is_zip(&bytes) {
        from_zip(&bytes).map(Bytes::from).map_err(|error| refused(path, &error))
    } else {
        Ok(bytes)
    }
}

/// The files of a Linux function: a directory packed; a zip or a tar file as it is, for Warren judges those.
pub(crate) fn files(path: &Path) -> Outcome<Bytes> {
    if path.is_dir() { archive(path) } else { payload::file(path) }
}

fn refused(path: &Path, error: &BundleError) -> Failure {
    Failure::Usage(format!("{}: {error} ({})", path.display(), error.reason()))
}
