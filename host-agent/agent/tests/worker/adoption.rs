//! `kill -9` of the agent: sandboxes live on and are adopted.

use crate::rig::{Caller, Rig, module, until, version};
use tonic::Code;
use warren_proto::v1::SandboxState;

#[tokio::test(flavor = "multi_thread")]
async fn idle_ones_are_adopted_and_go_on() {
    let mut rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    let ids: Vec<String> = (0..5).map(|number| format!("s{number}")).collect();
    for id in &ids {
        caller.create(id, &echo).await.unwrap();
        caller.invoke(id, b"0").await.unwrap();
    }
    let before: Vec<(String, i32)> = sorted(caller.list().await);
    rig.restart_agent();
    assert_eq!(rig.agent.ready["adopted"], "5");
    let caller = Caller::new(&rig).await;
    assert_eq!(sorted(caller.list().await), before, "the same processes");
    for id in &ids {
        let sandbox = caller.find(id).await.unwrap();
        assert_eq!((sandbox.state(), sandbox.invocations), (SandboxState::Idle, 1));
        assert_eq!(caller.invoke(id, b"after").await.unwrap().payload, "after");
    }
    // They are still this agent's to destroy.
    for id in &ids {
        caller.destroy(id, 1).await.unwrap();
    }
    assert_eq!(rig.run_files(), [""; 0]);
    until("no VMM is left", async || rig.jailed_processes().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_one_ends_its_call_and_is_idle_again() {
    let mut rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let call = {
        let (mut client, request) = (caller.client.clone(), caller.request("s1", b"h"));
        tokio::spawn(async move { client.invoke_sandbox(request).await })
    };
    caller.until_state("s1", SandboxState::Busy).await;
    rig.restart_agent();
    let lost = call.await.unwrap().unwrap_err();
    assert!(matches!(lost.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{lost}");
    assert_eq!(rig.agent.ready["adopted"], "1");
    let caller = Caller::new(&rig).await;
    let sandbox = caller.until_state("s1", SandboxState::Idle).await;
    assert_eq!(sandbox.request_id, "");
    assert_eq!(caller.invoke("s1", b"after").await.unwrap().payload, "after");
    until("its grant is given back", async || {
        let (_, heartbeat) = rig.control.last_heartbeat();
        heartbeat.grants.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_record_or_life_is_cleaned() {
    let mut rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    for id in ["kept", "unknown", "dead"] {
        caller.create(id, &echo).await.unwrap();
    }
    let dead = caller.find("dead").await.unwrap().pid;
    let run = rig.dir.path().join("agent/run");
    rig.agent.kill();
    std::fs::remove_file(run.join("unknown.json")).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(dead).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    rig.restart_agent();
    let caller = Caller::new(&rig).await;
    let ids: Vec<String> = caller.list().await.into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(ids, ["kept"]);
    let files = rig.run_files();
    assert!(files.iter().all(|name| name.starts_with("kept.")), "{files:?}");
    until("one VMM is left", async || (caller.list().await.len() == 1).then_some(())).await;
    assert_eq!(caller.invoke("kept", b"x").await.unwrap().payload, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_told_to_leave_leaves_them() {
    let mut rig = Rig::start(&["--leave"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let pid = caller.find("s1").await.unwrap().pid;
    assert_eq!(rig.agent.terminate(), Some(0));
    rig.restart_agent();
    let caller = Caller::new(&rig).await;
    assert_eq!(caller.find("s1").await.unwrap().pid, pid);
    assert_eq!(caller.invoke("s1", b"x").await.unwrap().payload, "x");
    caller.destroy("s1", 1).await.unwrap();
}

fn sorted(sandboxes: Vec<warren_proto::v1::Sandbox>) -> Vec<(String, i32)> {
    let mut all: Vec<_> = sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.pid)).collect();
    all.sort();
    all
}
