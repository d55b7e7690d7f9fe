//! Bytes into lines. Pure.

/// A longer line is cut into several.
pub(crate) const LINE_MAX: usize = 32 << 10;

/// What has no newline yet.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes and gives the whole lines that are there now, each with its newline.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_MAX) {
                let room = LINE_MAX.saturating_sub(self.0.len());
                let (now, later) = part.split_at(part.len().min(room));
                self.0.extend_from_slice(now);
                if self.0.len() >= LINE_MAX || self.0.ends_with(b"\n") {
                    lines.extend(self.rest());
                }
                self.0.extend_from_slice(later);
            }
            if self.0.ends_with(b"\n") {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// What is left, as a line.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.0);
        if line.is_empty() {
            return None;
        }
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Nothing is lost but newlines that were added where a line was too long; every line ends in one.
        #[test]
        fn bytes_are_kept(pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..9), 0..20)) {
            let mut lines = Lines::default();
            let mut got: Vec<Vec<u8>> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
            got.extend(lines.rest());
            prop_assert!(got.iter().all(|line| line.iter().position(|byte| *byte == b'\n') == Some(line.len() - 1)));
            let mut whole = pieces.concat();
            if !whole.is_empty() && !whole.ends_with(b"\n") {
                whole.push(b'\n');
            }
            prop_assert_eq!(got.concat(), whole);
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let mut lines = Lines::default();
        let got = lines.push(&vec![b'x'; 2 * LINE_MAX + 5]);
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [LINE_MAX + 1, LINE_MAX + 1]);
        assert_eq!(lines.push(b"\n"), [b"xxxxx\n".to_vec()]);
    }
}
