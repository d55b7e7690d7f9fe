//! Bytes to lines: pure, bounded, and indifferent to how the bytes were cut into pieces.
//!
//! - A line longer than [`MAX_LINE`] is cut and says how much is missing.
//! - Bytes that are no UTF-8 are replaced; other control characters than tab become spaces, so that a terminal that
//!   shows a log is not driven by it.
//! - Past [`MAX_LINES`] or [`MAX_BYTES`] of one invocation everything is dropped and counted; [`LineSplitter::finish`]
//!   says so in one last line.

use std::fmt::Write as _;

/// Most bytes of a line.
pub const MAX_LINE: usize = 8 << 10;
/// Most lines of one invocation.
pub(super) const MAX_LINES: u64 = 10_000;
/// Most bytes of one invocation.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// Splits the log of one invocation.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    /// Bytes of the line under way that did not fit.
    cut: u64,
    lines: u64,
    bytes: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl LineSplitter {
    /// Takes bytes; gives each line that is complete.
    pub fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(String)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.extend(piece);
            if pieces.peek().is_some() {
                self.end_line(&mut emit);
            }
        }
    }

    /// The end of the invocation: gives the unfinished line and what was dropped.
    pub fn finish(mut self, mut emit: impl FnMut(String)) {
        if !self.partial.is_empty() || self.cut > 0 {
            self.end_line(&mut emit);
        }
        if self.dropped_lines > 0 {
            let Self { dropped_lines, dropped_bytes, .. } = self;
            emit(format!(
                "[warren] {dropped_lines} more lines ({dropped_bytes} bytes) dropped: one invocation may log \
                 {MAX_LINES} lines and {MAX_BYTES} bytes"
            ));
        }
    }

    fn extend(&mut self, piece: &[u8]) {
        let room = if self.is_flooded() { 0 } else { MAX_LINE - self.partial.len() };
        let (kept, over) = piece.split_at(piece.len().min(room));
        self.partial.extend_from_slice(kept);
        self.cut += over.len() as u64;
    }

    fn end_line(&mut self, emit: &mut impl FnMut(String)) {
        let line_bytes = self.partial.len() as u64 + self.cut + 1;
        if self.is_flooded() {
            self.dropped_lines += 1;
            self.dropped_bytes += line_bytes;
        } else {
            self.lines += 1;
            self.bytes += self.partial.len() as u64 + 1;
            let mut text = clean(&self.partial);
            if self.cut > 0 {
                // Writing to a String does not fail.
                let _ = write!(text, " [warren: {} bytes cut]", self.cut);
            }
            emit(text);
        }
        self.partial.clear();
        self.cut = 0;
    }

    const fn is_flooded(&self) -> bool {
        self.lines >= MAX_LINES || self.bytes >= MAX_BYTES
    }
}

fn clean(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    if text.chars().any(|c| c.is_control() && c != '\t') {
        text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(piece, |line| lines.push(line));
        }
        splitter.finish(|line| lines.push(line));
        lines
    }

    fn check(pieces: &[&[u8]], expect: &[&str]) {
        assert_eq!(split(pieces), expect, "{pieces:?}");
    }

    #[test]
    fn table() {
        check(&[], &[]);
        check(&[b""], &[]);
        check(&[b"a"], &["a"]);
        check(&[b"a\n"], &["a"]);
        check(&[b"a\n\nb"], &["a", "", "b"]);
        check(&[b"a", b"b\nc", b"\n"], &["ab", "c"]);
        check(&[b"a\r\n"], &["a"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
        check(&[b"\x1b[2Jx\ty\n"], &[" [2Jx\ty"]);
        check(&[b"\xc3", b"\xa4\n"], &["ä"]);
    }

    #[test]
    fn long_lines_are_cut_and_floods_end() {
        let long = vec![b'x'; MAX_LINE + 5];
        assert_eq!(split(&[&long]), [format!("{} [warren: 5 bytes cut]", "x".repeat(MAX_LINE))]);
        let flood = b"y\n".repeat(usize::try_from(MAX_LINES).unwrap() + 7);
        let lines = split(&[&flood]);
        assert_eq!(lines.len() as u64, MAX_LINES + 1);
        assert!(
            lines.last().unwrap().starts_with("[warren] 7 more lines (14 bytes) dropped"),
            "{:?}",
            lines.last()
        );
    }

    proptest! {
        /// However bytes are cut into pieces, the lines are the same, and every one is bounded.
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), cut in 1_usize..9) {
            let whole = split(&[&bytes]);
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(&whole, &split(&pieces));
            prop_assert!(whole.iter().all(|line| line.len() <= MAX_LINE * 3 + 40 && !line.contains('\n')));
        }

        /// A splitter never holds more than one line, whatever it is fed.
        #[test]
        fn memory_is_bounded(pieces in proptest::collection::vec(0_usize..30_000, 0..20)) {
            let mut splitter = LineSplitter::default();
            for len in pieces {
                splitter.push(&vec![b'z'; len], |_| ());
                prop_assert!(splitter.partial.len() <= MAX_LINE);
            }
        }
    }
}
