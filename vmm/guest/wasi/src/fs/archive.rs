//! `/var/task`: a tar archive (ustar, with GNU and pax long names), read where it lies.
//!
//! The archive is the deployer's and untrusted: sizes, names and checksums are checked, links and devices refused.

use alloc::{string::String, vec::Vec};
use core::str;

const BLOCK: usize = 512;
/// Most entries; each costs memory before the function runs.
const ENTRIES_MAX: usize = 1 << 16;
/// Most bytes of a long name.
const NAME_MAX: usize = 4096;

/// Why an archive was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// It ends inside an entry.
    Truncated,
    /// A header's checksum does not match.
    Checksum,
    /// A number is not octal or too large.
    Number,
    /// A name is empty, absolute, too long, not UTF-8, or climbs with `..`.
    Name,
    /// A kind of entry other than file and directory.
    Kind(u8),
    /// More entries than may be.
    TooMany,
    /// Two entries of one name, or a file where a directory must be.
    Conflict,
}

/// One file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Components joined by `/`, relative, no `.` or `..`; empty for the root.
    pub(super) path: String,
    /// The bytes of a file; none for a directory.
    pub(super) bytes: Option<&'static [u8]>,
    /// Seconds since the Unix epoch.
    pub(super) modified_s: u64,
}

/// Reads all members, in order.
pub(super) fn read_members(archive: &'static [u8]) -> Result<Vec<Member>, ArchiveError> {
    let mut members = Vec::new();
    let mut rest = archive;
    let mut long_name: Option<String> = None;
    while let Some((header, after)) = rest.split_first_chunk::<BLOCK>() {
        if header.iter().all(|byte| *byte == 0) {
            return Ok(members);
        }
        if members.len() >= ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        check_sum(header)?;
        let size = usize::try_from(octal(field(header, 124, 12)?)?).map_err(|_| ArchiveError::Number)?;
        let padded = size.checked_next_multiple_of(BLOCK).ok_or(ArchiveError::Number)?;
        let bytes = after.get(..size).ok_or(ArchiveError::Truncated)?;
        // The last member's padding may be cut off; its bytes may not.
        rest = after.get(padded..).unwrap_or_default();
        let kind = *header.get(156).ok_or(ArchiveError::Truncated)?;
        match kind {
            b'L' => long_name = Some(text(trim(bytes))?.into()),
            b'x' => long_name = pax_path(bytes)?.or(long_name),
            b'g' => {}
            b'0' | 0 | b'7' | b'5' => {
                let path = match long_name.take() {
                    Some(name) => name,
                    None => header_name(header)?,
                };
                // Before POSIX a directory was a file whose name ends in a slash.
                let directory = kind == b'5' || path.ends_with('/');
                members.push(Member {
                    path: clean(&path)?,
                    bytes: (!directory).then_some(bytes),
                    modified_s: octal(field(header, 136, 12)?)?,
                });
            }
            other => return Err(ArchiveError::Kind(other)),
        }
    }
    if rest.is_empty() { Ok(members) } else { Err(ArchiveError::Truncated) }
}

/// `prefix/name` as the header has them.
fn header_name(header: &[u8; BLOCK]) -> Result<String, ArchiveError> {
    let name = text(trim(field(header, 0, 100)?))?;
    let ustar = field(header, 257, 6)? == b"ustar\0";
    let prefix = if ustar { text(trim(field(header, 345, 155)?))? } else { "" };
    Ok(if prefix.is_empty() { name.into() } else { alloc::format!("{prefix}/{name}") })
}

/// The `path` record of a pax header: `LEN path=VALUE\n`.
fn pax_path(mut records: &[u8]) -> Result<Option<String>, ArchiveError> {
    let mut path = None;
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').ok_or(ArchiveError::Number)?;
        let digits = text(records.get(..space).unwrap_or_default())?;
        let len: usize = digits.parse().map_err(|_| ArchiveError::Number)?;
        let record = records.get(space + 1..len).ok_or(ArchiveError::Number)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(text(value.strip_suffix(b"\n").unwrap_or(value))?.into());
        }
        records = records.get(len..).unwrap_or_default();
    }
    Ok(path)
}

/// A relative path of plain components.
fn clean(path: &str) -> Result<String, ArchiveError> {
    if path.is_empty() || path.len() > NAME_MAX || path.starts_with('/') {
        return Err(ArchiveError::Name);
    }
    let mut clean = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.len() > 255 || part.contains('\0') {
            return Err(ArchiveError::Name);
        }
        if !clean.is_empty() {
            clean.push('/');
        }
        clean.push_str(part);
    }
    Ok(clean)
}

/// The sum of the header's bytes with its own field as spaces.
fn check_sum(header: &[u8; BLOCK]) -> Result<(), ArchiveError> {
    let stated = octal(field(header, 148, 8)?)?;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    if sum == stated { Ok(()) } else { Err(ArchiveError::Checksum) }
}

fn field(header: &[u8; BLOCK], at: usize, len: usize) -> Result<&[u8], ArchiveError> {
    header.get(at..at + len).ok_or(ArchiveError::Truncated)
}

fn octal(digits: &[u8]) -> Result<u64, ArchiveError> {
    let digits = text(trim(digits))?.trim_matches(' ');
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| ArchiveError::Number)
}

/// Up to the first zero byte.
fn trim(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> Result<&str, ArchiveError> {
    str::from_utf8(bytes).map_err(|_| ArchiveError::Name)
}
