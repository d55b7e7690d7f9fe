//! The frontend: takes calls of clients, and gets them answered by sandboxes.
//!
//! An invocation goes down one stack, one file a layer: authenticate (`services`), validate (`validate`),
//! admit (`admit`), lease (`hub`, `pool`), forward (`forward`). On the warm path it reads one snapshot and waits for nothing but the
//! worker. It deliberately knows no KVM, no jail, and no database beyond the registry's traits.
#![forbid(unsafe_code)]

mod admin;
mod admit;
mod catalog;
mod deploy;
mod detach;
mod drains;
mod forward;
mod functions;
mod hub;
mod ids;
mod intake;
mod invoke;
mod lingering;
mod logs;
mod observed;
mod pool;
mod publish;
mod renew;
mod services;
mod snapshots;
mod validate;

pub use admit::limits;
pub use catalog::{Catalog, FunctionEntry, Version};
pub use drains::Drains;
pub use hub::Hub;
pub use ids::RequestIds;
pub use lingering::Lingering;
pub use renew::Renewals;
pub use services::{Authenticate, Services, services};

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};
use tokio::sync::{mpsc, oneshot};
use warren_counting::{Admission, Counting};
use warren_identity::Gate;
use warren_placement::Fleet;
use warren_store::Blobs;

/// Everything a call may need.
#[derive(Debug)]
pub struct Frontend {
    /// Who calls.
    pub gate: Arc<Gate>,
    /// The functions.
    pub catalog: Catalog,
    /// Their code.
    pub blobs: Arc<Blobs>,
    /// The leader of the limits.
    pub counting: Arc<Counting>,
    /// What this frontend holds of them.
    pub admission: Arc<Admission>,
    /// Slots whose invocation may still run.
    pub lingering: Lingering,
    /// Hosts whose snapshots are being made again.
    pub renewals: Renewals,
    /// The hosts.
    pub fleet: Arc<Fleet>,
    /// Which of them are out of service, durably.
    pub drains: Drains,
    /// The sandboxes held here.
    pub hub: Arc<Hub>,
    /// Whoever loads policies: asked to try those again that are not loaded, it says when it has.
    pub retry_policies: mpsc::Sender<oneshot::Sender<()>>,
    /// Names for invocations.
    pub ids: RequestIds,
    /// Invocations taken since this process began.
    pub invocations: AtomicU64,
    /// When this process began to serve.
    pub began: Instant,
}
