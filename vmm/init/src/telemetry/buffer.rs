//! Records on their way. Pure.
//!
//! ```text
//! push ──▶ waiting ──▶ due when: enough records, enough bytes, the oldest waited long enough, or in a hurry
//!   └─ beyond the room: dropped, counted, and told by the next batch
//! ```

use super::record::envelope;
use super::subscription::Buffering;
use crate::clock::unix_ms;
use crate::core::Micros;
use serde_json::json;
use std::collections::VecDeque;

/// A batch's bytes that may wait besides the one under way.
const ROOM_IN_BATCHES: usize = 4;

/// The buffer of one subscriber.
#[derive(Debug)]
pub(crate) struct Buffer {
    limits: Buffering,
    records: VecDeque<String>,
    bytes: usize,
    oldest: Option<Micros>,
    hurry: bool,
    dropped: u64,
    dropped_bytes: usize,
}

impl Buffer {
    pub(crate) fn new(limits: Buffering) -> Self {
        Self {
            limits,
            records: VecDeque::new(),
            bytes: 0,
            oldest: None,
            hurry: false,
            dropped: 0,
            dropped_bytes: 0,
        }
    }

    fn most_bytes(&self) -> usize {
        usize::try_from(self.limits.max_bytes).unwrap_or(usize::MAX)
    }

    fn most_items(&self) -> usize {
        usize::try_from(self.limits.max_items).unwrap_or(usize::MAX)
    }

    /// A record: a JSON object.
    pub(crate) fn push(&mut self, now: Micros, record: &str) {
        let room = self.most_bytes().saturating_mul(ROOM_IN_BATCHES);
        let items = self.most_items().saturating_mul(ROOM_IN_BATCHES);
        if self.bytes.saturating_add(record.len()) > room || self.records.len() >= items {
            self.dropped += 1;
            self.dropped_bytes = self.dropped_bytes.saturating_add(record.len());
            return;
        }
        self.bytes = self.bytes.saturating_add(record.len());
        self.records.push_back(record.to_owned());
        self.oldest.get_or_insert(now);
    }

    /// What waits is due.
    pub(crate) fn hurry(&mut self) {
        self.hurry = !self.records.is_empty();
    }

    /// When a batch is due; 0 for now.
    pub(crate) fn due(&self) -> Option<Micros> {
        let oldest = self.oldest?;
        let full = self.records.len() >= self.most_items() || self.bytes >= self.most_bytes();
        Some(if full || self.hurry {
            0
        } else {
            oldest.saturating_add(Micros::from(self.limits.timeout_ms) * 1000)
        })
    }

    /// A batch: a JSON array. It has one record at least, however large that is.
    pub(crate) fn take(&mut self, now: Micros) -> Option<String> {
        let mut batch = String::from("[");
        let mut items = 0;
        while let Some(next) = self.records.front() {
            if items > 0 && (items >= self.most_items() || batch.len() + next.len() > self.most_bytes()) {
                break;
            }
            if items > 0 {
                batch.push(',');
            }
            batch.push_str(next);
            self.bytes = self.bytes.saturating_sub(next.len());
            self.records.pop_front();
            items += 1;
        }
        if items == 0 {
            return None;
        }
        if self.records.is_empty() {
            (self.oldest, self.hurry) = (None, false);
        } else {
            self.oldest = Some(now);
        }
        if self.dropped > 0 {
            let (records, bytes) = (self.dropped, self.dropped_bytes);
            let reason = "Consumer seems to have fallen behind as it has not acknowledged receipt of logs.";
            let content = json!({ "reason": reason, "droppedRecords": records, "droppedBytes": bytes });
            batch.push(',');
            batch.push_str(&envelope(unix_ms(), "platform.logsDropped", &content));
            (self.dropped, self.dropped_bytes) = (0, 0);
        }
        batch.push(']');
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Buffering = Buffering { max_items: 3, max_bytes: 40, timeout_ms: 10 };

    #[test]
    fn due_by_time_by_number_by_bytes_and_in_a_hurry() {
        let mut buffer = Buffer::new(LIMITS);
        assert_eq!((buffer.due(), buffer.take(0)), (None, None));
        buffer.push(5, "{}");
        assert_eq!(buffer.due(), Some(10_005));
        buffer.hurry();
        assert_eq!(buffer.due(), Some(0));
        assert_eq!(buffer.take(6).as_deref(), Some("[{}]"));
        assert_eq!(buffer.due(), None);
        (0..3).for_each(|_| buffer.push(7, "{}"));
        assert_eq!(buffer.due(), Some(0));
        assert_eq!(buffer.take(8).as_deref(), Some("[{},{},{}]"));
        buffer.push(9, &"x".repeat(41));
        assert_eq!(buffer.due(), Some(0));
        assert_eq!(buffer.take(9).map(|batch| batch.len()), Some(43));
    }

    proptest! {
        /// Every record is in exactly one batch or among the dropped, in order, whatever happens in between.
        #[test]
        fn records_come_once(steps in prop::collection::vec(prop::option::of(1_usize..60), 0..200)) {
            let mut buffer = Buffer::new(LIMITS);
            let (mut got, mut sent, mut dropped) = (Vec::new(), 0_u64, 0);
            let mut collect = |batch: String| {
                let records: Vec<serde_json::Value> = serde_json::from_str(&batch).unwrap();
                for record in records {
                    match record["record"]["droppedRecords"].as_u64() {
                        Some(number) => dropped += number,
                        None => got.push(record["n"].as_u64().unwrap()),
                    }
                }
            };
            for (now, step) in steps.iter().enumerate() {
                match step {
                    Some(size) => {
                        buffer.push(now as u64, &format!(r#"{{"n":{sent},"x":"{}"}}"#, "y".repeat(*size)));
                        sent += 1;
                    }
                    None => buffer.take(now as u64).into_iter().for_each(&mut collect),
                }
            }
            while let Some(batch) = buffer.take(0) {
                collect(batch);
            }
            prop_assert!(got.is_sorted());
            prop_assert_eq!(got.len() as u64 + dropped + buffer.dropped, sent);
            prop_assert_eq!((buffer.bytes, buffer.due()), (0, None));
        }
    }
}
