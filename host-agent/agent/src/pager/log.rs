//! What the pager says: its lines become the agent's, as long as it lives.

use rustix::{fd::OwnedFd, io::ioctl_fionbio};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
};

/// Bytes of a line that are kept.
const LINE_BYTES: u64 = 1000;

/// Reads a pipe to its end, which is the process's, on a thread of its own.
pub(super) fn follow(pid: i32, pipe: OwnedFd) -> io::Result<()> {
    // The jailer's end of one that was there before does not wait.
    ioctl_fionbio(&pipe, false)?;
    let work = move || lines(BufReader::new(File::from(pipe)), |line| tracing::warn!(pager = pid, "{line}"));
    std::thread::Builder::new().name("pager-log".to_owned()).spawn(work).map(drop)
}

/// Each line of what is read; a long one in pieces.
fn lines(mut from: impl io::BufRead, mut told: impl FnMut(&str)) {
    let mut line = Vec::new();
    while let Ok(1..) = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        told(text.trim_end_matches('\n'));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let text = format!("one\n{}\n\u{ff}two", "x".repeat(1500));
        let mut told = Vec::new();
        lines(text.as_bytes(), |line| told.push(line.to_owned()));
        let [one, first, rest, last] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((one.as_str(), first.len(), rest.len(), last.chars().count()), ("one", 1000, 500, 4));
    }
}
