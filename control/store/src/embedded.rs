//! The embedded backend: one redb file, one writer thread, group commit.
//!
//! ```text
//! callers --Job--> queue --> writer thread: take one, then all that wait (at most BATCH)
//!                              |  each runs inside ONE write transaction (conflicts change nothing)
//!                              |  commit, which fsyncs
//!                              +--> then every caller of the batch is answered
//! ```
//! The journal has room of its own in the file, so that a full disk stops deploys and not admissions ([`crate::room`]).
//! A failed commit fails every write of its batch, and the database is opened anew: redb refuses everything after an
//! I/O error, and a disk that was full may have room again.

use crate::{Entry, Expect, Journal, Record, Registry, Revision, Sequence, StoreError, room::Room, tables};
use bytes::Bytes;
use futures::future::BoxFuture;
use redb::{Database, WriteTransaction};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};
use tokio::sync::oneshot;

/// Most writes that share one fsync.
const BATCH: usize = 256;
/// redb's page cache; the registry of one machine is far smaller.
const CACHE_BYTES: usize = 16 << 20;

/// What a job leaves behind inside the transaction: how to answer once the commit is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A read, given the database or why there is none.
type Read = Box<dyn FnOnce(Result<&Database, StoreError>) + Send>;
/// A write in the shared transaction. `None`: it could not, and has answered its caller already.
type Write = Box<dyn FnOnce(Result<&WriteTransaction, StoreError>) -> Option<Answer> + Send>;

enum Job {
    Read(Read),
    Write(Write),
    Close(oneshot::Sender<()>),
}

/// Registry and journal in one directory of this machine.
#[derive(Clone, Debug)]
pub struct Embedded {
    jobs: mpsc::Sender<Job>,
    room: Room,
}

impl Embedded {
    /// Opens or creates the store in `dir`. One process at a time can have it open.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::Directory)?;
        let path = dir.join("warren.redb");
        let database = open_database(&path)?;
        let room = Room::open(&path)?;
        room.keep();
        let (jobs, queue) = mpsc::channel();
        let kept = room.clone();
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Writer { path, database: Some(database), room: kept }.run(&queue))
            .map_err(StoreError::Directory)?;
        Ok(Self { jobs, room })
    }

    /// Ends the writer after everything asked before; later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).is_ok() {
            let _ended = done.await;
        }
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Read(Box::new(move |database| drop(reply.send(database.and_then(work)))));
        self.submit(job, answer)
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Write(Box::new(move |transaction| match transaction.and_then(work) {
            Ok(done) => {
                Some(Box::new(move |commit: Result<(), StoreError>| drop(reply.send(commit.map(|()| done)))))
            }
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        }));
        self.submit(job, answer)
    }

    fn submit<T: Send + 'static>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let sent = self.jobs.send(job);
        Box::pin(async move {
            sent.map_err(|_| StoreError::Closed)?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

struct Writer {
    path: PathBuf,
    database: Option<Database>,
    room: Room,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut writes = Vec::new();
            let mut closing = None;
            for job in std::iter::once(first).chain(queue.try_iter()).take(BATCH) {
                match job {
                    // A read must not wait for the commit of writes before it: it sees answered writes only.
                    Job::Read(work) => work(self.database()),
                    Job::Write(work) => writes.push(work),
                    Job::Close(reply) => {
                        closing = Some(reply);
                        break;
                    }
                }
            }
            if !writes.is_empty() {
                self.commit(writes);
            }
            if let Some(reply) = closing {
                drop(self.database.take());
                let _nobody = reply.send(());
                return;
            }
        }
    }

    fn commit(&mut self, writes: Vec<Write>) {
        let transaction = match self.database().and_then(|database| Ok(database.begin_write()?)) {
            Ok(transaction) => transaction,
            Err(error) => {
                let again = Repeat::new(error);
                self.database = None;
                for work in writes {
                    drop(work(Err(again.error())));
                }
                return;
            }
        };
        let answers: Vec<Answer> = writes.into_iter().filter_map(|work| work(Ok(&transaction))).collect();
        // Durability::Immediate is redb's default: commit returns after fsync.
        let failure = transaction.commit().map_err(StoreError::from).err();
        let again = failure.map(|error| {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "the store cannot commit");
            self.database = None;
            Repeat::new(error)
        });
        self.room.keep();
        for answer in answers {
            answer(again.as_ref().map_or(Ok(()), |again| Err(again.error())));
        }
    }

    /// The open database; opened again if an error had closed it.
    fn database(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            self.database = Some(open_database(&self.path)?);
        }
        self.database.as_ref().ok_or(StoreError::Closed)
    }
}

/// An error for every caller of a batch; redb's cannot be cloned.
enum Repeat {
    Full,
    Failed(String),
}

impl Repeat {
    fn new(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::Failed(source) => Self::Failed(source.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }

    fn error(&self) -> StoreError {
        match self {
            Self::Full => StoreError::Full,
            Self::Failed(text) => StoreError::Failed(Box::new(redb::Error::Corrupted(text.clone()))),
        }
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    tables::create(&database)?;
    Ok(database)
}

impl Registry for Embedded {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        self.read(move |database| tables::get(database, &key))
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, Entry)>, StoreError>> {
        let prefix = prefix.to_owned();
        self.read(move |database| tables::list(database, &prefix))
    }

    fn put(&self, key: &str, expect: Expect, value: Bytes) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let (key, room) = (key.to_owned(), self.room.clone());
        self.write(move |transaction| {
            room.enlarge()?;
            tables::put(transaction, &key, expect, &value)
        })
    }

    fn delete(&self, key: &str, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = key.to_owned();
        self.write(move |transaction| tables::delete(transaction, &key, revision))
    }
}

impl Journal for Embedded {
    fn append(
        &self,
        subject: &str,
        last: Sequence,
        records: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Sequence, StoreError>> {
        let subject = subject.to_owned();
        self.write(move |transaction| tables::append(transaction, &subject, last, &records))
    }

    fn replay(&self, subject: &str) -> BoxFuture<'_, Result<(Vec<Record>, Sequence), StoreError>> {
        let subject = subject.to_owned();
        self.read(move |database| tables::replay(database, &subject))
    }

    fn trim(&self, subject: &str, up_to: Sequence) -> BoxFuture<'_, Result<(), StoreError>> {
        let subject = subject.to_owned();
        self.write(move |transaction| tables::trim(transaction, &subject, up_to))
    }
}
