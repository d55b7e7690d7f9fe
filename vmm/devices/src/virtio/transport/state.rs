//! The registers as they are written down, and how they are brought back in another device of the same identity.

use super::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Effect, FAILED, FEATURES_OK, INTERRUPT_CONFIG, INTERRUPT_USED, Identity,
    Ordering, QueueConfig, Transport,
};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Largest queue that there can be (virtio 1.2, 2.7).
const QUEUE_MAX: u16 = 1 << 15;

/// The registers of one device. [`Self::is_sound`] says whether a driver can have brought a device there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Device id.
    pub id: u32,
    /// Features that were offered.
    pub offered: u64,
    /// Status.
    pub status: u32,
    /// Which half of the features is read.
    pub device_features_sel: u32,
    /// Which half is written.
    pub driver_features_sel: u32,
    /// What the driver takes.
    pub driver_features: u64,
    /// Which queue is described.
    pub queue_sel: u32,
    /// The queues.
    pub queues: Vec<QueueConfig>,
    /// Interrupt status bits not acknowledged.
    pub interrupt: u32,
    /// The driver broke a rule; the device has stopped.
    pub needs_reset: bool,
}

/// It is another device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Of another kind.
    #[error("a device of kind {was} was written down, this one is of kind {is}")]
    Kind {
        /// Then.
        was: u32,
        /// Now.
        is: u32,
    },
    /// It offered something else.
    #[error("it offered features {was:#x}, and does {is:#x} now")]
    Features {
        /// Then.
        was: u64,
        /// Now.
        is: u64,
    },
    /// Other queues.
    #[error("its queues are others")]
    Queues,
}

impl TransportState {
    /// Whether a driver can have brought a device there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let phase = self.status & !FAILED;
        let known = ACKNOWLEDGE | DRIVER;
        let agreed = known | FEATURES_OK;
        let ordered = [0, ACKNOWLEDGE, known, agreed, agreed | DRIVER_OK].contains(&phase);
        let features = phase & FEATURES_OK == 0
            || self.driver_features & !self.offered == 0
                && self.driver_features & crate::virtio::F_VERSION_1 != 0;
        let queues = self.queues.iter().all(|queue| !queue.ready || queue.is_sound(QUEUE_MAX));
        let untouched = phase & FEATURES_OK != 0 || self.queues.iter().all(|queue| !queue.ready);
        ordered
            && features
            && queues
            && untouched
            && self.interrupt & !(INTERRUPT_USED | INTERRUPT_CONFIG) == 0
    }

    /// Whether its driver is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.status & DRIVER_OK != 0
    }
}

impl Transport {
    /// As they stand. No register is touched meanwhile.
    #[must_use]
    pub fn state(&self) -> TransportState {
        TransportState {
            id: self.identity.id,
            offered: self.identity.features,
            status: self.status,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            queues: self.queues.clone(),
            interrupt: self.signals.interrupt.load(Ordering::SeqCst),
            needs_reset: self.signals.needs_reset.load(Ordering::SeqCst),
        }
    }

    /// Brings registers back in a device in its reset state, of which nothing changes if they are another's. What is to be done
    /// then is as after a driver's write: a live device starts to work.
    pub fn resume(&mut self, state: &TransportState) -> Result<Effect, Mismatch> {
        let Identity { id, features, queues, .. } = &self.identity;
        if state.id != *id {
            return Err(Mismatch::Kind { was: state.id, is: *id });
        }
        if state.offered != *features {
            return Err(Mismatch::Features { was: state.offered, is: *features });
        }
        let fits = |(queue, max): (&QueueConfig, &u16)| !queue.ready || queue.is_sound(*max);
        if state.queues.len() != queues.len()
            || !state.queues.iter().zip(queues).all(fits)
            || !state.is_sound()
        {
            return Err(Mismatch::Queues);
        }
        self.status = state.status;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.driver_features = state.driver_features;
        self.queue_sel = state.queue_sel;
        self.queues.clone_from(&state.queues);
        self.signals.interrupt.store(state.interrupt, Ordering::SeqCst);
        self.signals.needs_reset.store(state.needs_reset, Ordering::SeqCst);
        self.signals.live.store(state.is_live(), Ordering::SeqCst);
        Ok(if state.is_live() && !state.needs_reset {
            Effect::Activate { features: state.driver_features, queues: state.queues.clone() }
        } else {
            Effect::None
        })
    }
}
