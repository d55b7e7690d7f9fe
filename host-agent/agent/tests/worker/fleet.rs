//! What control hears.

use crate::rig::{Caller, Rig, module, until, version};
use std::sync::atomic::{AtomicU32, Ordering};
use tonic::Code;
use warren_proto::{error::Fault, v1::SandboxState};

#[tokio::test(flavor = "multi_thread")]
async fn registration_heartbeats_grants() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let first = until("registered", async || rig.control.registrations().first().cloned()).await;
    let resources = first.resources.unwrap();
    assert_eq!((resources.memory_mib, resources.zone.as_str()), (4096, "local"));
    assert!(resources.cpu_millis >= 1000 && resources.isa != 0 && first.builder_key.len() == 32);

    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let (answer, ()) = tokio::join!(caller.invoke("s1", b"h"), async {
        until("the running grant is reported", async || {
            let (_, heartbeat) = rig.control.last_heartbeat();
            let [grant] = heartbeat.grants.as_slice() else { return None };
            (heartbeat.busy == 1 && (grant.grant_id, grant.epoch, grant.running) == (7, 1, 1)).then_some(())
        })
        .await;
    });
    answer.unwrap();
    until("and its end", async || rig.control.last_heartbeat().1.grants.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_forgot_gets_the_whole_table_and_raises_the_epoch() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    until("registered", async || rig.control.registrations().first().cloned()).await;
    rig.control.epoch.store(9, Ordering::Relaxed);
    rig.control.forget();
    let again = until("registered again", async || rig.control.registrations().get(1).cloned()).await;
    let table: Vec<_> =
        again.sandboxes.iter().map(|sandbox| (sandbox.id.as_str(), sandbox.state())).collect();
    assert_eq!(table, [("s1", SandboxState::Idle)]);
    // The table comes before the answer that raises the epoch: until then 8 is not old, and whoever
    // asks with it gets a sandbox, each under a name of its own.
    let tries = AtomicU32::new(0);
    until("older epochs are fenced", async || {
        let probe = format!("probe-{}", tries.fetch_add(1, Ordering::Relaxed));
        let error = caller.create_in(&probe, &echo, 8).await.err()?;
        (error.code() == Code::FailedPrecondition).then_some(())
    })
    .await;
    crate::rig::expect(
        caller.create_in("s2", &echo, 8).await,
        Code::FailedPrecondition,
        "STALE_EPOCH",
        Fault::System,
    );
    caller.create_in("s2", &echo, 9).await.unwrap();
}
