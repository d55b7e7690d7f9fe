//! Packing: how well does a function fit each host's present mix?
//!
//! Best fit with concentration: hosts that already run something come before empty ones, tight ones before roomy
//! ones, so that whole hosts empty. Among the tightest, a score weighs how full the host gets, whether memory and
//! CPU fill evenly, and the risk that its mix outgrows it: the sum of many functions' use is its expectation plus a
//! few standard deviations, and uncorrelated functions' variances add, not their peaks. The same sum says how much
//! promised but unused memory may be granted again, where the configuration allows that.

use crate::MAX_CANDIDATES;
use crate::host::{Delta, Demand, Health, HostIndex, HostInfo, HostTable, MAX_HOSTS};
use crate::room_index::{Look, RoomIndex, Wanted};
use alloc::vec::Vec;

/// Which hosts suit a function?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FitRequest {
    /// Unix milliseconds, given by the caller: deciders have no clock.
    pub now_ms: u64,
    /// Random, given by the caller.
    pub seed: u64,
    /// What is to be placed.
    pub demand: Demand,
    /// At most so many hosts are wanted; [`MAX_CANDIDATES`] is the most.
    pub shortlist: u32,
}

/// One host that can hold the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fit {
    /// Which.
    pub host: HostIndex,
    /// 0 (bad) to 1000 (best).
    pub score: u32,
    /// How far beyond the host's free memory this goes; 0 for not at all.
    pub overcommit_mib: u32,
}

/// The answer: hosts, best first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fits {
    /// Best first, none twice, each able to hold the function.
    pub best: Vec<Fit>,
}

/// Settings of the packing rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackingConfig {
    /// Up to this share of a host's memory may be promised twice where its mix is known to leave it unused.
    pub overcommit_percent: u32,
}

impl PackingConfig {
    /// Reads `key=value` words separated by blanks or newlines; unknown keys and values are ignored.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for word in text.split_whitespace() {
            if let Some(("overcommit-percent", value)) = word.split_once('=') {
                config.overcommit_percent = value.parse().unwrap_or(0).min(100);
            }
        }
        config
    }
}

/// The state of the packing rules: every host, indexed by room.
#[derive(Debug, Clone, Default)]
pub struct PackingRules {
    config: PackingConfig,
    hosts: HostTable,
    used: RoomIndex,
    empty: RoomIndex,
}

impl PackingRules {
    /// No hosts yet.
    #[must_use]
    pub fn new(config: PackingConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// The hosts it knows.
    #[must_use]
    pub fn hosts(&self) -> &HostTable {
        &self.hosts
    }

    /// How far beyond its free memory a host may be used.
    #[must_use]
    pub fn most_overcommit(&self, host: &HostInfo) -> u32 {
        percent(host.memory_mib, self.config.overcommit_percent)
    }

    /// Starts again from these hosts.
    pub fn snapshot(&mut self, hosts: impl IntoIterator<Item = HostInfo>) {
        self.hosts.clear();
        self.used.clear();
        self.empty.clear();
        for host in hosts {
            self.apply(Delta::Upsert(host));
        }
    }

    /// Takes in one change.
    pub fn apply(&mut self, delta: Delta) {
        let indexed = |host: &HostInfo| host.health == Health::Ready;
        let old = self.hosts.apply(delta).filter(indexed);
        let new = match delta {
            Delta::Upsert(new) if new.index < MAX_HOSTS => Some(new).filter(indexed),
            _ => None,
        };
        if let (Some(old), Some(new)) = (&old, &new) {
            let (before, after) = (self.place_of(old), self.place_of(new));
            // Most changes are small ones and leave a host where it is.
            if before.0 == after.0 && RoomIndex::same_class(before.1, after.1) {
                return;
            }
        }
        if let Some(old) = old {
            let (in_use, (memory_mib, cpu_millis)) = self.place_of(&old);
            self.index(in_use).remove(old.index, memory_mib, cpu_millis);
        }
        if let Some(new) = new {
            let (in_use, (memory_mib, cpu_millis)) = self.place_of(&new);
            self.index(in_use).insert(new.index, memory_mib, cpu_millis);
        }
    }

    /// The best hosts for the function.
    #[must_use]
    pub fn choose(&self, request: &FitRequest) -> Fits {
        let demand = &request.demand;
        let mut best = Best::new((request.shortlist as usize).min(MAX_CANDIDATES));
        // Half as many again are scored: enough to choose from, and a fixed amount of work.
        let mut looks = best.wanted + best.wanted.div_ceil(2);
        let search =
            Wanted { memory_mib: demand.memory_mib, cpu_millis: demand.cpu_millis, seed: request.seed };
        for index in [&self.used, &self.empty] {
            if looks == 0 || best.is_full() {
                break;
            }
            index.search(search, |host| {
                let Some(host) = self.hosts.get(host) else { return Look::Misses };
                if self.room_of(host) < demand.memory_mib || host.free_cpu_millis < demand.cpu_millis {
                    return Look::Misses;
                }
                best.offer(score(host, demand), host.index);
                looks -= 1;
                if looks == 0 { Look::Enough } else { Look::Fits }
            });
        }
        let overcommit = |host: &HostInfo| demand.memory_mib.saturating_sub(host.free_memory_mib);
        let fit =
            |(score, host)| Fit { host, score, overcommit_mib: self.hosts.get(host).map_or(0, overcommit) };
        Fits { best: best.iter().map(fit).collect() }
    }

    fn index(&mut self, in_use: bool) -> &mut RoomIndex {
        if in_use { &mut self.used } else { &mut self.empty }
    }

    /// In which index a host is, and with what room.
    fn place_of(&self, host: &HostInfo) -> (bool, (u32, u32)) {
        (host.sandboxes > 0, (self.room_of(host), host.free_cpu_millis))
    }

    /// Free memory, or more where the mix is known to leave promised memory unused.
    fn room_of(&self, host: &HostInfo) -> u32 {
        if self.config.overcommit_percent == 0 || host.used_p50_mib == 0 {
            return host.free_memory_mib;
        }
        let granted = self.most_overcommit(host);
        let likely_unused = percent(host.memory_mib, SAFE_PERCENT).saturating_sub(likely_use(host));
        likely_unused.min(host.free_memory_mib.saturating_add(granted)).max(host.free_memory_mib)
    }
}

/// The likely use of a host's mix is kept below this share of its memory.
const SAFE_PERCENT: u32 = 90;

/// Expectation plus three standard deviations: exceeded once in some 700 looks if the sum is near normal.
fn likely_use(host: &HostInfo) -> u32 {
    host.used_p50_mib.saturating_add(host.used_spread_mib.saturating_mul(3))
}

fn percent(of: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(of) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

/// Fullness four fifths, evenness one fifth, risk taken off; and any host in use above any empty one, so that whole
/// hosts stay empty.
fn score(host: &HostInfo, demand: &Demand) -> u32 {
    let memory_fill = fill(host.memory_mib, host.free_memory_mib, demand.memory_mib);
    let cpu_fill = fill(host.cpu_millis, host.free_cpu_millis, demand.cpu_millis);
    let evenness = 1000 - memory_fill.abs_diff(cpu_fill);
    let weighed = ((memory_fill * 4 + evenness) / 5).saturating_sub(risk(host, demand));
    if host.sandboxes == 0 { weighed.min(999) / 2 } else { 500 + weighed / 2 }
}

/// How full a resource gets, in thousandths.
fn fill(total: u32, free: u32, demand: u32) -> u32 {
    if total == 0 {
        return 1000;
    }
    let after = total.saturating_sub(free).saturating_add(demand).min(total);
    match after.checked_mul(1000) {
        Some(product) => product / total,
        None => u32::try_from(u64::from(after) * 1000 / u64::from(total)).unwrap_or(1000),
    }
}

/// By how much, in thousandths of its memory, the likely use of the mix with this function passes the safe share.
fn risk(host: &HostInfo, demand: &Demand) -> u32 {
    if host.used_p50_mib == 0 || host.memory_mib == 0 {
        return 0;
    }
    // The 99th percentile lies 2.33 standard deviations above the median if use is near normal.
    let own_spread =
        u64::from(demand.memory_used_p99_mib.saturating_sub(demand.memory_used_p50_mib)) * 100 / 233;
    let own = if demand.memory_used_p50_mib == 0 { demand.memory_mib } else { demand.memory_used_p50_mib };
    let expected = u64::from(host.used_p50_mib) + u64::from(own);
    let spread = u64::from(host.used_spread_mib);
    let safe = u64::from(percent(host.memory_mib, SAFE_PERCENT));
    // The joint spread is never more than the sum of the two: mostly that settles it without a root.
    if expected + (spread + own_spread) * 3 <= safe {
        return 0;
    }
    let joint = (spread * spread).saturating_add(own_spread * own_spread).isqrt();
    let likely = expected + joint * 3;
    u32::try_from(likely.saturating_sub(safe) * 1000 / u64::from(host.memory_mib)).unwrap_or(1000).min(1000)
}

/// The best so far: keys in order, smallest first, in a fixed array. A key is the score's distance from the best one
/// above the host's index, so equal scores come by index.
struct Best {
    keys: [u64; MAX_CANDIDATES],
    len: usize,
    wanted: usize,
}

impl Best {
    fn new(wanted: usize) -> Self {
        Self { keys: [u64::MAX; MAX_CANDIDATES], len: 0, wanted }
    }

    fn is_full(&self) -> bool {
        self.len >= self.wanted
    }

    fn offer(&mut self, score: u32, host: HostIndex) {
        let mut key = (u64::from(u32::MAX - score) << 32) | u64::from(host);
        // One pass: the new key goes where it belongs, each later one a place on, and the last out.
        for place in self.keys.iter_mut().take(self.wanted.min(self.len + 1)) {
            if key < *place {
                core::mem::swap(&mut key, place);
            }
        }
        self.len = self.wanted.min(self.len + 1);
    }

    fn iter(&self) -> impl Iterator<Item = (u32, HostIndex)> {
        let split = |key: &u64| {
            let (high, low) = (key >> 32, key & u64::from(u32::MAX));
            (u32::MAX - u32::try_from(high).unwrap_or(0), u32::try_from(low).unwrap_or(0))
        };
        self.keys.iter().take(self.len).map(split)
    }
}
