//! The last lines a jailed program wrote to its log, for error texts.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// Lines kept: the sixteen that a VMM repeats of a Linux guest's console, and what it says itself.
const LINES: usize = 24;
/// Bytes kept of a line.
const LINE_BYTES: usize = 400;

/// A bounded tail; clones share it.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<Tail>>);

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
}

impl LogTail {
    /// Reads the pipe to its end, which is the program's.
    pub async fn drain(self, label: String, pipe: OwnedFd) {
        let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.push(&label, buffer.get(..count).unwrap_or_default());
        }
    }

    /// The lines, joined; empty if there are none.
    #[must_use]
    pub fn text(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = String::from_utf8_lossy(&tail.partial);
        let lines =
            tail.lines.iter().map(String::as_str).chain((!partial.is_empty()).then_some(partial.as_ref()));
        lines.collect::<Vec<_>>().join(" | ")
    }

    fn push(&self, label: &str, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&tail.partial).into_owned();
                tracing::debug!(sandbox = label, "{line}");
                tail.partial.clear();
                tail.lines.push_back(line);
                if tail.lines.len() > LINES {
                    tail.lines.pop_front();
                }
            } else if tail.partial.len() < LINE_BYTES {
                tail.partial.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_and_stays_small() {
        let tail = LogTail::default();
        for n in 0..100 {
            tail.push("t", format!("line {n}\n").as_bytes());
        }
        tail.push("t", &[b'x'; 10_000]);
        let text = tail.text();
        assert!(text.starts_with("line 76 | line 77 | "), "{text}");
        assert!(text.len() < LINES * 20 + LINE_BYTES);
        assert!(text.ends_with(&"x".repeat(LINE_BYTES)));
    }
}
