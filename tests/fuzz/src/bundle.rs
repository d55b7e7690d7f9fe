//! Files that people hand in, and images that hosts keep.

use warren_bundle::{MAX_ARCHIVE_BYTES, from_zip};
use warren_image::sparse::Sparse;

/// A zip of anybody's. The same bytes give the same archive.
pub(crate) fn zip(bytes: &[u8]) {
    let Ok(archive) = from_zip(bytes) else { return };
    assert!(archive.len() <= MAX_ARCHIVE_BYTES && archive.len().is_multiple_of(512));
    assert_eq!(from_zip(bytes).ok(), Some(archive));
}

/// A sparse image: what is let through is as it is kept.
pub(crate) fn sparse_image(bytes: &[u8]) {
    let Ok(sparse) = Sparse::parse(bytes) else { return };
    let mut end = 0;
    for (at, run) in sparse.runs() {
        assert!(at >= end && !run.is_empty());
        end = at + run.len() as u64;
    }
    assert!(end <= sparse.len());
    assert_eq!(sparse.to_bytes(), bytes);
}
