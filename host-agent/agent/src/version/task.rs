//! The archive of a function's files (`/var/task`): a plain ustar that the guest reads as it lies.
//!
//! Only regular files and directories, under relative names without `..`; nothing that a reader could interpret in two
//! ways (links, devices, long-name extensions, base-256 sizes, the same name twice).

use std::{
    collections::HashSet,
    io::{Read as _, Result as IoResult},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Entry, EntryType};
use warren_abi::window;

/// Most files and directories.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Most bytes of an archive that is mapped into a Wasm function's memory.
pub(super) const MAX_MAPPED: usize = 64 << 20;
const _: () = assert!(MAX_MAPPED as u64 <= window::TASK.max_len);
/// Most bytes of one that is a Linux function's disk.
pub(super) const MAX_DISK: usize = 250 << 20;

/// Why an archive is not taken. The fault of who made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// Too many bytes.
    #[error("the archive is {len} bytes, at most {most} are allowed")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// What this kind of function may have.
        most: usize,
    },
    /// Too many entries.
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// No archive, or cut short.
    #[error("not a ustar archive: {0}")]
    Malformed(String),
    /// A name that leads out, or is none.
    #[error("entry {0:?} is not a relative path without '..'")]
    Path(String),
    /// Neither file nor directory.
    #[error("entry {0:?} is neither a regular file nor a directory")]
    Kind(String),
    /// Not plain ustar.
    #[error("entry {0:?} uses an extension; make the archive with --format=ustar")]
    Extension(String),
    /// Named twice.
    #[error("entry {0:?} is there twice")]
    Twice(String),
}

/// Checks every header of an archive of at most so many bytes.
pub fn check_archive(bytes: &[u8], most: usize) -> Result<(), TaskError> {
    if bytes.len() > most {
        return Err(TaskError::TooLarge { len: bytes.len(), most });
    }
    let mut seen = HashSet::new();
    let mut archive = Archive::new(bytes);
    // Raw: extension headers come out as entries instead of being applied.
    for (number, entry) in archive.entries().map_err(malformed)?.raw(true).enumerate() {
        let mut entry = entry.map_err(malformed)?;
        if number >= MAX_ENTRIES {
            return Err(TaskError::TooMany);
        }
        let path = check_entry(&entry)?;
        if !seen.insert(path.clone()) {
            return Err(TaskError::Twice(path.display().to_string()));
        }
        skip(&mut entry).map_err(malformed)?;
    }
    Ok(())
}

fn check_entry(entry: &Entry<'_, &[u8]>) -> Result<PathBuf, TaskError> {
    let raw = entry.path_bytes();
    let shown = String::from_utf8_lossy(&raw).into_owned();
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Directory => {}
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader => {
            return Err(TaskError::Extension(shown));
        }
        _ => return Err(TaskError::Kind(shown)),
    }
    // A set high bit is GNU's base-256 number, which ustar readers take for something else.
    if entry.header().as_old().size.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Err(TaskError::Extension(shown));
    }
    let Ok(text) = std::str::from_utf8(&raw) else { return Err(TaskError::Path(shown)) };
    if text.contains('\0') {
        return Err(TaskError::Path(shown));
    }
    let mut clean = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(TaskError::Path(shown)),
        }
    }
    let is_root = clean.as_os_str().is_empty();
    if is_root && entry.header().entry_type() != EntryType::Directory {
        return Err(TaskError::Path(shown));
    }
    Ok(clean)
}

/// Reads an entry's bytes away, so that one that is cut short shows.
fn skip(entry: &mut Entry<'_, &[u8]>) -> IoResult<()> {
    let wanted = entry.size();
    let got = std::io::copy(&mut entry.by_ref().take(wanted), &mut std::io::sink())?;
    if got == wanted { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn malformed(error: std::io::Error) -> TaskError {
    TaskError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
