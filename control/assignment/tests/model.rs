//! Assignment's table against a world of workers: no sandbox is handed out twice, none is leaked or lost for longer
//! than a report takes.

#![allow(clippy::unwrap_used, reason = "a model's panics are its report")]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use warren_assignment::{Acquired, HostName, Lessee, Phase, Reported, SandboxId, Table, VersionKey};

const HOSTS: usize = 2;
const LESSEES: u32 = 2;

fn key(at: usize) -> VersionKey {
    VersionKey { function: format!("f{at}").into(), version: 1 }
}

fn host(at: usize) -> HostName {
    format!("h{at}").into()
}

/// A worker's own table: the truth.
#[derive(Debug, Default)]
struct Worker {
    sandboxes: BTreeMap<SandboxId, (VersionKey, Reported)>,
}

#[derive(Debug)]
struct World {
    table: Table,
    workers: Vec<Worker>,
    /// Who holds what, as lessees believe.
    held: BTreeMap<SandboxId, Lessee>,
    /// Creations under way.
    creating: Vec<(SandboxId, VersionKey, usize, Lessee)>,
    /// Names that were ever created: none may come again.
    names: BTreeSet<SandboxId>,
}

impl World {
    fn new() -> Self {
        Self {
            table: Table::new(1),
            workers: (0..HOSTS).map(|_| Worker::default()).collect(),
            held: BTreeMap::new(),
            creating: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    fn acquire(&mut self, function: usize, at: usize, lessee: Lessee) -> Result<(), TestCaseError> {
        match self.table.acquire(&key(function), lessee) {
            Acquired::Leased(id, _) => {
                prop_assert_eq!(&self.table.get(&id).unwrap().key, &key(function));
                prop_assert!(self.held.insert(id.clone(), lessee).is_none(), "{} was handed out twice", id);
            }
            Acquired::Create(id) => {
                prop_assert!(self.names.insert(id.clone()), "{} was named twice", id);
                self.table.placed(&id, &host(at));
                self.creating.push((id, key(function), at, lessee));
            }
        }
        Ok(())
    }

    fn finish_creation(&mut self, which: usize, well: bool) -> Result<(), TestCaseError> {
        if self.creating.is_empty() {
            return Ok(());
        }
        let (id, key, at, lessee) = self.creating.swap_remove(which % self.creating.len());
        if !well {
            self.table.remove(&id);
        } else if self.table.created(&id) {
            self.workers[at].sandboxes.insert(id.clone(), (key, Reported::Idle));
            prop_assert!(self.held.insert(id, lessee).is_none());
        }
        Ok(())
    }

    fn give_back(&mut self, which: usize) -> Result<(), TestCaseError> {
        let Some((id, lessee)) = nth(&self.held, which) else { return Ok(()) };
        self.held.remove(&id);
        // Not his any more only if it left the table meanwhile.
        prop_assert_eq!(
            self.table.release(&id, lessee),
            self.workers.iter().any(|w| w.sandboxes.contains_key(&id))
        );
        Ok(())
    }

    fn refused(&mut self, which: usize) {
        if let Some((id, lessee)) = nth(&self.held, which) {
            self.held.remove(&id);
            self.table.occupied(&id, lessee);
            for worker in &mut self.workers {
                if let Some(sandbox) = worker.sandboxes.get_mut(&id) {
                    sandbox.1 = Reported::Busy;
                }
            }
        }
    }

    fn dies(&mut self, at: usize, which: usize) {
        if let Some((id, _)) = nth(&self.workers[at].sandboxes, which) {
            let (key, _) = self.workers[at].sandboxes.remove(&id).unwrap();
            self.table.report(&id, &key, &host(at), Reported::Dead);
            self.held.remove(&id);
        }
    }

    /// What runs for nobody here ends, and the worker says so.
    fn calms(&mut self, at: usize) {
        for (id, (key, state)) in &mut self.workers[at].sandboxes {
            *state = Reported::Idle;
            self.table.report(id, key, &host(at), Reported::Idle);
        }
    }

    /// A worker speaks of what is on the other one: nothing of it is believed.
    fn lies(&mut self, at: usize, which: usize, said: Reported) -> Result<(), TestCaseError> {
        let other = (at + 1) % HOSTS;
        if let Some((id, (of, _))) = nth(&self.workers[other].sandboxes, which) {
            let before = self.table.get(&id).cloned();
            prop_assert!(!self.table.report(&id, &of, &host(at), said), "{} is believed", id);
            prop_assert_eq!(self.table.get(&id).cloned(), before);
        }
        Ok(())
    }

    fn host_lost(&mut self, at: usize) {
        for (id, _) in self.table.host_lost(&host(at)) {
            self.held.remove(&id);
        }
        // Creations there fail: their connection broke.
        self.creating.retain(|(_, _, on, _)| *on != at);
        self.workers[at].sandboxes.clear();
    }

    fn resync(&mut self, at: usize) {
        let named: Vec<_> = self.workers[at]
            .sandboxes
            .iter()
            .map(|(id, (key, state))| (id.clone(), key.clone(), *state))
            .collect();
        for (id, _) in self.table.resync(&host(at), &named) {
            self.held.remove(&id);
        }
    }

    /// Control dies: leases and creations are gone with it, workers are not.
    fn restart(&mut self, epoch: u64) {
        self.table = Table::new(epoch);
        self.held.clear();
        for (id, key, at, _) in self.creating.drain(..) {
            self.workers[at].sandboxes.insert(id, (key, Reported::Idle));
        }
        (0..HOSTS).for_each(|at| self.resync(at));
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let rows: BTreeMap<_, _> = self.table.rows().collect();
        for (id, row) in &rows {
            let lessee = match row.phase {
                Phase::Leased(lessee) => Some(lessee),
                _ => None,
            };
            prop_assert_eq!(self.held.get(*id).copied(), lessee, "{} is {:?}", id, row.phase);
            let creating = self.creating.iter().any(|(other, ..)| other == *id);
            prop_assert_eq!(matches!(row.phase, Phase::Creating(_)), creating, "{} leaked", id);
        }
        // Lost: a worker has it and the table does not know it.
        for (at, worker) in self.workers.iter().enumerate() {
            for (id, (key, _)) in &worker.sandboxes {
                let row = rows.get(id);
                prop_assert!(row.is_some_and(|row| row.key == *key), "{} is lost", id);
                prop_assert_eq!(row.unwrap().host.as_ref(), Some(&host(at)));
            }
        }
        Ok(())
    }
}

fn nth<V: Clone>(of: &BTreeMap<SandboxId, V>, which: usize) -> Option<(SandboxId, V)> {
    of.iter().nth(which % of.len().max(1)).map(|(id, value)| (id.clone(), value.clone()))
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize, usize, u32),
    Finish(usize, bool),
    GiveBack(usize),
    Refused(usize),
    Dies(usize, usize),
    Calms(usize),
    Lies(usize, usize, Reported),
    HostLost(usize),
    Resync(usize),
    Restart,
    Drain(usize),
}

fn said() -> impl Strategy<Value = Reported> {
    prop_oneof![Just(Reported::Idle), Just(Reported::Busy), Just(Reported::Dead)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..HOSTS, 0..LESSEES).prop_map(|(f, h, l)| Step::Acquire(f, h, l)),
        8 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(n, well)| Step::Finish(n, well)),
        6 => any::<usize>().prop_map(Step::GiveBack),
        2 => any::<usize>().prop_map(Step::Refused),
        2 => (0..HOSTS, any::<usize>()).prop_map(|(h, n)| Step::Dies(h, n)),
        2 => (0..HOSTS).prop_map(Step::Calms),
        2 => (0..HOSTS, any::<usize>(), said()).prop_map(|(h, n, said)| Step::Lies(h, n, said)),
        1 => (0..HOSTS).prop_map(Step::HostLost),
        1 => (0..HOSTS).prop_map(Step::Resync),
        1 => Just(Step::Restart),
        1 => (0..3_usize).prop_map(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_handed_out_twice_leaked_or_lost(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        let mut epoch = 1;
        for step in steps {
            match step {
                Step::Acquire(function, at, lessee) => world.acquire(function, at, Lessee(lessee))?,
                Step::Finish(which, well) => world.finish_creation(which, well)?,
                Step::GiveBack(which) => world.give_back(which)?,
                Step::Refused(which) => world.refused(which),
                Step::Dies(at, which) => world.dies(at, which),
                Step::Calms(at) => world.calms(at),
                Step::Lies(at, which, said) => world.lies(at, which, said)?,
                Step::HostLost(at) => world.host_lost(at),
                Step::Resync(at) => world.resync(at),
                Step::Restart => {
                    epoch += 1;
                    world.restart(epoch);
                }
                Step::Drain(function) => {
                    for (id, at) in world.table.drain(|of| *of == key(function)) {
                        let at = (0..HOSTS).find(|h| Some(host(*h)) == at).unwrap();
                        world.workers[at].sandboxes.remove(&id);
                    }
                }
            }
            world.check()?;
        }
    }
}

#[test]
fn a_sandbox_withdrawn_while_it_is_made_is_told_so() {
    let mut table = Table::new(1);
    let Acquired::Create(id) = table.acquire(&key(0), Lessee(1)) else { panic!("nothing was idle") };
    table.placed(&id, &host(0));
    table.host_lost(&host(0));
    assert!(!table.created(&id));
}

#[test]
fn a_host_that_makes_sandboxes_up_fills_its_own_share() {
    let mut table = Table::new(1);
    for number in 0..20_000 {
        table.report(&format!("sb-{number}"), &key(number), &host(0), Reported::Idle);
    }
    assert_eq!(table.rows().count(), 16_384);
    table.report("sb-other", &key(0), &host(1), Reported::Idle);
    assert_eq!(table.rows().count(), 16_385, "another host's are still taken");
    // All of it goes with the host, and may come again.
    assert_eq!(table.host_lost(&host(0)).len(), 16_384);
    table.report("sb-0", &key(0), &host(0), Reported::Idle);
    assert_eq!(table.rows().count(), 2);
}

/// What it says of a sandbox's version later changes nothing: neither is it found under another, nor twice under its own.
#[test]
fn a_sandbox_is_of_the_version_it_came_with() {
    let mut table = Table::new(1);
    for _ in 0..3 {
        table.report("sb", &key(0), &host(0), Reported::Idle);
        table.report("sb", &key(1), &host(0), Reported::Busy);
    }
    table.report("sb", &key(1), &host(0), Reported::Idle);
    let lines = format!("{table:?}").matches("\"sb\"").count();
    assert_eq!(lines, 2, "once among the rows, once among the idle: {table:?}");
    assert!(matches!(table.acquire(&key(1), Lessee(1)), Acquired::Create(_)));
    assert!(matches!(table.acquire(&key(0), Lessee(1)), Acquired::Leased(..)));
}
