//! What control is told of the pager with each heartbeat.

use super::{PagerClient, client::Known};
use warren_pager::protocol::Tier;
use warren_proto::v1;

impl PagerClient {
    /// What it did, a second old at most; `None`: this host has none.
    #[must_use]
    pub fn figures(&self) -> Option<v1::Pager> {
        let Known { pid, pagers, figures } = self.known()?;
        let pages = figures.pages;
        Some(v1::Pager {
            pid: pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            begun: pagers,
            memory_mib: self.host_mib(),
            serving: figures.serving,
            served: figures.served,
            faults: pages.faults,
            waits: pages.waits,
            waited_us: pages.waited_us,
            longest_wait_us: pages.longest_wait_us,
            loading_set_pages: pages.from_packs,
            chunk_pages: pages.copied.saturating_sub(pages.from_packs),
            zero_pages: pages.zeroed,
            ahead_pages: pages.ahead,
            loading_set_chunks: pages.packs,
            chunks: pages.windows,
            filled_chunks: pages.filled,
            failed_chunks: pages.failures,
            bytes: pages.bytes,
            memory: tier(figures.memory),
            disk: tier(figures.disk),
            agent: tier(figures.agent),
            neighbours: tier(figures.peers),
            origin: tier(figures.origin),
        })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a message has it")]
const fn tier(tier: Tier) -> Option<v1::PagerTier> {
    let Tier { hits, misses, failures, bytes, p50_us, p99_us } = tier;
    Some(v1::PagerTier { hits, misses, failures, bytes, p50_us, p99_us })
}
