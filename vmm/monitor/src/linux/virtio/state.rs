//! A device at rest, written down and brought back.
//!
//! ```text
//!  works --come_to_rest: the step that is being made is done, what it gave back is told--> rests --go_on, rung--> works
//! ```
//! A disk that was empty may have come to hold something meanwhile: its driver is told before its guest goes on.
//! A guest that is put back to its snapshot has its devices put back at rest: the working half first, which undoes what it did for it
//! (a disk's own sectors) or ends it (streams), then registers and queues.
//!
//! A request that a device holds without having given it back (a buffer for frames that have not come, the buffer of statistics)
//! is written down as one that waits: whoever goes on takes it again.

use super::walk::{Walk, WalkError};
use super::{Device, INTERRUPT_CONFIG, INTERRUPT_USED, lock};
use crate::progress::monotonic_ns;
use std::io;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use warren_devices::virtio::transport::{Effect, Mismatch};
use warren_devices::virtio::{balloon, block, vsock};
use warren_state::linux::device::VirtioState;

/// How long between two looks at a device that works.
const LOOK: Duration = Duration::from_millis(1);

/// Why a device cannot go on where one was written down: the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It is another.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// It says another thing of itself: a disk of another size, a card of another address.
    #[error("its size or address is another than was written down")]
    Configuration,
    /// A queue does not lie in memory.
    #[error(transparent)]
    Queue(#[from] WalkError),
}

impl Device {
    /// Begins no step from here on, and waits for the one that is being made, up to a time on the monotonic clock. Whether it
    /// was done by then; if not, the device works on.
    pub fn come_to_rest(&self, until_ns: u64) -> bool {
        self.rests.store(true, Ordering::SeqCst);
        let mut queues = loop {
            match self.queues.try_lock() {
                Ok(queues) => break queues,
                Err(TryLockError::Poisoned(queues)) => break queues.into_inner(),
                Err(TryLockError::WouldBlock) if monotonic_ns() >= until_ns => {
                    self.go_on();
                    return false;
                }
                // It may be in the middle of a disk's work, whose end nobody can wait for with a limit of time.
                Err(TryLockError::WouldBlock) => crate::waiting::pause(LOOK),
            }
        };
        if queues.untold.take().is_some() && matches!(queues.wants_interrupt(&self.ram), Ok(true)) {
            self.raise(INTERRUPT_USED);
        }
        true
    }

    /// Works on.
    pub fn go_on(&self) {
        self.rests.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// Asks the working half of a device at rest to begin again; its answer comes.
    pub fn ask_to_begin_again(&self) -> Receiver<io::Result<()>> {
        let (answer, answered) = channel();
        *lock(&self.again) = Some(answer);
        self.ring();
        answered
    }

    /// Working thread: begins again if that was asked for.
    pub fn begin_again_if_asked(&self, begin: impl FnOnce() -> io::Result<()>) {
        if self.rests.load(Ordering::SeqCst)
            && let Some(answer) = lock(&self.again).take()
        {
            // Who asked may have given up.
            let _ = answer.send(begin());
        }
    }

    /// Is again what was written down of it, at rest.
    pub fn put_back(&self, state: &VirtioState) -> Result<(), ResumeError> {
        lock(&self.queues).take_away();
        self.resume(state)
    }

    /// As it stands, at rest.
    #[must_use]
    pub fn state(&self) -> VirtioState {
        let transport = lock(&self.transport).state();
        let mut queues = lock(&self.queues);
        let positions =
            (0..transport.queues.len()).map(|queue| queues.get(queue).map_or(0, |walk| walk.position()));
        let positions = positions.collect();
        let config = lock(&self.config);
        let (bytes, config_generation) = config.state();
        VirtioState { transport, config: bytes.to_vec(), config_generation, positions }
    }

    /// Goes on where another was written down; nobody works on it yet. Who works on it is rung.
    pub fn resume(&self, state: &VirtioState) -> Result<(), ResumeError> {
        let mut transport = lock(&self.transport);
        let effect = transport.resume(&state.transport)?;
        let mut config = lock(&self.config);
        let sectors: [u8; block::SECTORS_LEN] = config.field(0);
        let fits = match state.transport.id {
            // Its guest has seen nothing of it, so nothing that it knows of it is wrong: it may have any size now.
            block::ID if was_empty(state) => {
                let resumed = config.resume(&state.config, state.config_generation);
                if config.change(0, &sectors) && state.transport.is_live() {
                    self.signals.interrupt.fetch_or(INTERRUPT_CONFIG, Ordering::SeqCst);
                    self.news.store(true, Ordering::SeqCst);
                }
                resumed
            }
            // Says what the host wants and what the driver does.
            balloon::ID => config.resume(&state.config, state.config_generation),
            // The guest's address may be another: its driver reads it anew when it hears that its connections are over.
            vsock::ID => config.state().0.len() == state.config.len(),
            _ => config.state().0 == state.config && config.resume(&state.config, state.config_generation),
        };
        if !fits {
            return Err(ResumeError::Configuration);
        }
        if let Effect::Activate { features, queues } = effect {
            let walks = queues.iter().zip(&state.positions);
            let walks = walks.map(|(queue, at)| Walk::resumed(queue, features, *at, &self.ram));
            let walks = walks.collect::<Result<_, _>>()?;
            let mut mine = lock(&self.queues);
            (mine.walks, mine.features) = (walks, features);
            // What was learned from another driver's queues is over.
            mine.era += 1;
            drop(mine);
            self.ring();
        }
        Ok(())
    }

    /// Tells a driver what is other than it was written down, if something is; its vCPUs have their registers, and do not run yet.
    pub fn tell_news(&self) {
        if self.news.swap(false, Ordering::SeqCst) {
            self.interrupt.raise();
        }
    }
}

/// A disk that had no sector.
fn was_empty(state: &VirtioState) -> bool {
    state.config.first_chunk() == Some(&[0; block::SECTORS_LEN])
}
