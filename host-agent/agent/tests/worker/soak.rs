//! Load on one host; the full form is `cargo xtask soak worker`.

use crate::rig::{Caller, Rig, full_form, module, version};
use std::collections::BTreeMap;

/// Invokes from many clients over many sandboxes; all answers right, none twice at once, memory flat.
async fn load(calls_each: usize) {
    const SANDBOXES: usize = 8;
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    for number in 0..SANDBOXES {
        caller.create(&format!("s{number}"), &echo).await.unwrap();
    }
    let run = async |calls: usize| {
        let workers = (0..SANDBOXES).map(|number| {
            let caller = &caller;
            async move {
                for call in 0..calls {
                    let payload = format!("x{number}-{call}");
                    let answer = caller.invoke(&format!("s{number}"), payload.as_bytes()).await.unwrap();
                    assert_eq!(answer.payload, payload);
                }
            }
        });
        futures::future::join_all(workers).await;
    };
    run(calls_each / 4).await;
    let before = rig.agent.rss_bytes();
    run(calls_each).await;
    let after = rig.agent.rss_bytes();
    assert!(after < before + (8 << 20), "resident memory grew from {before} to {after}");
    let counts: BTreeMap<String, u64> =
        caller.list().await.into_iter().map(|sandbox| (sandbox.id, sandbox.invocations)).collect();
    let expect = (calls_each / 4 + calls_each) as u64;
    assert!(counts.len() == SANDBOXES && counts.values().all(|count| *count == expect), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls() {
    load(if full_form() { 2000 } else { 100 }).await;
}
