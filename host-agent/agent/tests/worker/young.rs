//! `kill -9` of the agent while sandboxes are made at full rate: what was acknowledged lives on, what was not is adopted
//! or ended, and nothing is left that nobody knows.

use crate::rig::{Caller, Rig, full_form, module, until, version};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use warren_proto::v1;

const MAKERS: u32 = 4;
/// Sandboxes a maker keeps; it destroys its oldest beyond that.
const KEPT: usize = 3;

/// What the makers know.
#[derive(Default)]
struct Known {
    /// Asked for, whatever came of it.
    asked: BTreeSet<String>,
    /// Acknowledged and not given up since, with their processes.
    living: BTreeMap<String, i32>,
}

/// Makes and destroys until the agent does not answer any more.
async fn make(
    caller: Arc<Caller>,
    echo: v1::FunctionVersion,
    maker: String,
    known: Arc<Mutex<Known>>,
    made: Arc<AtomicU32>,
) {
    let mut own: Vec<String> = Vec::new();
    for number in 0.. {
        let id = format!("{maker}-{number}");
        known.lock().unwrap().asked.insert(id.clone());
        let Ok(created) = caller.create(&id, &echo).await else { return };
        known.lock().unwrap().living.insert(id.clone(), created.sandbox.unwrap().pid);
        made.fetch_add(1, Ordering::Relaxed);
        own.push(id);
        if own.len() > KEPT {
            let oldest = own.remove(0);
            // Before it is asked for: from here on it may be there or not.
            known.lock().unwrap().living.remove(&oldest);
            if caller.destroy(&oldest, 1).await.is_err() {
                return;
            }
        }
    }
}

async fn kills(rounds: u32) {
    let mut rig = Rig::start(&[]).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    Caller::new(&rig).await.prepare(&echo, &code, b"").await.unwrap();
    let (mut adopted, mut ended) = (0, 0);
    for round in 0..rounds {
        let (known, made) = (Arc::<Mutex<Known>>::default(), Arc::<AtomicU32>::default());
        let caller = Arc::new(Caller::new(&rig).await);
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let name = format!("r{round}-m{maker}");
                tokio::spawn(make(caller.clone(), echo.clone(), name, known.clone(), made.clone()))
            })
            .collect();
        // Another moment of the work each time.
        let enough = 5 + round * 7 % 23;
        until("sandboxes are made", async || (made.load(Ordering::Relaxed) >= enough).then_some(())).await;
        rig.restart_agent();
        futures::future::join_all(makers).await;
        let known = Arc::into_inner(known).unwrap().into_inner().unwrap();

        let caller = Caller::new(&rig).await;
        let listed: BTreeMap<String, i32> =
            caller.list().await.into_iter().map(|sandbox| (sandbox.id, sandbox.pid)).collect();
        for (id, pid) in &known.living {
            assert_eq!(listed.get(id), Some(pid), "round {round}: {id} was acknowledged and is lost");
        }
        for id in listed.keys() {
            assert!(known.asked.contains(id), "round {round}: nobody asked for {id}");
        }
        until("every VMM is one of the table's", async || {
            (rig.jailed_processes().len() == listed.len()).then_some(())
        })
        .await;
        for id in listed.keys() {
            assert_eq!(caller.invoke(id, b"x").await.unwrap().payload, "x", "round {round}: {id}");
        }
        adopted += listed.len();
        ended += rig.agent.ready["reclaimed"].parse::<usize>().unwrap();
        for id in listed.keys() {
            caller.destroy(id, 1).await.unwrap();
        }
        assert_eq!(rig.run_files(), [""; 0], "round {round}");
        until("no VMM is left", async || rig.jailed_processes().is_empty().then_some(())).await;
    }
    println!("{rounds} kills: {adopted} sandboxes adopted, {ended} that nobody was told of ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_while_sandboxes_are_made() {
    kills(if full_form() { 30 } else { 2 }).await;
}
