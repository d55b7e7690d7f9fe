//! Zygotes: jailed VMMs whose VM is made and has nothing in it, kept ready so that a cold start has only its guest to bring back.
//!
//! - One is made by nobody's request, and adopted by one sandbox, for ever. Before that it has seen no byte of any function.
//! - Its jail is a sandbox's from the beginning ([`Class`]): nothing is asked of the jailer when it is adopted.
//! - It takes a snapshot or nothing: a function that has none boots in a jail of its own.
//! - No record tells of it: the next agent ends what waits, as it ends everything that it knows nothing of.
//! - Its memory is anybody's who wants it: for a sandbox or a compilation that finds no room, zygotes end.
//!
//! `pool.rs` decides, this module does.

mod class;
mod make;
mod pool;

pub use class::Class;
pub use make::Zygote;
pub use pool::Counts;

use crate::host::Host;
use pool::{Next, Pool};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};
use warren_proto::v1;

/// Memory of one that waits, MiB: what its VMM and its VM take of the host's, of which the kernel's metadata of the memory slot is
/// most.
const MIB_EACH: u64 = 4;

/// The zygotes of this host.
#[derive(Debug)]
pub struct Zygotes {
    pool: Mutex<Pool<Zygote>>,
    began: Instant,
    changed: Notify,
}

impl Zygotes {
    /// As many as fit into so much memory; none at all for 0.
    #[must_use]
    pub fn new(budget_mib: u64) -> Self {
        let most = usize::try_from(budget_mib / MIB_EACH).unwrap_or(usize::MAX);
        Self { pool: Mutex::new(Pool::new(most)), began: Instant::now(), changed: Notify::new() }
    }

    /// One for a cold start of this class, if one waits.
    pub fn take(&self, class: Class) -> Option<Zygote> {
        let taken = self.pool().take(class, self.now());
        self.changed.notify_one();
        taken
    }

    /// A cold start of this class is likely to come.
    pub fn expect(&self, class: Class) {
        self.pool().expect(class, self.now());
        self.changed.notify_one();
    }

    /// Ends one, because its memory is wanted; whether there was one. The memory is free at once.
    pub fn give_up_one(&self, host: &Arc<Host>) -> bool {
        let one = self.pool().give_up(self.now());
        let there = one.is_some();
        if let Some(one) = one {
            tracing::debug!(zygote = %one.name, "its memory is wanted");
            tokio::spawn(one.end(Arc::clone(host)));
        }
        there
    }

    /// What those that wait hold of the host's memory, MiB: free to whoever wants it.
    #[must_use]
    pub fn held_mib(&self) -> u64 {
        self.pool().waiting().count() as u64 * MIB_EACH
    }

    /// As control is told.
    #[must_use]
    pub fn figures(&self) -> v1::Zygotes {
        let pool = self.pool();
        let Counts { adopted, missed, died } = pool.counts();
        let waiting = u32::try_from(pool.waiting().count()).unwrap_or(u32::MAX);
        v1::Zygotes { waiting, adopted, missed, died }
    }

    /// As `warren ps` shows them.
    #[must_use]
    pub fn on_wire(&self, host_id: &str) -> Vec<v1::Sandbox> {
        self.pool().waiting().map(|one| one.on_wire(host_id)).collect()
    }

    /// Ends all that wait; none is made or given out from now on. Returns when they are reclaimed.
    pub async fn close(&self, host: &Arc<Host>) {
        let left = self.pool().close();
        futures::future::join_all(left.into_iter().map(|one| one.end(Arc::clone(host)))).await;
    }

    fn died(&self, name: &str) -> Option<Zygote> {
        let dead = self.pool().died(name, self.now());
        self.changed.notify_one();
        dead
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Zygote>> {
        // Whole between any two statements.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps as many as there shall be, one step at a time; for ever.
pub async fn tend(host: Arc<Host>) {
    let zygotes = &host.zygotes;
    loop {
        let changed = zygotes.changed.notified();
        let next = zygotes.pool().next(zygotes.now());
        match next {
            Next::Make(class) => tend_one(&host, class).await,
            Next::End(one) => one.end(Arc::clone(&host)).await,
            Next::Wait(at_most) => drop(timeout(at_most, changed).await),
        }
    }
}

async fn tend_one(host: &Arc<Host>, class: Class) {
    let zygotes = &host.zygotes;
    let made = if host.memory.free_mib() < MIB_EACH {
        Err(anyhow::anyhow!("the host's memory is in use"))
    } else {
        make::make(host, class).await.map_err(anyhow::Error::from)
    };
    let unwanted = match made {
        Ok(mut one) => {
            // Under the lock: whoever finds no memory finds the zygote that took it.
            let mut pool = zygotes.pool();
            if let Ok(reservation) = host.memory.reserve_mib(MIB_EACH) {
                one.enters(reservation);
                pool.made(class, one)
            } else {
                pool.failed(class, zygotes.now());
                Some(one)
            }
        }
        Err(error) => {
            tracing::debug!(memory_mib = class.memory_mib(), "no zygote was made: {error:#}");
            zygotes.pool().failed(class, zygotes.now());
            None
        }
    };
    if let Some(one) = unwanted {
        one.end(Arc::clone(host)).await;
    }
}
