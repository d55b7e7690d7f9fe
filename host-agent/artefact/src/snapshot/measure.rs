//! What bytes are, told as they pass.

use super::Part;
use crate::digest::Digest;
use std::io::{self, Read, Write};

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

/// Copies to the end, and says what it was.
pub fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<Part> {
    let (mut measure, mut chunk) = (Measure::default(), vec![0; CHUNK]);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(measure.part()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = chunk.get(..count).unwrap_or_default();
        to.write_all(bytes)?;
        measure.write_all(bytes)?;
    }
}

/// Keeps nothing of what is written to it, and says what it was.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    hasher: blake3::Hasher,
    len: u64,
}

impl Measure {
    /// All of it.
    #[must_use]
    pub fn part(&self) -> Part {
        Part { digest: Digest(*self.hasher.finalize().as_bytes()), len: self.len }
    }
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
