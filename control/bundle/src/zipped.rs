//! A zip of anybody's.
//!
//! ```text
//! size -> directory reads, says everything once -> each entry: name, kind, way of packing -> unpacked within what is left
//! ```
//! Sizes that a zip states are believed of nothing: what comes out is counted as it comes.

use crate::{BundleError, MAX_ENTRIES, MAX_RATIO, MAX_ZIP_BYTES, pack::Pack};
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use rawzip::{
    CompressionMethod, CreatorSystem, ErrorKind, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive,
    ZipSliceEntry, ZipVerification, crc32,
};

/// Unpacking to this much is nothing, however small the zip.
const FREE_BYTES: u64 = 1 << 20;
/// Kinds of files in a Unix mode.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Whether these bytes are meant as a zip: local file header, or the end of an empty directory.
#[must_use]
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Unpacks a zip into an archive, in memory.
pub fn from_zip(bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
    if bytes.len() > MAX_ZIP_BYTES {
        return Err(BundleError::ZipTooLarge(bytes.len()));
    }
    if !is_zip(bytes) {
        // Also what hides behind something else: readers differ in where such a zip begins.
        return Err(BundleError::Malformed("it does not begin as a zip does".to_owned()));
    }
    let archive = ZipArchive::from_slice(bytes).map_err(|error| malformed(error.kind()))?;
    if archive.entries_hint() > MAX_ENTRIES as u64 {
        return Err(BundleError::TooMany);
    }
    let allowed = FREE_BYTES.saturating_add(MAX_RATIO.saturating_mul(bytes.len() as u64));
    let (mut pack, mut unpacked, mut count) = (Pack::default(), 0_u64, 0_u64);
    let mut places = Vec::new();
    let mut entries = archive.entries();
    while let Some(header) = entries.next_entry().map_err(|error| malformed(error.kind()))? {
        let (size, place) = entry(&archive, &header, &mut pack, allowed.saturating_sub(unpacked))?;
        unpacked = unpacked.saturating_add(size);
        places.push(place);
        count += 1;
    }
    if count != archive.entries_hint() {
        return Err(BundleError::Malformed("its directory and its end count entries differently".to_owned()));
    }
    places.sort_unstable();
    if places.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if end > start)) {
        return Err(BundleError::Malformed("entries share their bytes".to_owned()));
    }
    pack.finish()
}

/// Takes one entry; gives how much it unpacked to, and from where to where it lies.
fn entry(
    archive: &ZipSliceArchive<&[u8]>,
    header: &ZipFileHeaderRecord<'_>,
    pack: &mut Pack,
    allowed: u64,
) -> Result<(u64, (u64, u64)), BundleError> {
    let path = header.file_path();
    let raw = path.as_bytes();
    let shown: String = String::from_utf8_lossy(raw).chars().take(200).collect();
    let Ok(name) = std::str::from_utf8(raw) else { return Err(BundleError::Name(shown)) };
    let unix =
        [CreatorSystem::UNIX, CreatorSystem::MACOS].contains(&header.version_made_by().creator_system());
    let mode = if unix { header.external_attributes() >> 16 } else { 0 };
    let is_folder = name.ends_with('/');
    match (mode & KIND, is_folder) {
        (0 | FOLDER, true) | (0 | REGULAR, false) => {}
        (LINK, _) => return Err(BundleError::Link(shown)),
        _ => return Err(BundleError::Special(shown)),
    }
    if header.flags().is_encrypted() || header.flags().has_strong_encryption() {
        return Err(BundleError::Encrypted(shown));
    }
    let method = header.compression_method();
    if ![CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&method) {
        return Err(BundleError::Method { name: shown, method: method.to_string() });
    }
    let found = archive.get_entry(header.wayfinder()).map_err(|error| malformed(error.kind()))?;
    let local = found.local_header();
    if local.file_path().as_bytes() != raw || local.compression_method() != method {
        return Err(BundleError::Malformed(format!(
            "its directory and entry {shown:?} say different things"
        )));
    }
    let place = (header.local_header_offset(), found.compressed_data_range().1);
    if is_folder {
        pack.folder(name)?;
        return Ok((0, place));
    }
    let content = content(&found, method, pack.left() as u64, allowed, &shown)?;
    let size = content.len() as u64;
    let is = ZipVerification { crc: crc32(&content), uncompressed_size: size };
    found.claim_verifier().valid(is).map_err(|error| malformed(error.kind()))?;
    pack.file(name, mode & 0o111 != 0, content)?;
    Ok((size, place))
}

/// Unpacks within what is left and allowed; what does not fit is given up at that point.
fn content(
    entry: &ZipSliceEntry<'_>,
    method: CompressionMethod,
    left: u64,
    allowed: u64,
    shown: &str,
) -> Result<Vec<u8>, BundleError> {
    let beyond = || if allowed < left { BundleError::Bomb(shown.to_owned()) } else { BundleError::TooLarge };
    let most = usize::try_from(left.min(allowed)).unwrap_or(usize::MAX);
    let packed = entry.data();
    if method == CompressionMethod::STORE {
        return if packed.len() <= most { Ok(packed.to_vec()) } else { Err(beyond()) };
    }
    decompress_to_vec_with_limit(packed, most).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => beyond(),
        _ => BundleError::Malformed(format!("{shown:?}: {error}")),
    })
}

fn malformed(error: &ErrorKind) -> BundleError {
    BundleError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
