//! The log of one invocation: lines with their ids, the tail for the caller, live lines for a streaming one.

use super::{
    hub::{Line, LogHub, now_us},
    lines::LineSplitter,
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::mpsc;

/// Most bytes of log returned with an answer, as in Lambda's `LogType: Tail`.
const TAIL_BYTES: usize = 4 << 10;
/// Lines and bytes passed on at once at most, so that a queue of batches is bounded in bytes too.
const BATCH_LINES: usize = 256;
const BATCH_BYTES: usize = 64 << 10;

/// Whose lines they are.
#[derive(Clone, Debug)]
pub struct LineContext {
    /// The function.
    pub function: Arc<str>,
    /// The invocation; empty for init.
    pub request_id: Arc<str>,
    /// The sandbox.
    pub sandbox_id: Arc<str>,
}

/// Collects and passes on.
#[derive(Debug)]
pub struct InvocationLog {
    hub: LogHub,
    context: LineContext,
    splitter: LineSplitter,
    batch: Vec<Line>,
    batch_bytes: usize,
    tail: Option<Tail>,
    live: Option<mpsc::Sender<Line>>,
    /// Lines a slow streaming caller missed.
    missed: u64,
}

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl InvocationLog {
    /// `want_tail`: keep the end for the answer. `live`: also send lines as they come.
    #[must_use]
    pub fn new(hub: LogHub, context: LineContext, want_tail: bool, live: Option<mpsc::Sender<Line>>) -> Self {
        let tail = want_tail.then(Tail::default);
        Self {
            hub,
            context,
            splitter: LineSplitter::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            tail,
            live,
            missed: 0,
        }
    }

    /// All that a function said in its init, at once; it belongs to no request.
    pub fn of_init(hub: LogHub, context: LineContext, bytes: &[u8]) {
        let mut log = Self::new(hub, context, false, None);
        log.bytes(bytes);
        log.function_ended();
        let _ = log.finish();
    }

    /// A line of Warren's own.
    pub fn line(&mut self, text: String) {
        self.line_at(now_us(), text);
    }

    /// The same, of a moment that has passed.
    pub fn line_at(&mut self, unix_us: u64, text: String) {
        if let Some(tail) = &mut self.tail {
            tail.push(&text);
        }
        let LineContext { function, request_id, sandbox_id } = self.context.clone();
        let line = Line { unix_us, sequence: 0, function, request_id, sandbox_id, text };
        if let Some(live) = &self.live
            && live.try_send(line.clone()).is_err()
        {
            self.missed += 1;
        }
        self.batch_bytes += line.text.len();
        self.batch.push(line);
        if self.batch.len() >= BATCH_LINES || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Bytes the function wrote.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut splitter = core::mem::take(&mut self.splitter);
        splitter.push(bytes, |text| self.line(text));
        self.splitter = splitter;
        // What came in one piece is shown at once, so that a follower sees a running function's lines.
        self.flush();
    }

    /// The function wrote its last byte.
    pub fn function_ended(&mut self) {
        let splitter = core::mem::take(&mut self.splitter);
        splitter.finish(|text| self.line(text));
    }

    /// Passes on what waits.
    pub fn flush(&mut self) {
        self.batch_bytes = 0;
        self.hub.publish(core::mem::take(&mut self.batch));
    }

    /// Ends; gives the tail.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        if self.missed > 0 {
            let missed = self.missed;
            self.live = None;
            self.line(format!("[warren] {missed} lines were not streamed: the caller read too slowly"));
        }
        self.flush();
        self.tail.map(|tail| tail.lines.into()).unwrap_or_default()
    }
}

impl Tail {
    fn push(&mut self, text: &str) {
        self.bytes += text.len() + 1;
        self.lines.push_back(text.to_owned());
        while self.bytes > TAIL_BYTES && self.lines.len() > 1 {
            if let Some(oldest) = self.lines.pop_front() {
                self.bytes -= oldest.len() + 1;
            }
        }
        if let Some(only) = self.lines.back_mut().filter(|line| line.len() > TAIL_BYTES) {
            let mut cut = TAIL_BYTES;
            while !only.is_char_boundary(cut) {
                cut -= 1;
            }
            self.bytes -= only.len() - cut;
            only.truncate(cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tail_is_bounded_and_is_the_end(lengths in proptest::collection::vec(0_usize..6000, 0..30)) {
            let mut tail = Tail::default();
            for (number, len) in lengths.iter().enumerate() {
                tail.push(&format!("{number}{}", "ä".repeat(len / 2)));
                let bytes: usize = tail.lines.iter().map(|line| line.len() + 1).sum();
                prop_assert_eq!(bytes, tail.bytes);
                prop_assert!(bytes <= TAIL_BYTES + 1);
                prop_assert!(tail.lines.back().unwrap().starts_with(&number.to_string()));
            }
        }
    }
}
