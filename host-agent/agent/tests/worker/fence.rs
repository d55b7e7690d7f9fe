//! Epochs: an older leader's commands and grants are refused, also after the agent was killed.

use crate::rig::{Caller, Rig, expect, module, until, version};
use std::sync::atomic::Ordering;
use tonic::{Code, Status};
use warren_proto::{error::Fault, v1};

/// One invocation under a grant of this epoch.
async fn under(caller: &Caller, id: &str, grant_epoch: u64) -> Result<v1::InvokeSandboxResponse, Status> {
    let request = v1::InvokeSandboxRequest { grant_epoch, ..caller.request(id, b"x") };
    caller.client.clone().invoke_sandbox(request).await.map(tonic::Response::into_inner)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let error = expect(answer, Code::FailedPrecondition, "STALE_EPOCH", Fault::System);
    assert!(error.retryable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_grants_and_commands_stay_refused_over_kills() {
    let mut rig = Rig::start(&[]).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    let caller = Caller::new(&rig).await;
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create_in("s1", &echo, 5).await.unwrap();
    // A newer grant ends older ones, whichever sandbox they are for.
    under(&caller, "s1", 1).await.unwrap();
    under(&caller, "s1", 6).await.unwrap();
    for round in 0..2 {
        let caller = Caller::new(&rig).await;
        refused(under(&caller, "s1", 5).await);
        refused(caller.create_in("s2", &echo, 4).await);
        refused(caller.destroy("s1", 4).await);
        let sandbox = caller.find("s1").await.unwrap();
        assert_eq!(sandbox.invocations, 2 + round, "what was refused did not run");
        assert_eq!(under(&caller, "s1", 6).await.unwrap().payload, "x");
        until("a grant that was refused is not counted", async || {
            rig.control.last_heartbeat().1.grants.is_empty().then_some(())
        })
        .await;
        rig.restart_agent();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_ends_all_older_grants_and_an_older_control_is_not_taken() {
    let mut rig = Rig::start(&[]).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    let caller = Caller::new(&rig).await;
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create_in("s1", &echo, 1).await.unwrap();
    rig.control.epoch.store(9, Ordering::Relaxed);
    rig.control.forget();
    let heard = rig.control.registrations().len();
    until("registered again", async || (rig.control.registrations().len() > heard).then_some(())).await;
    // The first heartbeat of the new epoch is the promise that counting stands on.
    let (beats, _) = rig.control.last_heartbeat();
    until("a heartbeat", async || (rig.control.last_heartbeat().0 > beats).then_some(())).await;
    refused(under(&caller, "s1", 8).await);
    assert_eq!(under(&caller, "s1", 9).await.unwrap().payload, "x");
    // A control of an older epoch gets no heartbeats: its counts would be wrong.
    rig.control.epoch.store(8, Ordering::Relaxed);
    rig.restart_agent();
    let heard = rig.control.registrations().len();
    let (beats, _) = rig.control.last_heartbeat();
    until("it asks again", async || (rig.control.registrations().len() > heard + 1).then_some(())).await;
    assert_eq!(rig.control.last_heartbeat().0, beats);
    rig.control.epoch.store(9, Ordering::Relaxed);
    until("a heartbeat", async || (rig.control.last_heartbeat().0 > beats).then_some(())).await;
}
