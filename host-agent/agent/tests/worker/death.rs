//! VMMs and the jailer die under the agent.

use crate::rig::{Caller, Rig, expect, module, until, version};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;
use warren_proto::{error::Fault, v1::SandboxState};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vmm_fails_its_call_as_retryable() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let pid = caller.find("s1").await.unwrap().pid;
    let (answer, ()) = tokio::join!(caller.invoke("s1", b"s"), async {
        caller.until_state("s1", SandboxState::Busy).await;
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    });
    let error = expect(answer, Code::Unavailable, "SANDBOX_LOST", Fault::System);
    assert!(error.retryable, "{error:?}");
    assert!(error.message.contains("signal 9"), "{}", error.message);
    caller.until_gone("s1").await;
    assert_eq!(rig.run_files(), [""; 0]);
    // It is told twice: that it is dead, while it is still being reclaimed and counts, and once it is gone.
    let heard =
        || rig.control.died().contains(&"s1".to_owned()) && rig.control.last_heartbeat().1.sandboxes == 0;
    until("control heard of it", async || heard().then_some(())).await;
    caller.create("s2", &echo).await.unwrap();
    caller.invoke("s2", b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_idle_vmm_is_noticed() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let pid = caller.find("s1").await.unwrap().pid;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    caller.until_gone("s1").await;
    expect(caller.invoke("s1", b"x").await, Code::NotFound, "SANDBOX_GONE", Fault::System);
    // The id is free again.
    caller.create("s1", &echo).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_jailer_running_ones_go_on() {
    let mut rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    rig.kill_jailer();
    assert_eq!(caller.invoke("s1", b"x").await.unwrap().payload, "x");
    let error =
        expect(caller.create("s2", &echo).await, Code::Unavailable, "JAILER_UNAVAILABLE", Fault::System);
    assert!(error.retryable);
    rig.restart_jailer();
    // The reclaim of the failed one is still under way, under a name of its own.
    caller.create("s3", &echo).await.unwrap();
    assert_eq!(caller.invoke("s3", b"x").await.unwrap().payload, "x");
    assert_eq!(caller.invoke("s1", b"x").await.unwrap().payload, "x");
    caller.until_gone("s2").await;
    for id in ["s1", "s3"] {
        caller.destroy(id, 1).await.unwrap();
    }
    assert_eq!(caller.list().await, []);
}
