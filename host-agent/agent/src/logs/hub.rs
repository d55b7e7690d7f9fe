//! Where all log lines of this worker meet: numbered, sent to the writer thread and to followers.

use super::files::LogFiles;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc, oneshot};
use warren_proto::v1::LogLine;

/// Batches the writer may be behind; a batch holds at most 64 KiB of text and 256 lines.
const WRITER_QUEUE: usize = 512;
/// Batches a follower may be behind before it misses lines.
const FOLLOWER_QUEUE: usize = 128;

/// One line, numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was seen here.
    pub unix_ms: u64,
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
            unix_ms: self.unix_ms,
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

enum Work {
    Write(Batch),
    Tail { function: String, lines: usize, answer: oneshot::Sender<Vec<Line>> },
}

/// The hub; cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHub {
    writer: mpsc::Sender<Work>,
    followers: broadcast::Sender<Batch>,
    next: Arc<Mutex<u64>>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl LogHub {
    /// Starts the writer thread over the files in `dir`.
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let files = LogFiles::open(dir)?;
        let (writer, work) = mpsc::channel(WRITER_QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || write_all(files, work, &seen))?;
        let (followers, _) = broadcast::channel(FOLLOWER_QUEUE);
        // Numbers go on rising over restarts: no worker writes 65,536 lines a millisecond.
        let next = Arc::new(Mutex::new(now_ms() << 16));
        Ok(Self { writer, followers, next, dropped })
    }

    /// Numbers the lines and passes them on. Never waits: a writer that is too far behind loses the batch, counted.
    pub fn publish(&self, mut lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        // One lock around numbering and sending, so that numbers rise in the order of the queue.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &mut lines {
            line.sequence = *next;
            *next += 1;
        }
        let batch: Batch = lines.into();
        if self.followers.receiver_count() > 0 {
            // An error means that the last follower has just gone.
            let _ = self.followers.send(Arc::clone(&batch));
        }
        let len = batch.len() as u64;
        if self.writer.try_send(Work::Write(batch)).is_err() {
            self.dropped.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// The last lines of a function (of all when empty), every line published before this call among them.
    pub async fn tail(&self, function: &str, lines: usize) -> Vec<Line> {
        let (answer, wait) = oneshot::channel();
        let work = Work::Tail { function: function.to_owned(), lines, answer };
        match self.writer.send(work).await {
            Ok(()) => wait.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Every batch from now on.
    #[must_use]
    pub(crate) fn follow(&self) -> broadcast::Receiver<Batch> {
        self.followers.subscribe()
    }
}

fn write_all(mut files: LogFiles, mut work: mpsc::Receiver<Work>, dropped: &AtomicU64) {
    while let Some(item) = work.blocking_recv() {
        match item {
            Work::Write(batch) => files.append(&batch),
            Work::Tail { function, lines, answer } => {
                files.flush();
                // The asker may have gone.
                let _ = answer.send(files.tail(&function, lines));
            }
        }
        if work.is_empty() {
            files.flush();
            match dropped.swap(0, Ordering::Relaxed) {
                0 => {}
                lines => tracing::warn!(lines, "function log lines were not written: the disk was too slow"),
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
