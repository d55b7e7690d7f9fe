//! What waits for the log writer's thread.
//!
//! ```text
//!            batch or question               took everything
//!   asleep -------------------> (working) -----------------------> lingering
//!     ^                             ^   a question, or half full      |  |
//!     |                             +---------------------------------+  |
//!     +------------------- LINGER passed, nothing came ------------------+
//!                          (something came: working)
//! ```
//! A batch wakes a writer that is asleep, never one that lingers: so a busy worker wakes it a hundred times a second
//! and not for every invocation, and a line is on its way to the disk after [`LINGER`] at the latest.

use super::hub::{Batch, Line};
use crate::garbage::Removed;
use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// Bytes the writer may be behind: counted in bytes, for most batches are a few short lines and a disk may stall.
const MOST: usize = 32 << 20;
/// What a line takes beside its text.
const LINE_BYTES: usize = 128;
/// How long lines may wait for others to be written with.
const LINGER: Duration = Duration::from_millis(10);

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Question {
    /// The last lines of a function.
    Tail { function: String, lines: usize, answer: oneshot::Sender<Vec<Line>> },
    /// To remove the logs of all other functions, once they are so old.
    Retain { functions: HashSet<String>, min_age: Duration, answer: oneshot::Sender<Removed> },
}

/// What the writer takes at once: first all batches, then the answers.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) batches: Vec<Batch>,
    pub(super) questions: Vec<Question>,
    /// Held by the batches.
    bytes: usize,
    /// Lines that found no room.
    pub(super) dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug)]
struct State {
    next: u64,
    work: Work,
    writer: Writer,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Working,
    Lingering,
    Asleep,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.questions.is_empty() && self.dropped == 0
    }
}

impl State {
    fn is_urgent(&self) -> bool {
        self.closed || !self.work.questions.is_empty() || self.work.bytes >= MOST / 2
    }

    fn is_idle(&self) -> bool {
        !self.closed && self.work.is_empty()
    }
}

impl Queue {
    /// The first line gets this number.
    pub(super) fn new(next: u64) -> Self {
        let state = State { next, work: Work::default(), writer: Writer::Working, closed: false };
        Self { state: Mutex::new(state), bell: Condvar::new() }
    }

    /// Numbers lines, shows them, and queues them if there is room. One lock around all of it, so that numbers rise in
    /// the order of the queue.
    pub(super) fn publish(&self, mut lines: Vec<Line>, show: impl FnOnce(&Batch)) {
        let mut state = self.lock();
        for line in &mut lines {
            line.sequence = state.next;
            state.next += 1;
        }
        let batch: Batch = lines.into();
        show(&batch);
        if state.work.bytes < MOST {
            state.work.bytes += batch.iter().map(|line| line.text.len() + LINE_BYTES).sum::<usize>();
            state.work.batches.push(batch);
        } else {
            state.work.dropped += batch.len() as u64;
        }
        self.wake(&mut state);
    }

    /// Queues a question; it sees every line published before.
    pub(super) fn ask(&self, question: Question) {
        let mut state = self.lock();
        state.work.questions.push(question);
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if state.writer == Writer::Asleep || (state.writer == Writer::Lingering && state.is_urgent()) {
            state.writer = Writer::Working;
            self.bell.notify_one();
        }
    }

    /// Nobody will publish any more: the writer ends when it has written everything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(&mut state);
    }

    /// The writer's: waits for work and takes all there is.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = self.lock();
        if !state.is_urgent() {
            state.writer = Writer::Lingering;
            let waited = self.bell.wait_timeout_while(state, LINGER, |state| !state.is_urgent());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.is_idle() {
            state.writer = Writer::Asleep;
            let waited = self.bell.wait_while(state, |state| state.is_idle());
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = Writer::Working;
        let over = state.closed && state.work.is_empty();
        (!over).then(|| std::mem::take(&mut state.work))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn lines(count: usize) -> Vec<Line> {
        let of = |text: &str| -> Arc<str> { text.into() };
        let line = Line {
            unix_us: 1,
            sequence: 0,
            function: of("f"),
            request_id: of("r"),
            sandbox_id: of("s"),
            text: String::new(),
        };
        vec![line; count]
    }

    fn numbers(work: &Work) -> Vec<u64> {
        work.batches.iter().flat_map(|batch| batch.iter().map(|line| line.sequence)).collect()
    }

    #[test]
    fn everything_is_taken_in_order_and_then_it_ends() {
        let queue = Queue::new(5);
        let mut shown = 0;
        for count in [1, 3, 2] {
            queue.publish(lines(count), |batch| shown += batch.len());
        }
        queue.close();
        let work = queue.take().unwrap();
        assert_eq!((numbers(&work), work.dropped, shown), ((5..11).collect(), 0, 6));
        assert!(queue.take().is_none());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let queue = Queue::new(0);
        let fit = MOST.div_ceil(3 * LINE_BYTES);
        for _ in 0..fit + 2 {
            queue.publish(lines(3), |_| ());
        }
        let work = queue.take().unwrap();
        assert_eq!((work.batches.len(), work.dropped), (fit, 6));
    }

    /// Whatever the writer is doing when lines, questions or the end come, it misses none of them.
    #[test]
    fn no_line_is_missed() {
        let queue = Arc::new(Queue::new(0));
        let theirs = Arc::clone(&queue);
        let writer = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while let Some(work) = theirs.take() {
                seen.extend(numbers(&work));
                for question in work.questions {
                    if let Question::Tail { answer, .. } = question {
                        let _ = answer.send(Vec::new());
                    }
                }
            }
            seen
        });
        for round in 0..200 {
            queue.publish(lines(1), |_| ());
            if round % 3 == 0 {
                let (answer, wait) = oneshot::channel();
                queue.ask(Question::Tail { function: String::new(), lines: 1, answer });
                assert_eq!(wait.blocking_recv(), Ok(Vec::new()));
            }
        }
        queue.close();
        assert_eq!(writer.join().unwrap(), (0..200).collect::<Vec<_>>());
    }
}
