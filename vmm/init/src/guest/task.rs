//! Unpacking a function's files.
//!
//! The archive is the deployer's, checked before it came here, and still untrusted: plain files and folders only, relative
//! names, nothing twice, nothing outside. It is not compressed, so it cannot be more than its own bytes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufReader, Error as IoError, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};
use warren_vmm_protocol::guest::InitFailure;

/// Most entries.
const ENTRIES_MAX: usize = 1 << 16;

/// Why an archive was not unpacked.
#[derive(Debug)]
pub(super) enum TaskError {
    /// It is no archive, or ends too soon.
    Malformed(IoError),
    /// More entries than may be.
    TooMany,
    /// A name that leads out, or is none.
    Name(String),
    /// Neither file nor folder.
    Kind(String),
    /// The same name twice, or a file where a folder must be.
    Conflict(String),
    /// The guest's disk failed, or is full.
    Write(String, IoError),
}

impl TaskError {
    /// Whose fault it is.
    pub(super) fn fault(&self) -> InitFailure {
        match self {
            Self::Write(..) => InitFailure::Guest,
            _ => InitFailure::Task,
        }
    }
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "the function's archive: {error}"),
            Self::TooMany => write!(f, "the function's archive has more than {ENTRIES_MAX} entries"),
            Self::Name(name) => write!(f, "the function's archive: {name:?} is no relative name"),
            Self::Kind(name) => write!(f, "the function's archive: {name:?} is neither file nor folder"),
            Self::Conflict(name) => write!(f, "the function's archive: {name:?} is there already"),
            Self::Write(name, error) => write!(f, "write {name:?} of the function's archive: {error}"),
        }
    }
}

/// Unpacks the first `len` bytes of `disk` into a folder that is there and empty.
pub(super) fn unpack(disk: impl Read, len: u64, folder: &Path) -> Result<(), TaskError> {
    let mut archive = Archive::new(BufReader::with_capacity(1 << 20, disk).take(len));
    for (number, entry) in archive.entries().map_err(TaskError::Malformed)?.enumerate() {
        let mut entry = entry.map_err(TaskError::Malformed)?;
        if number >= ENTRIES_MAX {
            return Err(TaskError::TooMany);
        }
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let name = clean(&raw).ok_or_else(|| TaskError::Name(shown.clone()))?;
        let path = folder.join(&name);
        let kind = match entry.header().entry_type() {
            // Before POSIX a folder was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if raw.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        match kind {
            EntryType::Directory => make_folder(&path, &shown)?,
            EntryType::Regular | EntryType::Continuous if name.as_os_str().is_empty() => {
                return Err(TaskError::Name(shown));
            }
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = path.parent() {
                    make_folder(parent, &shown)?;
                }
                let stated = entry.header().mode().unwrap_or(0) & 0o111 != 0;
                write_file(&mut entry, &path, &shown, stated)?;
            }
            _ => return Err(TaskError::Kind(shown)),
        }
    }
    Ok(())
}

fn make_folder(path: &Path, shown: &str) -> Result<(), TaskError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|error| match path.is_file() {
        true => TaskError::Conflict(shown.to_owned()),
        // A file further up.
        false if error.kind() == std::io::ErrorKind::NotADirectory => TaskError::Conflict(shown.to_owned()),
        false => TaskError::Write(shown.to_owned(), error),
    })
}

fn write_file(entry: &mut impl Read, path: &Path, shown: &str, stated: bool) -> Result<(), TaskError> {
    let write = |error| TaskError::Write(shown.to_owned(), error);
    let mut head = [0; 4];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match entry.read(rest).map_err(TaskError::Malformed)? {
            0 => break,
            count => filled += count,
        }
    }
    let head = head.get(..filled).unwrap_or_default();
    // Archives made elsewhere say nothing of modes: what is made to be run can be.
    let runs = stated || head.starts_with(b"#!") || head == b"\x7FELF";
    let mode = if runs { 0o755 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => TaskError::Conflict(shown.to_owned()),
        _ => write(error),
    })?;
    copy(head, entry, &mut file)
        .map_err(|(ours, error)| if ours { write(error) } else { TaskError::Malformed(error) })
}

/// Says of an error whether it was in writing.
fn copy(head: &[u8], from: &mut impl Read, to: &mut File) -> Result<(), (bool, IoError)> {
    use std::io::Write;
    to.write_all(head).map_err(|error| (true, error))?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let count = match from.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result.map_err(|error| (false, error))?,
        };
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        to.write_all(bytes).map_err(|error| (true, error))?;
    }
}

/// A relative path of plain components.
fn clean(raw: &[u8]) -> Option<PathBuf> {
    let text = std::str::from_utf8(raw).ok().filter(|text| !text.is_empty() && !text.contains('\0'))?;
    let mut clean = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}
