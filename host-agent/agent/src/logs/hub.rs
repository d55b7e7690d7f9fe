//! Where all log lines of this worker meet: numbered, sent to the writer thread and to followers.

use super::{
    files::LogFiles,
    queue::{Question, Queue},
};
use crate::garbage::Removed;
use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, oneshot};
use warren_proto::v1::LogLine;

/// Batches a follower may be behind before it misses lines.
const FOLLOWER_QUEUE: usize = 128;

/// One line, numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was seen here, in microseconds: START and END lines tell which invocations overlapped.
    pub unix_us: u64,
    /// Counts lines of this worker.
    pub sequence: u64,
    /// Whose.
    pub function: Arc<str>,
    /// Of which invocation; empty for init.
    pub request_id: Arc<str>,
    /// Of which sandbox.
    pub sandbox_id: Arc<str>,
    /// Without its newline.
    pub text: String,
}

impl Line {
    /// As the wire says it.
    #[must_use]
    pub fn on_wire(&self, host_id: &str) -> LogLine {
        LogLine {
            unix_ms: self.unix_us / 1000,
            function: self.function.to_string(),
            request_id: self.request_id.to_string(),
            sandbox_id: self.sandbox_id.to_string(),
            text: self.text.clone(),
            sequence: self.sequence,
            host_id: host_id.to_owned(),
        }
    }
}

/// Lines that belong together.
pub(super) type Batch = Arc<[Line]>;

/// The hub; cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHub {
    queue: Arc<Publishers>,
    followers: broadcast::Sender<Batch>,
}

/// The queue as those who publish see it: the writer's thread ends with the last of them.
#[derive(Debug)]
struct Publishers(Arc<Queue>);

impl Drop for Publishers {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl LogHub {
    /// Starts the writer thread over the files in `dir`.
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let files = LogFiles::open(dir)?;
        // Numbers go on rising over restarts: no worker writes 65,536 lines a millisecond.
        let queue = Arc::new(Queue::new(now_ms() << 16));
        let theirs = Arc::clone(&queue);
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || write_all(files, &theirs))?;
        let (followers, _) = broadcast::channel(FOLLOWER_QUEUE);
        Ok(Self { queue: Arc::new(Publishers(queue)), followers })
    }

    /// Numbers the lines and passes them on. Never waits: a writer that is too far behind loses the batch, counted.
    pub fn publish(&self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        self.queue.0.publish(lines, |batch| {
            if self.followers.receiver_count() > 0 {
                // An error means that the last follower has just gone.
                let _ = self.followers.send(Arc::clone(batch));
            }
        });
    }

    /// The last lines of a function (of all when empty), every line published before this call among them.
    pub async fn tail(&self, function: &str, lines: usize) -> Vec<Line> {
        let (answer, wait) = oneshot::channel();
        self.queue.0.ask(Question::Tail { function: function.to_owned(), lines, answer });
        wait.await.unwrap_or_default()
    }

    /// Removes the logs of all other functions, once they are so old.
    pub async fn retain(&self, functions: HashSet<String>, min_age: Duration) -> Removed {
        let (answer, wait) = oneshot::channel();
        self.queue.0.ask(Question::Retain { functions, min_age, answer });
        wait.await.unwrap_or_default()
    }

    /// Every batch from now on.
    #[must_use]
    pub(crate) fn follow(&self) -> broadcast::Receiver<Batch> {
        self.followers.subscribe()
    }
}

fn write_all(mut files: LogFiles, queue: &Queue) {
    while let Some(work) = queue.take() {
        for batch in &work.batches {
            files.append(batch);
        }
        files.flush();
        if work.dropped > 0 {
            let lines = work.dropped;
            tracing::warn!(lines, "function log lines were not written: the disk was too slow");
        }
        for question in work.questions {
            // The asker may have gone.
            match question {
                Question::Tail { function, lines, answer } => {
                    let _ = answer.send(files.tail(&function, lines));
                }
                Question::Retain { functions, min_age, answer } => {
                    let _ = answer.send(files.retain(&functions, min_age));
                }
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since the Unix epoch.
#[must_use]
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
