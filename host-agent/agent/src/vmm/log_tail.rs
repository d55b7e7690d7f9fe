//! The last lines a jailed program wrote to its log, for error texts.
//!
//! What is kept is bounded, and so is the time it takes to read: behind a burst the pipe is read at a rate, and its writer has a full
//! one. A VMM drops lines then; one that was taken over waits, or spins in its own group's time.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, time::sleep};

/// Lines kept: the sixteen that a VMM repeats of a Linux guest's console, and what it says itself.
const LINES: usize = 24;
/// Bytes kept of a line.
const LINE_BYTES: usize = 400;
/// Bytes that are read as they come, and what comes back of them a second. Of an honest VMM none ever waits: a guest's console, which is
/// all that grows in its log, has a quarter of either there (`warren_devices::console`).
const BURST: u32 = 1 << 20;
const PER_SECOND: u32 = 64 << 10;

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
        self.read_out(&label, pipe, Wall).await;
    }

    async fn read_out(self, label: &str, pipe: OwnedFd, mut clock: impl Clock) {
        let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
        let mut buffer = [0; 4096];
        let mut allowance = Allowance::new(clock.now());
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.push(label, buffer.get(..count).unwrap_or_default());
            let pause = allowance.take(count, clock.now());
            if !pause.is_zero() {
                clock.pause(pause).await;
            }
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

/// What time it is, and waiting for another.
trait Clock: Send {
    fn now(&self) -> Instant;
    fn pause(&mut self, time: Duration) -> impl Future<Output = ()> + Send;
}

/// The host's.
struct Wall;

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn pause(&mut self, time: Duration) {
        sleep(time).await;
    }
}

/// What may still be read at once: a bucket, full at first.
struct Allowance {
    /// When it would be full, if nothing more were taken of it.
    full_at: Instant,
}

impl Allowance {
    /// In which an empty one is full again.
    const WHOLE: Duration = Duration::from_secs((BURST / PER_SECOND) as u64);

    const fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// So much was read now: how long to wait before more is.
    fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let takes = u32::try_from(bytes).unwrap_or(BURST);
        self.full_at = self.full_at.max(now) + Duration::from_secs(1) * takes / PER_SECOND;
        self.full_at.duration_since(now).saturating_sub(Self::WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// One that runs only while somebody waits for it.
    struct Waits<'a>(&'a mut Instant);

    impl Clock for Waits<'_> {
        fn now(&self) -> Instant {
            *self.0
        }

        async fn pause(&mut self, time: Duration) {
            *self.0 += time;
            // The writer has its turn: it fills the pipe again.
            tokio::task::yield_now().await;
        }
    }

    /// Writes so much to the pipe of a tail, as fast as it is taken: how long the tail waited meanwhile.
    async fn waited(bytes: u32) -> Duration {
        let (read, write) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        let mut pipe = pipe::Sender::from_owned_fd(write.into()).unwrap();
        let write = async move {
            let piece = [b"x".repeat(1023).as_slice(), b"\n"].concat();
            for _ in 0..bytes / 1024 {
                pipe.write_all(&piece).await.unwrap();
            }
        };
        let tail = LogTail::default();
        let began = Instant::now();
        let mut now = began;
        tokio::join!(write, tail.clone().read_out("t", read.into(), Waits(&mut now)));
        assert!(tail.text().len() < LINES * (LINE_BYTES + 4), "it stays small");
        now - began
    }

    #[tokio::test]
    async fn a_writer_that_never_stops_is_read_at_a_rate_and_an_honest_one_at_once() {
        assert_eq!(waited(BURST).await, Duration::ZERO, "a burst waits for nothing");
        let seconds = 100;
        let flooded = waited(BURST + seconds * PER_SECOND).await;
        assert_eq!(flooded, Duration::from_secs(1) * seconds);
    }

    #[test]
    fn what_was_read_is_forgotten_at_the_rate() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut allowance = Allowance::new(begin);
        assert_eq!(allowance.take(BURST as usize, begin), Duration::ZERO);
        assert_eq!(allowance.take(PER_SECOND as usize, begin), second);
        assert_eq!(allowance.take(PER_SECOND as usize / 2, begin + second), second / 2);
        // Who is silent has a burst again, and never more.
        let later = begin + second * 1000;
        assert_eq!(allowance.take(BURST as usize, later), Duration::ZERO);
        assert_eq!(allowance.take(PER_SECOND as usize, later), second);
        // And what is said steadily, at the rate, never waits.
        let mut allowance = Allowance::new(begin);
        for passed in 0..1000 {
            assert_eq!(allowance.take(PER_SECOND as usize, begin + second * passed), Duration::ZERO);
        }
    }

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
