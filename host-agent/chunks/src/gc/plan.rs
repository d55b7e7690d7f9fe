//! What a collection will do, decided over lists.

use crate::{l3::Held, name::Name};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Retired, and reached: back into service.
    pub restore: Vec<Name>,
    /// Retired by an earlier collection, long enough ago, and not reached.
    pub delete: Vec<Held>,
    /// In service, old enough, and not reached.
    pub retire: Vec<Held>,
}

/// Decides. A clock that went back makes things young: they stay.
#[must_use]
#[expect(clippy::implicit_hasher, reason = "one caller, one kind of set")]
pub fn plan(
    reached: &HashSet<Name>,
    live: &[Held],
    retired: &[Held],
    now: SystemTime,
    min_age: Duration,
) -> Plan {
    let is_old = |held: &Held| now.duration_since(held.since).is_ok_and(|age| age >= min_age);
    let serving: HashSet<Name> = live.iter().map(|held| held.name).collect();
    let mut plan = Plan::default();
    for held in retired {
        if !reached.contains(&held.name) {
            if is_old(held) {
                plan.delete.push(*held);
            }
        } else if !serving.contains(&held.name) {
            plan.restore.push(held.name);
        }
    }
    plan.retire.extend(live.iter().filter(|held| !reached.contains(&held.name) && is_old(held)));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MIN_AGE: u64 = 100;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn name(number: u8) -> Name {
        Name([number; 32])
    }

    /// An origin as two maps of when each came to where it lies, and who may restore what.
    #[derive(Default)]
    struct Model {
        now: u64,
        live: BTreeMap<u8, u64>,
        retired: BTreeMap<u8, u64>,
        /// What each manifest names, and when it was published; roots from then on, at the latest after `MIN_AGE`.
        roots: Vec<(Vec<u8>, u64, bool)>,
        /// When each object was last acknowledged.
        acknowledged: BTreeMap<u8, u64>,
    }

    impl Model {
        fn put(&mut self, object: u8) {
            self.live.insert(object, self.now);
            self.acknowledged.insert(object, self.now);
        }

        fn held(map: &BTreeMap<u8, u64>) -> Vec<Held> {
            map.iter()
                .map(|(&object, &since)| Held { name: name(object), bytes: 1, since: at(since) })
                .collect()
        }

        /// The first half of a collection: what it knows, and what it will do.
        fn decide(&mut self) -> Vec<(u8, Move)> {
            let now = self.now;
            for (_, published, registered) in &mut self.roots {
                *registered |= *published + MIN_AGE <= now;
            }
            let registered = self.roots.iter().filter(|root| root.2);
            let reached = registered.flat_map(|root| root.0.iter().map(|&object| name(object))).collect();
            let (live, retired) = (Self::held(&self.live), Self::held(&self.retired));
            let plan = plan(&reached, &live, &retired, at(now), Duration::from_secs(MIN_AGE));
            let mut moves: Vec<(u8, Move)> =
                plan.restore.iter().map(|name| (name.0[0], Move::Restore)).collect();
            moves.extend(plan.delete.iter().map(|held| (held.name.0[0], Move::Delete)));
            moves.extend(plan.retire.iter().map(|held| (held.name.0[0], Move::Retire(held.since))));
            moves.reverse();
            moves
        }

        fn apply(&mut self, (object, step): (u8, Move)) {
            let now = self.now;
            match step {
                Move::Restore => {
                    if self.retired.remove(&object).is_some() {
                        self.live.insert(object, now);
                    }
                }
                Move::Delete => drop(self.retired.remove(&object)),
                Move::Retire(since) => {
                    if self.live.get(&object).is_some_and(|&again| at(again) == since) {
                        self.live.remove(&object);
                        self.retired.insert(object, now);
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Move {
        Restore,
        Delete,
        Retire(SystemTime),
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Put(u8),
        /// Puts what it names, and is acknowledged; a root now, or only when it must.
        Publish(Vec<u8>, bool),
        Forget(usize),
        /// Reads an object: what is retired goes back into service.
        Read(u8),
        /// Begins a collection if none is under way.
        Decide,
        /// One step of the collection that is under way.
        Apply,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..70u64).prop_map(Step::Wait),
            3 => (0..12u8).prop_map(Step::Put),
            2 => (prop::collection::vec(0..12u8, 1..4), any::<bool>()).prop_map(|(named, now)| Step::Publish(named, now)),
            1 => (0..4usize).prop_map(Step::Forget),
            2 => (0..12u8).prop_map(Step::Read),
            3 => Just(Step::Decide),
            8 => Just(Step::Apply),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_that_is_reached_or_young_is_ever_deleted(steps in prop::collection::vec(step(), 0..120)) {
            let mut model = Model::default();
            let mut under_way: Vec<(u8, Move)> = Vec::new();
            let mut began = 0;
            for step in steps {
                match step {
                    // The contract: a collection ends within min_age (its leader's lease), a root is registered within it.
                    Step::Wait(seconds) if under_way.is_empty() || model.now + seconds < began + MIN_AGE => model.now += seconds,
                    Step::Wait(_) => {}
                    Step::Put(object) => model.put(object),
                    Step::Publish(named, registered) => {
                        for &object in &named {
                            model.put(object);
                        }
                        model.roots.push((named, model.now, registered));
                    }
                    Step::Forget(at) => if at < model.roots.len() { model.roots.remove(at); },
                    Step::Read(object) => if !model.live.contains_key(&object) && model.retired.contains_key(&object) {
                        model.live.insert(object, model.now);
                    },
                    Step::Decide => if under_way.is_empty() {
                        under_way = model.decide();
                        began = model.now;
                    },
                    Step::Apply => if let Some(next) = under_way.pop() { model.apply(next); },
                }
                let there = |object: &u8| model.live.contains_key(object) || model.retired.contains_key(object);
                for (named, ..) in &model.roots {
                    prop_assert!(named.iter().all(there), "an object of a root was deleted: {named:?}");
                }
                for (object, since) in &model.acknowledged {
                    prop_assert!(model.now - since > MIN_AGE || there(object), "{object} was acknowledged and is gone");
                }
            }
        }

        #[test]
        fn what_nobody_reaches_goes_in_two_collections(objects in prop::collection::btree_set(0..50u8, 0..20)) {
            let mut model = Model::default();
            for &object in &objects {
                model.put(object);
            }
            for _ in 0..2 {
                model.now += MIN_AGE;
                for step in model.decide().into_iter().rev() {
                    model.apply(step);
                }
            }
            prop_assert!(model.live.is_empty() && model.retired.is_empty());
        }
    }
}
