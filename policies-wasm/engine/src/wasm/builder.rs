//! One thread that makes instances off the decision path.

use std::sync::mpsc::{Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after another; its thread ends when it is dropped and the jobs are done.
#[derive(Debug)]
pub(crate) struct Builder {
    jobs: Sender<Job>,
}

impl Builder {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        std::thread::Builder::new().name("policy-builder".to_owned()).spawn(move || {
            for job in inbox {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        // The thread lives as long as the sender and no job unwinds into it: the only way to fail is a process that
        // is ending.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Waits until every job submitted so far is done.
    pub(crate) fn settle(&self) {
        let (done, wait) = channel();
        self.submit(move || drop(done));
        // An error is the very message: the sender was dropped, so the job ran.
        let _: Result<(), _> = wait.recv();
    }
}
