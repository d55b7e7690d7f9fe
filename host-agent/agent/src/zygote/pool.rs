//! Which zygotes there shall be: the forecast, the shares of the budget, and where each one is. No clock, no process.
//!
//! ```text
//!                  take ──▶ adopted: a sandbox's, for ever, and no longer known here
//!                   │
//!   making ─made─▶ waiting ─┬─ it died ──────────────────────────▶ gone, and another is made a second later
//!     │                     ├─ nobody asks for its class any more ─▶ end it
//!     │ failed              ├─ its memory is wanted ──────────────▶ end it
//!     ▼                     └─ closed ────────────────────────────▶ end it
//!   not again before RETRY
//! ```
//! **The forecast**: of each class, as many as began within the busiest second of the last minute; one at least while the class was
//! asked for within ten minutes. **The shares**: where these are more than the budget has, classes get theirs one by one in turn, the
//! one asked for last first.

use super::class::Class;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// How far back the forecast looks for its busiest second.
const SECONDS: usize = 60;
/// How long one is kept of a class that nobody asks for.
const KEEP: Duration = Duration::from_mins(10);
/// How soon one is made again where it failed.
const RETRY: Duration = Duration::from_secs(5);
/// How soon one is made in place of one that died: something that kills them all shall not keep the host busy.
const REPLACE: Duration = Duration::from_secs(1);
/// How often a forecast is made anew where nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most classes known; the one asked for longest ago makes room.
const MOST_CLASSES: usize = 64;

/// What can be told apart from others.
pub(super) trait Named {
    /// By this.
    fn name(&self) -> &str;
}

/// What there is, and what was asked for.
#[derive(Debug)]
pub(super) struct Pool<T> {
    budget: usize,
    closed: bool,
    classes: HashMap<Class, Lot<T>>,
    counts: Counts,
}

/// Since the agent began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cold starts that found one.
    pub adopted: u64,
    /// Cold starts that would have taken one.
    pub missed: u64,
    /// That died while they waited.
    pub died: u64,
}

#[derive(Debug)]
struct Lot<T> {
    waiting: VecDeque<T>,
    making: usize,
    not_before: Duration,
    asked: Asked,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Make one; [`Pool::made`] or [`Pool::failed`] says how that went.
    Make(Class),
    /// End this one: it is no longer in the pool.
    End(T),
    /// Look again then, or when something happened.
    Wait(Duration),
}

impl<T: Named> Pool<T> {
    /// Of so many at most.
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, closed: false, classes: HashMap::new(), counts: Counts::default() }
    }

    /// A cold start of this class asks for one. Time is since whatever moment, the same for all calls.
    pub(super) fn take(&mut self, class: Class, now: Duration) -> Option<T> {
        let found = self.asked(class, now)?.waiting.pop_front();
        let count = if found.is_some() { &mut self.counts.adopted } else { &mut self.counts.missed };
        *count += 1;
        found
    }

    /// One is likely to be asked for soon.
    pub(super) fn expect(&mut self, class: Class, now: Duration) {
        let _known = self.asked(class, now);
    }

    /// What has to be done, one step at a time.
    pub(super) fn next(&mut self, now: Duration) -> Next<T> {
        if self.closed {
            return Next::Wait(LOOK_AGAIN);
        }
        self.classes.retain(|_, lot| lot.is_used(now));
        let shares = self.shares(now);
        let surplus = |(class, share): &(Class, usize)| {
            self.classes.get(class).is_some_and(|lot| lot.waiting.len() > *share)
        };
        if let Some((class, _)) = shares.iter().find(|share| surplus(share))
            && let Some(one) = self.classes.get_mut(class).and_then(|lot| lot.waiting.pop_front())
        {
            return Next::End(one);
        }
        let there: usize = self.classes.values().map(|lot| lot.waiting.len() + lot.making).sum();
        if there >= self.budget {
            return Next::Wait(LOOK_AGAIN);
        }
        // One a turn, from who has least of its share, so that nobody waits for another's burst.
        let lacking = shares.iter().filter_map(|(class, share)| {
            let lot = self.classes.get(class)?;
            let there = lot.waiting.len() + lot.making;
            (there < *share && lot.not_before <= now).then_some((there, *class))
        });
        let Some((_, class)) = lacking.min_by_key(|(there, _)| *there) else { return Next::Wait(LOOK_AGAIN) };
        if let Some(lot) = self.classes.get_mut(&class) {
            lot.making += 1;
        }
        Next::Make(class)
    }

    /// One was made; given back if it is not wanted any more.
    pub(super) fn made(&mut self, class: Class, one: T) -> Option<T> {
        let closed = self.closed;
        match self.classes.get_mut(&class) {
            Some(lot) => {
                lot.making = lot.making.saturating_sub(1);
                if closed {
                    return Some(one);
                }
                lot.waiting.push_back(one);
                None
            }
            None => Some(one),
        }
    }

    /// None was made.
    pub(super) fn failed(&mut self, class: Class, now: Duration) {
        if let Some(lot) = self.classes.get_mut(&class) {
            lot.making = lot.making.saturating_sub(1);
            lot.not_before = now + RETRY;
        }
    }

    /// One died; given for what is left of it, unless somebody was quicker.
    pub(super) fn died(&mut self, name: &str, now: Duration) -> Option<T> {
        let found = self.classes.values_mut().find_map(|lot| {
            let at = lot.waiting.iter().position(|one| one.name() == name)?;
            lot.not_before = now + REPLACE;
            lot.waiting.remove(at)
        })?;
        self.counts.died += 1;
        Some(found)
    }

    /// One less, because its memory is wanted: of the class that was asked for longest ago. Its like is not made again at once.
    pub(super) fn give_up(&mut self, now: Duration) -> Option<T> {
        let has = self.classes.values_mut().filter(|lot| !lot.waiting.is_empty());
        let lot = has.min_by_key(|lot| lot.asked.last)?;
        lot.not_before = now + RETRY;
        lot.waiting.pop_back()
    }

    /// No more from now on: all that wait.
    pub(super) fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.classes.values_mut().flat_map(|lot| lot.waiting.drain(..)).collect()
    }

    /// All that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.classes.values().flat_map(|lot| &lot.waiting)
    }

    /// What happened so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn asked(&mut self, class: Class, now: Duration) -> Option<&mut Lot<T>> {
        if self.closed || self.budget == 0 {
            return None;
        }
        if !self.classes.contains_key(&class) && self.classes.len() >= MOST_CLASSES {
            // Only one of which there is nothing: others are ended step by step.
            let empty = self.classes.iter().filter(|(_, lot)| lot.waiting.is_empty() && lot.making == 0);
            let oldest = *empty.min_by_key(|(_, lot)| lot.asked.last)?.0;
            self.classes.remove(&oldest);
        }
        let lot = self.classes.entry(class).or_insert_with(|| Lot {
            waiting: VecDeque::new(),
            making: 0,
            not_before: Duration::ZERO,
            asked: Asked::default(),
        });
        lot.asked.note(now);
        Some(lot)
    }

    /// What each class gets of the budget now.
    fn shares(&self, now: Duration) -> Vec<(Class, usize)> {
        let mut wanted: Vec<_> = self
            .classes
            .iter()
            .map(|(class, lot)| (lot.asked.last, *class, lot.asked.forecast(now)))
            .collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let mut shares: Vec<_> = wanted.iter().map(|(_, class, _)| (*class, 0)).collect();
        let mut left = self.budget;
        while left > 0 {
            let before = left;
            for ((_, share), (.., forecast)) in shares.iter_mut().zip(&wanted) {
                if left > 0 && *share < *forecast {
                    (*share, left) = (*share + 1, left - 1);
                }
            }
            if left == before {
                break;
            }
        }
        shares
    }
}

impl<T> Lot<T> {
    fn is_used(&self, now: Duration) -> bool {
        !self.waiting.is_empty() || self.making > 0 || self.asked.forecast(now) > 0
    }
}

/// How often a class was asked for, in each second of the last minute.
#[derive(Debug)]
struct Asked {
    last: Duration,
    seconds: [u16; SECONDS],
}

impl Default for Asked {
    fn default() -> Self {
        Self { last: Duration::ZERO, seconds: [0; SECONDS] }
    }
}

impl Asked {
    fn note(&mut self, now: Duration) {
        let (last, this) = (self.last.as_secs(), now.as_secs());
        // What was noted a minute ago under the same number, or in between, is over.
        for second in (last + 1..=this).rev().take(SECONDS) {
            if let Some(count) = self.at(second) {
                *count = 0;
            }
        }
        if let Some(count) = self.at(this) {
            *count = count.saturating_add(1);
        }
        self.last = self.last.max(now);
    }

    fn forecast(&self, now: Duration) -> usize {
        let silence = now.saturating_sub(self.last);
        if silence >= KEEP {
            return 0;
        }
        let gone = usize::try_from(silence.as_secs()).unwrap_or(SECONDS);
        // Backwards from the last second that was noted; the oldest are over.
        let last = usize::try_from(self.last.as_secs() % SECONDS as u64).unwrap_or(0);
        let kept = (0..SECONDS.saturating_sub(gone))
            .filter_map(|back| self.seconds.get((last + SECONDS - back) % SECONDS));
        kept.max().map_or(1, |most| usize::from(*most).max(1))
    }

    fn at(&mut self, second: u64) -> Option<&mut u16> {
        self.seconds.get_mut(usize::try_from(second % SECONDS as u64).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
