//! The Telemetry API's other half: records, who wants them, and how they get there.
//!
//! A subscriber's records wait in a [`buffer::Buffer`] until there are enough of them, or one has waited long enough; then
//! they go to its server on the loopback as one JSON array.

pub(crate) mod buffer;
mod delivery;
pub(crate) mod record;
pub(crate) mod subscription;

use buffer::Buffer;
use std::cell::RefCell;
use std::rc::Rc;
use subscription::{Category, Subscription};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::serve::freezer::Freezer;

/// Somebody who wants records.
struct Subscriber {
    categories: Vec<Category>,
    buffer: Rc<RefCell<Buffer>>,
    changed: Rc<Notify>,
    task: tokio::task::AbortHandle,
}

/// Everybody who wants records, by extension.
#[derive(Default)]
pub(crate) struct Hub {
    subscribers: Vec<(String, Subscriber)>,
}

impl Hub {
    /// Takes a subscription; an extension's newer one replaces its older.
    pub(crate) fn subscribe(
        &mut self,
        clock: Clock,
        freezer: &Rc<Freezer>,
        name: &str,
        subscription: Subscription,
    ) {
        let buffer = Rc::new(RefCell::new(Buffer::new(subscription.buffering)));
        let changed = Rc::new(Notify::new());
        let task = delivery::Delivery {
            clock,
            freezer: Rc::clone(freezer),
            port: subscription.port,
            buffer: Rc::clone(&buffer),
            changed: Rc::clone(&changed),
        };
        let task = task.start();
        let subscriber = Subscriber { categories: subscription.categories, buffer, changed, task };
        self.forget(name);
        self.subscribers.push((name.to_owned(), subscriber));
    }

    /// The extension is gone.
    pub(crate) fn forget(&mut self, name: &str) {
        self.subscribers.retain(|(of, subscriber)| {
            if of == name {
                subscriber.task.abort();
            }
            of != name
        });
    }

    /// Whether somebody wants records of a category.
    pub(crate) fn wants(&self, category: Category) -> bool {
        self.subscribers.iter().any(|(_, subscriber)| subscriber.categories.contains(&category))
    }

    /// A record for all who want it.
    pub(crate) fn publish(&self, clock: Clock, category: Category, record: &str) {
        for (_, subscriber) in &self.subscribers {
            if subscriber.categories.contains(&category) {
                subscriber.buffer.borrow_mut().push(clock.now(), record);
                subscriber.changed.notify_one();
            }
        }
    }

    /// What waits is to go now.
    pub(crate) fn flush(&self) {
        for (_, subscriber) in &self.subscribers {
            subscriber.buffer.borrow_mut().hurry();
            subscriber.changed.notify_one();
        }
    }
}
