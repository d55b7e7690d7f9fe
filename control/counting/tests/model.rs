//! A world of frontends, workers and one leader that lose, delay and reorder their messages: the limit must hold in
//! every state of it, measured where it counts, on the workers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a model's panics are its report")]

use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use warren_counting::{Grant, GrantId, HostName, Leader, Limits, PoolKey, Slices};

const LIMIT: u32 = 20;
const RESERVED: u32 = 5;
const FRONTENDS: usize = 3;
const WORKERS: usize = 3;

fn pools() -> [PoolKey; 2] {
    [PoolKey::Account, PoolKey::Function("f".into())]
}

fn limits() -> Limits {
    Limits { account: LIMIT, reserved: BTreeMap::from([("f".into(), RESERVED)]) }
}

fn host(at: usize) -> HostName {
    format!("w{at}").into()
}

/// A message that takes its time.
#[derive(Clone, Debug)]
enum Message {
    /// Leader to frontend: a grant, asked for at that time.
    Granted { to: usize, life: u64, pool: usize, grant: Grant, asked: u64 },
    /// Frontend to worker: run this.
    Run { from: usize, life: u64, pool: usize, worker: usize, grant: GrantId, epoch: u64 },
    /// Worker to frontend: it ended.
    Ended { to: usize, life: u64, pool: usize, grant: GrantId },
    /// Frontend to leader: slots back.
    Back { epoch: u64, grant: GrantId, slots: u32 },
    /// Leader to worker: begin nothing under this any more.
    Fence { worker: usize, grant: GrantId },
    /// Worker to leader: fenced, so many run.
    Fenced { epoch: u64, worker: usize, grant: GrantId, running: u32 },
}

#[derive(Clone, Debug, Default)]
struct Frontend {
    life: u64,
    slices: [Slices; 2],
}

#[derive(Clone, Debug, Default)]
struct Worker {
    floor: u64,
    fenced: BTreeSet<GrantId>,
    /// What runs: grant, epoch, pool, and who is to hear of its end.
    running: Vec<(GrantId, u64, usize, usize, u64)>,
}

#[derive(Debug)]
struct World {
    now: u64,
    epoch: u64,
    leader: Leader,
    /// What the journal holds: every grant made and not given back in full, as the leader last recorded it.
    journal: BTreeMap<GrantId, Grant>,
    frontends: Vec<Frontend>,
    workers: Vec<Worker>,
    flying: Vec<Message>,
}

impl World {
    fn new() -> Self {
        let hosts = (0..WORKERS).map(host).collect();
        Self {
            now: 0,
            epoch: 1,
            leader: Leader::new(1, limits(), Vec::new(), hosts),
            journal: BTreeMap::new(),
            frontends: vec![Frontend::default(); FRONTENDS],
            workers: vec![Worker { floor: 1, ..Worker::default() }; WORKERS],
            flying: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut by_pool = [0_u32; 2];
        for (_, _, pool, ..) in self.workers.iter().flat_map(|worker| &worker.running) {
            by_pool[*pool] += 1;
        }
        prop_assert!(by_pool[0] <= LIMIT - RESERVED, "account pool: {by_pool:?}");
        prop_assert!(by_pool[1] <= RESERVED, "reserved pool: {by_pool:?}");
        Ok(())
    }

    fn ask(&mut self, frontend: usize, pool: usize) {
        let want = self.frontends[frontend].slices[pool].wanted();
        if want == 0 {
            return;
        }
        if let Some(grant) = self.leader.ask(&pools()[pool], want, self.now) {
            self.journal.insert(grant.id, grant.clone());
            let life = self.frontends[frontend].life;
            self.flying.push(Message::Granted { to: frontend, life, pool, grant, asked: self.now });
        }
    }

    fn admit(&mut self, frontend: usize, pool: usize, worker: usize) -> bool {
        let now = self.now;
        let life = self.frontends[frontend].life;
        let ticket = self.frontends[frontend].slices[pool].admit(now);
        if let Some((grant, epoch)) = ticket {
            self.flying.push(Message::Run { from: frontend, life, pool, worker, grant, epoch });
        }
        ticket.is_some()
    }

    fn end(&mut self, worker: usize, which: usize) {
        let running = &mut self.workers[worker].running;
        if !running.is_empty() {
            let (grant, _, pool, to, life) = running.swap_remove(which % running.len());
            self.flying.push(Message::Ended { to, life, pool, grant });
        }
    }

    fn deliver(&mut self, which: usize) {
        if self.flying.is_empty() {
            return;
        }
        let message = self.flying.swap_remove(which % self.flying.len());
        match message {
            Message::Granted { to, life, pool, grant, asked } => {
                if self.frontends[to].life == life {
                    self.frontends[to].slices[pool].add(&grant, asked);
                }
            }
            Message::Run { from, life, pool, worker, grant, epoch } => {
                let at = &mut self.workers[worker];
                if epoch < at.floor || at.fenced.contains(&grant) {
                    self.flying.push(Message::Ended { to: from, life, pool, grant });
                } else {
                    at.running.push((grant, epoch, pool, from, life));
                }
            }
            Message::Ended { to, life, pool, grant } => {
                if self.frontends[to].life == life {
                    self.frontends[to].slices[pool].release(grant);
                }
            }
            Message::Back { epoch, grant, slots } => {
                if epoch == self.epoch {
                    self.leader.give_back(grant, slots);
                    if let Some(kept) = self.journal.get_mut(&grant) {
                        kept.slots -= slots;
                    }
                }
            }
            Message::Fence { worker, grant } => {
                let at = &mut self.workers[worker];
                at.fenced.insert(grant);
                let running = count(at, grant);
                self.flying.push(Message::Fenced { epoch: self.epoch, worker, grant, running });
            }
            Message::Fenced { epoch, worker, grant, running } => {
                if epoch == self.epoch {
                    self.leader.fenced(&host(worker), grant, running);
                }
            }
        }
    }

    /// Time passes: frontends renew (or not), the leader expires, fences are sent.
    fn tick(&mut self, ms: u64, renews: usize) {
        self.now += ms;
        for frontend in self.frontends.iter_mut().take(renews) {
            for slices in &mut frontend.slices {
                let ids: Vec<GrantId> = slices.ids().collect();
                for id in ids {
                    slices.renewed(id, self.leader.renew(id, self.now), self.now);
                }
            }
        }
        for grant in self.leader.expire(self.now) {
            self.flying.extend((0..WORKERS).map(|worker| Message::Fence { worker, grant }));
        }
        // A fenced worker tells of later ends as well.
        for worker in 0..WORKERS {
            let known: Vec<GrantId> = self.workers[worker].fenced.iter().copied().collect();
            for grant in known {
                let running = count(&self.workers[worker], grant);
                self.leader.fenced(&host(worker), grant, running);
            }
        }
    }

    fn give_back(&mut self, frontend: usize) {
        for (pool, key) in pools().iter().enumerate() {
            let limit = self.leader.limits().of(key);
            for (grant, slots) in self.frontends[frontend].slices[pool].resize(limit) {
                self.flying.push(Message::Back { epoch: self.epoch, grant, slots });
            }
        }
    }

    /// The frontend dies with everything it held.
    fn frontend_dies(&mut self, frontend: usize) {
        let life = self.frontends[frontend].life + 1;
        self.frontends[frontend] = Frontend { life, ..Frontend::default() };
    }

    /// The leader dies; the next one has only the journal, and workers register with it one by one.
    fn leader_dies(&mut self) {
        self.epoch += 1;
        let left = self.journal.values().filter(|grant| grant.slots > 0).cloned().collect();
        self.leader = Leader::new(self.epoch, limits(), left, (0..WORKERS).map(host).collect());
    }

    fn worker_registers(&mut self, worker: usize) {
        let at = &mut self.workers[worker];
        at.floor = self.epoch;
        let mut running = BTreeMap::new();
        for (grant, ..) in &at.running {
            *running.entry(*grant).or_insert(0) += 1;
        }
        self.leader.report(&host(worker), &running);
    }
}

fn count(worker: &Worker, grant: GrantId) -> u32 {
    u32::try_from(worker.running.iter().filter(|(id, ..)| *id == grant).count()).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, usize),
    Admit(usize, usize, usize),
    End(usize, usize),
    Deliver(usize),
    Tick(u64, usize),
    GiveBack(usize),
    FrontendDies(usize),
    LeaderDies,
    WorkerRegisters(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..FRONTENDS, 0..2_usize).prop_map(|(f, p)| Step::Ask(f, p)),
        12 => (0..FRONTENDS, 0..2_usize, 0..WORKERS).prop_map(|(f, p, w)| Step::Admit(f, p, w)),
        4 => (0..WORKERS, any::<usize>()).prop_map(|(w, n)| Step::End(w, n)),
        20 => any::<usize>().prop_map(Step::Deliver),
        2 => (0..8_000_u64, 0..=FRONTENDS).prop_map(|(ms, n)| Step::Tick(ms, n)),
        1 => (0..FRONTENDS).prop_map(Step::GiveBack),
        1 => (0..FRONTENDS).prop_map(Step::FrontendDies),
        1 => Just(Step::LeaderDies),
        3 => (0..WORKERS).prop_map(Step::WorkerRegisters),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_limit_holds_whatever_happens(steps in proptest::collection::vec(step(), 1..300)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Ask(frontend, pool) => world.ask(frontend, pool),
                Step::Admit(frontend, pool, worker) => drop(world.admit(frontend, pool, worker)),
                Step::End(worker, which) => world.end(worker, which),
                Step::Deliver(which) => world.deliver(which),
                Step::Tick(ms, renews) => world.tick(ms, renews),
                Step::GiveBack(frontend) => world.give_back(frontend),
                Step::FrontendDies(frontend) => world.frontend_dies(frontend),
                Step::LeaderDies => world.leader_dies(),
                Step::WorkerRegisters(worker) => world.worker_registers(worker),
            }
            world.check()?;
        }
    }

    /// Whatever happened: when it calms down and everybody has work, at least 95 % of the limit is in use.
    #[test]
    fn at_least_95_percent_is_usable(steps in proptest::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Ask(frontend, pool) => world.ask(frontend, pool),
                Step::Admit(frontend, pool, worker) => drop(world.admit(frontend, pool, worker)),
                Step::Deliver(which) => world.deliver(which),
                Step::FrontendDies(frontend) => world.frontend_dies(frontend),
                Step::LeaderDies => world.leader_dies(),
                _ => {}
            }
        }
        // What ran ends, what flew arrives, grants of the dead expire.
        for _ in 0..20 {
            (0..WORKERS).for_each(|worker| world.worker_registers(worker));
            while !world.flying.is_empty() {
                world.deliver(0);
            }
            for worker in 0..WORKERS {
                while !world.workers[worker].running.is_empty() {
                    world.end(worker, 0);
                }
            }
            world.tick(3_000, FRONTENDS);
            (0..FRONTENDS).for_each(|frontend| world.give_back(frontend));
        }
        while !world.flying.is_empty() {
            world.deliver(0);
        }
        // Saturation: everybody asks and admits until nothing moves.
        loop {
            let mut moved = false;
            for frontend in 0..FRONTENDS {
                for pool in 0..2 {
                    world.ask(frontend, pool);
                    while let Some(at) = world.flying.iter().position(|m| matches!(m, Message::Granted { .. })) {
                        world.deliver(at);
                    }
                    moved |= world.admit(frontend, pool, frontend % WORKERS);
                }
            }
            if !moved {
                break;
            }
        }
        while !world.flying.is_empty() {
            world.deliver(0);
        }
        world.check()?;
        let running: usize = world.workers.iter().map(|worker| worker.running.len()).sum();
        prop_assert!(running * 100 >= LIMIT as usize * 95, "only {running} of {LIMIT} in use");
    }
}

#[test]
fn a_reservation_makes_a_pool_of_its_own() {
    let limits = limits();
    let f: Arc<str> = "f".into();
    assert_eq!(limits.pool_of(&f), PoolKey::Function(f));
    assert_eq!(limits.pool_of(&"g".into()), PoolKey::Account);
    assert_eq!(limits.of(&PoolKey::Account), LIMIT - RESERVED);
    assert_eq!(limits.of(&PoolKey::Function("g".into())), 0);
}
