//! What a Linux sandbox runs, written where the next agent finds it: `DATA/run/<id>.mark`.
//!
//! A Wasm sandbox's VMM knows its event; a Linux guest's VMM only carries bytes. So the agent writes the event's id before the
//! guest has it, and clears it once the guest is done: one small write into the page cache each, no fsync. Killed in between, it
//! leaves a mark that says busy, which is the safe side: whoever adopts waits for an end no longer than the function may take.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Bytes of a mark: the longest id of an event with its grant, and room.
const LEN: usize = 160;

/// The file, open.
#[derive(Debug)]
pub struct Mark(File);

impl Mark {
    /// Makes one that says idle.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mark = Self(File::options().write(true).create(true).truncate(true).open(path)?);
        mark.write("")?;
        Ok(mark)
    }

    /// Opens one that an earlier agent left; what it says: empty for idle.
    pub fn open(path: &Path) -> io::Result<(Self, String)> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(LEN as u64).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\0').to_owned();
        Ok((Self(file), text))
    }

    /// Runs this event.
    pub fn busy(&self, running: &str) {
        self.say(running);
    }

    /// Runs nothing.
    pub fn idle(&self) {
        self.say("");
    }

    /// A full disk cannot refuse it, for its blocks are there; whatever else fails only costs an adoption.
    fn say(&self, text: &str) {
        if let Err(error) = self.write(text) {
            tracing::warn!(%error, "a sandbox's mark was not written");
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut bytes = [0; LEN];
        for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        self.0.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s1.mark");
        let mark = Mark::new(&path).unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, "");
        mark.busy("r-1/7.9");
        assert_eq!(Mark::open(&path).unwrap().1, "r-1/7.9");
        mark.busy("r");
        assert_eq!(Mark::open(&path).unwrap().1, "r");
        mark.idle();
        assert_eq!(Mark::open(&path).unwrap().1, "");
        mark.busy(&"x".repeat(500));
        assert_eq!(Mark::open(&path).unwrap().1.len(), LEN);
        assert!(Mark::open(&dir.path().join("s2.mark")).is_err());
    }
}
