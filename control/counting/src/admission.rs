//! The holder's shell: admits invocations, asks ahead, gives back.

use crate::{
    Counting,
    leader::{GrantId, PoolKey},
    slices::Slices,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex as AsyncMutex;

/// How often slices are renewed and resized.
pub(crate) const TEND_EVERY: Duration = Duration::from_secs(2);
/// After a restart, how long an invocation waits for earlier epochs' slots to be settled.
const SETTLE_TIME: Duration = Duration::from_secs(3);
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// An invocation was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The account runs as many as it may.
    #[error("the account runs as many invocations at once as it may ({limit} beyond reservations)")]
    Account {
        /// The limit.
        limit: u32,
    },
    /// The function runs as many as it may.
    #[error("the function runs as many invocations at once as it may ({limit})")]
    Function {
        /// The limit.
        limit: u32,
    },
    /// The grant could not be made durable.
    #[error("the control layer cannot make a grant durable: {0}")]
    Store(String),
}

#[derive(Debug)]
struct Pool {
    key: PoolKey,
    /// Held for nanoseconds: a count goes up or down.
    slices: Mutex<Slices>,
    /// One question at a time; those who wait for slots wait here.
    asking: AsyncMutex<()>,
    /// A question ahead of need is under way.
    ahead: AtomicBool,
}

/// Admission of one frontend.
#[derive(Debug)]
pub struct Admission {
    counting: Arc<Counting>,
    account: Arc<Pool>,
    reserved: RwLock<HashMap<Arc<str>, Arc<Pool>>>,
    began: Instant,
}

/// The right to run one invocation; gives its slot back when dropped.
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    grant: GrantId,
    epoch: u64,
}

impl Ticket {
    /// The grant, as workers count it.
    #[must_use]
    pub fn grant_id(&self) -> u64 {
        self.grant.0
    }

    /// The grant's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.slices().release(self.grant);
    }
}

impl Admission {
    /// Over this leader.
    #[must_use]
    pub fn new(counting: Arc<Counting>) -> Arc<Self> {
        Arc::new(Self {
            counting,
            account: Pool::new(PoolKey::Account),
            reserved: RwLock::default(),
            began: Instant::now(),
        })
    }

    /// Admits one invocation of a function. `reserved` says whether the function has a pool of its own.
    pub async fn admit(self: &Arc<Self>, function: &Arc<str>, reserved: bool) -> Result<Ticket, Refused> {
        let pool = if reserved { self.pool_of(function) } else { Arc::clone(&self.account) };
        let (ticket, ahead) = self.try_admit(&pool);
        if ahead {
            self.ask_ahead(&pool);
        }
        match ticket {
            Some(ticket) => Ok(ticket),
            None => self.wait(&pool).await,
        }
    }

    /// Invocations running now, over all pools.
    #[must_use]
    pub fn running(&self) -> u32 {
        let pools = self.pools();
        pools.iter().fold(0, |sum, pool| sum.saturating_add(pool.slices().used()))
    }

    /// Renews and resizes what is held, for ever.
    pub async fn tend(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TEND_EVERY);
        loop {
            tick.tick().await;
            for pool in self.pools() {
                let asked = self.now_ms();
                let ids: Vec<GrantId> = pool.slices().ids().collect();
                for id in ids {
                    let good = self.counting.renew(id, asked);
                    pool.slices().renewed(id, good, asked);
                }
                let limit = self.counting.limits().of(&pool.key);
                let back = pool.slices().resize(limit);
                self.counting.give_back(&back).await;
            }
        }
    }

    fn try_admit(&self, pool: &Arc<Pool>) -> (Option<Ticket>, bool) {
        let now = self.now_ms();
        let mut slices = pool.slices();
        let got = slices.admit(now);
        let ahead = got.is_some() && slices.wanted() > 0 && !pool.ahead.swap(true, Ordering::Relaxed);
        drop(slices);
        (got.map(|(grant, epoch)| Ticket { pool: Arc::clone(pool), grant, epoch }), ahead)
    }

    fn ask_ahead(self: &Arc<Self>, pool: &Arc<Pool>) {
        let (admission, pool) = (Arc::clone(self), Arc::clone(pool));
        tokio::spawn(async move {
            let asking = pool.asking.lock().await;
            if let Err(error) = admission.ask(&pool).await {
                tracing::warn!(%error, "no slots ahead of need");
            }
            drop(asking);
            pool.ahead.store(false, Ordering::Relaxed);
        });
    }

    /// None is held: asks, and admits out of the answer.
    async fn wait(&self, pool: &Arc<Pool>) -> Result<Ticket, Refused> {
        let since = Instant::now();
        loop {
            // Those who wait line up here, so each question's answer serves all of them.
            let asking = pool.asking.lock().await;
            if let (Some(ticket), _) = self.try_admit(pool) {
                return Ok(ticket);
            }
            let mut got = self.ask(pool).await?;
            if !got && self.give_idle_back(pool).await {
                got = self.ask(pool).await?;
            }
            if let (Some(ticket), _) = self.try_admit(pool) {
                return Ok(ticket);
            }
            drop(asking);
            if !got && (!self.counting.settling() || since.elapsed() >= SETTLE_TIME) {
                return Err(self.refusal(pool));
            }
            if !got {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        }
    }

    /// Other pools give back what they hold but do not use: a limit is for those who run, not for those who might.
    async fn give_idle_back(&self, pool: &Arc<Pool>) -> bool {
        let mut some = false;
        for other in self.pools().into_iter().filter(|other| !Arc::ptr_eq(other, pool)) {
            let back = other.slices().take_idle();
            some |= !back.is_empty();
            self.counting.give_back(&back).await;
        }
        some
    }

    async fn ask(&self, pool: &Pool) -> Result<bool, Refused> {
        let want = pool.slices().wanted();
        if want == 0 {
            return Ok(true);
        }
        let asked = self.now_ms();
        let answer = self.counting.ask(&pool.key, want, asked).await;
        let grant = answer.map_err(|error| Refused::Store(error.to_string()))?;
        if let Some(grant) = &grant {
            pool.slices().add(grant, asked);
        }
        Ok(grant.is_some())
    }

    fn refusal(&self, pool: &Pool) -> Refused {
        let limit = self.counting.limits().of(&pool.key);
        match pool.key {
            PoolKey::Account => Refused::Account { limit },
            PoolKey::Function(_) => Refused::Function { limit },
        }
    }

    fn pool_of(&self, function: &Arc<str>) -> Arc<Pool> {
        let known = self.reserved.read().unwrap_or_else(PoisonError::into_inner).get(function).cloned();
        known.unwrap_or_else(|| {
            let mut pools = self.reserved.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Pool::new(PoolKey::Function(Arc::clone(function)));
            Arc::clone(pools.entry(Arc::clone(function)).or_insert_with(new))
        })
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        let reserved = self.reserved.read().unwrap_or_else(PoisonError::into_inner);
        reserved.values().cloned().chain([Arc::clone(&self.account)]).collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Pool {
    fn new(key: PoolKey) -> Arc<Self> {
        Arc::new(Self {
            key,
            slices: Mutex::default(),
            asking: AsyncMutex::default(),
            ahead: AtomicBool::new(false),
        })
    }

    fn slices(&self) -> MutexGuard<'_, Slices> {
        // Counters are whole between any two statements.
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
