//! What a program writes, read line by line.

use super::lines::Lines;
use super::supervisor::Supervisor;
use crate::core::Who;
use std::cell::RefCell;
use std::io::{ErrorKind, PipeReader, Result as IoResult};
use std::os::fd::AsFd;
use std::rc::Rc;
use tokio::net::unix::pipe::Receiver;

const CHUNK: usize = 16 << 10;
/// Most that is read at once when a program's output is drained: what a pipe holds.
const DRAIN_MAX: usize = 1 << 20;

/// The read end of a program's standard output and error.
pub(crate) struct Output {
    who: Who,
    pipe: Receiver,
    lines: RefCell<Lines>,
}

impl Output {
    /// Reads until the last writer is gone.
    pub(crate) fn start(supervisor: Supervisor, who: Who, pipe: PipeReader) -> IoResult<Rc<Self>> {
        let pipe = Receiver::from_owned_fd(pipe.into())?;
        let output = Rc::new(Self { who, pipe, lines: RefCell::default() });
        tokio::task::spawn_local(Rc::clone(&output).read_all(supervisor));
        Ok(output)
    }

    async fn read_all(self: Rc<Self>, supervisor: Supervisor) {
        let outgoing = supervisor.outgoing();
        loop {
            outgoing.room().await;
            if self.pipe.readable().await.is_err() {
                return;
            }
            match self.read_some(&supervisor) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        if let Some(line) = self.lines.borrow_mut().rest() {
            supervisor.line(self.who, &line);
        }
    }

    /// Reads what is there now: also what the event loop has not been told of yet.
    pub(crate) fn drain(&self, supervisor: &Supervisor) {
        let mut chunk = [0; CHUNK];
        let mut left = DRAIN_MAX;
        while left > 0 {
            match rustix::io::read(self.pipe.as_fd(), &mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.take(supervisor, chunk.get(..count).unwrap_or_default());
                }
            }
        }
    }

    fn read_some(&self, supervisor: &Supervisor) -> IoResult<usize> {
        let mut chunk = [0; CHUNK];
        let count = self.pipe.try_read(&mut chunk)?;
        self.take(supervisor, chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn take(&self, supervisor: &Supervisor, bytes: &[u8]) {
        let lines = self.lines.borrow_mut().push(bytes);
        for line in &lines {
            supervisor.line(self.who, line);
        }
    }
}
