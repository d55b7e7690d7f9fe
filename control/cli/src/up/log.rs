//! A service's log, and that it does not grow for ever.
//!
//! The service writes into the file itself: it outlives a `warren up` that was killed, and a pipe to that one would not. So nobody
//! can give it another file; but it appends (O_APPEND), so one that was emptied begins again at its start. At the bound the log is
//! copied to `NAME.log.1`, in the place of the one before, and emptied: a service has twice the bound at most, and what it adds
//! between two looks. A line that is written between copy and emptying, some microseconds, is lost.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes from which on a log is put aside.
pub(crate) const LARGEST: u64 = 16 << 20;
/// How often its size is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes at the end that are looked at for its last lines.
const LAST_WORDS: u64 = 64 << 10;

/// The log, to append to.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Puts it aside if it is that large. It is emptied in any case: on a full disk its words are lost and not the disk.
pub(crate) fn bound(path: &Path, largest: u64) -> io::Result<()> {
    let about = path.symlink_metadata()?;
    if !about.is_file() || about.len() < largest {
        return Ok(());
    }
    let log = File::options().read(true).write(true).open(path)?;
    let copied = File::create(older(path)).and_then(|mut older| {
        // One that is written to faster than it is read has an end as well.
        io::copy(&mut (&log).take(largest.saturating_mul(2)), &mut older)
    });
    log.set_len(0)?;
    copied.map(drop)
}

fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Its last lines, for people.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = String::from_utf8_lossy(&end_of(path).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(count)..).unwrap_or_default();
    format!("  {}", tail.join("\n  "))
}

/// What the last lines stand in: logs can be long.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(LAST_WORDS);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A thousand lines by one descriptor, as a service has it.
    #[test]
    fn both_parts_stay_small_and_every_line_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("service.log");
        let mut service = open(&path).unwrap();
        for number in 0..1000 {
            writeln!(service, "line {number}").unwrap();
            bound(&path, 100).unwrap();
            assert!(path.metadata().unwrap().len() < 100);
        }
        let older = std::fs::read_to_string(older(&path)).unwrap();
        let newer = std::fs::read_to_string(&path).unwrap();
        assert!((100..120).contains(&older.len()), "{older}");
        let kept = older + &newer;
        let first: usize = kept.lines().next().unwrap().strip_prefix("line ").unwrap().parse().unwrap();
        let wanted: Vec<_> = (first..1000).map(|number| format!("line {number}")).collect();
        assert_eq!(kept.lines().collect::<Vec<_>>(), wanted);
        assert_eq!(last_lines(&path, 1), "  line 999");
    }

    #[test]
    fn what_is_no_file_is_left_alone_and_what_cannot_be_kept_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link.log");
        std::os::unix::fs::symlink("/dev/full", &link).unwrap();
        bound(&link, 0).unwrap();
        assert!(bound(&dir.path().join("nothing.log"), 0).is_err());
        let path = dir.path().join("service.log");
        std::fs::write(&path, "much").unwrap();
        // Nothing can be written in the place of the older part.
        std::os::unix::fs::symlink("/dev/full", older(&path)).unwrap();
        assert_eq!(bound(&path, 4).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(path.metadata().unwrap().len(), 0);
    }
}
