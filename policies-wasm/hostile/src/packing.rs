//! The packing side.

use crate::misdeeds::{self, BY_SEED, HUGE, NAN, OVERCOMMIT, SCORE, TOO_LONG, TWICE, UNKNOWN};
use alloc::vec::Vec;
use warren_policy_sdk::packing::{Deltas, Fit, FitRequest, Fits, HostInfo, PackingPolicy};
use warren_policy_sdk::rules::{PackingConfig, PackingRules};

struct Hostile(PackingRules);

impl PackingPolicy for Hostile {
    fn new(config: &str) -> Self {
        Self(PackingRules::new(PackingConfig::parse(config)))
    }

    fn snapshot(&mut self, hosts: Vec<HostInfo>) {
        self.0.snapshot(hosts.into_iter().map(Into::into));
    }

    fn choose(&mut self, deltas: Deltas, request: FitRequest) -> Fits {
        for delta in deltas.iter() {
            self.0.apply(delta);
        }
        misdeeds::commit(request.demand.function);
        let mut fits = self.0.choose(&(&request).into());
        let fit = |host| Fit { host, score: 1, overcommit_mib: 0 };
        let seeded = u32::try_from(request.seed).unwrap_or(u32::MAX);
        match request.demand.function {
            UNKNOWN => fits.best.push(fit(u32::MAX)),
            BY_SEED => fits.best = [fit(seeded)].into(),
            TWICE => {
                let first = fits.best.first().copied().unwrap_or(fit(0));
                fits.best = [first, first].into();
            }
            TOO_LONG => fits.best = (0..=request.shortlist).map(fit).collect(),
            HUGE => fits.best = (0..1_000_000).map(fit).collect(),
            SCORE => fits.best = [Fit { score: 1001, ..fit(0) }].into(),
            OVERCOMMIT => fits.best = [Fit { overcommit_mib: u32::MAX, ..fit(seeded) }].into(),
            NAN => fits.best = [Fit { score: misdeeds::nan_bits(request.seed) % 1001, ..fit(0) }].into(),
            _ => {}
        }
        fits
    }
}

warren_policy_sdk::export_packing!(Hostile);
