//! What waits to be said to the host. It outlives a connection: what one could not carry whole, the next carries again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;
use warren_vmm_protocol::frame::encode;
use warren_vmm_protocol::guest::{GuestReply, LOG_MAX, LogBytes};
use warren_vmm_protocol::{Done, InvokeReply};

/// Beyond this much waiting, programs that log wait too.
const PATIENCE_BYTES: usize = 1 << 20;

/// A message.
struct Message {
    bytes: Rc<[u8]>,
    /// It answers a request, so it is for the connection on which that came and for no other.
    answer: bool,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Outgoing {
    messages: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    /// Init's end was said: from then on replies are those of invocations.
    init_said: Cell<bool>,
    changed: Notify,
}

impl Outgoing {
    /// Whole lines.
    pub(crate) fn log(&self, lines: &[u8]) {
        for piece in lines.chunks(LOG_MAX) {
            let message = if self.init_said.get() {
                encode(&InvokeReply::Log(piece.to_vec()))
            } else {
                LogBytes::try_from(piece.to_vec())
                    .map_or_else(|_| Ok(Vec::new()), |piece| encode(&GuestReply::Log(piece)))
            };
            self.push(message.unwrap_or_default(), false);
        }
    }

    /// How init ended.
    pub(crate) fn init(&self, reply: &GuestReply) {
        self.push(encode(reply).unwrap_or_default(), false);
        self.init_said.set(true);
    }

    /// How an event ended.
    pub(crate) fn done(&self, done: Done, payload: &[u8]) {
        let mut message = encode(&InvokeReply::Done(done)).unwrap_or_default();
        message.extend_from_slice(payload);
        self.push(message, false);
    }

    /// An answer to what was asked on this connection.
    pub(crate) fn answer(&self, reply: &GuestReply) {
        self.push(encode(reply).unwrap_or_default(), true);
    }

    /// There is another connection: answers to what was asked on the one before are nobody's.
    pub(crate) fn connected(&self) {
        self.messages.borrow_mut().retain(|message| !message.answer);
        self.bytes.set(self.messages.borrow().iter().map(|message| message.bytes.len()).sum());
        self.changed.notify_waiters();
    }

    fn push(&self, bytes: Vec<u8>, answer: bool) {
        self.bytes.set(self.bytes.get().saturating_add(bytes.len()));
        self.messages.borrow_mut().push_back(Message { bytes: bytes.into(), answer });
        self.changed.notify_waiters();
    }

    /// The oldest message; it stays until [`Outgoing::sent`].
    pub(crate) async fn front(&self) -> Rc<[u8]> {
        loop {
            let changed = self.changed.notified();
            if let Some(front) = self.messages.borrow().front() {
                return Rc::clone(&front.bytes);
            }
            changed.await;
        }
    }

    /// The oldest message is with the host.
    pub(crate) fn sent(&self) {
        if let Some(message) = self.messages.borrow_mut().pop_front() {
            self.bytes.set(self.bytes.get().saturating_sub(message.bytes.len()));
        }
        self.changed.notify_waiters();
    }

    /// Waits until there is room for more log.
    pub(crate) async fn room(&self) {
        self.until(|queue| queue.bytes.get() < PATIENCE_BYTES).await;
    }

    /// Waits until everything is with the host.
    pub(crate) async fn empty(&self) {
        self.until(|queue| queue.messages.borrow().is_empty()).await;
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}
