//! Sandboxes that all do their worst at once: each end is its own and has a name, a bystander answers all the while, and the agent that
//! serves in the end is the one that did at first. The full form is 200 of them.

use crate::rig::{Caller, Rig, full_form, module, version};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};
use warren_proto::{error::WireError, v1::FunctionVersion};

/// An answer, or a reason.
type End = Result<&'static [u8], &'static str>;

/// What an event does, the event, and its answer or what the agent says of it.
const WORST: [(&str, &[u8], End); 8] = [
    ("spin", b"s", Err(TIMED_OUT)),
    ("take memory", b"m", Err("FUNCTION_OUT_OF_MEMORY")),
    ("recurse", b"r", Err("FUNCTION_STACK_OVERFLOW")),
    // What it floods with lies where its event was.
    ("flood the log", b"f", Ok(b"\n")),
    ("answer too much", b"b", Err("RESPONSE_TOO_LARGE")),
    ("trap", b"t", Err("FUNCTION_TRAPPED")),
    ("exit", b"e", Err("FUNCTION_EXITED")),
    ("echo", b"x", Ok(b"x")),
];

/// Where processor time is short anything may end so: its time is over, or its VMM has not come to say so within five seconds more.
const OVER: [&str; 2] = [TIMED_OUT, "SANDBOX_LOST"];
const TIMED_OUT: &str = "FUNCTION_TIMED_OUT";

const ANSWERED: &str = "answered";

/// How many came to which end.
type Ends = BTreeMap<String, usize>;

/// One of them: everything that can be done, beginning with another than its neighbour does. A time that is over costs the sandbox.
async fn rages(rig: &Rig, worst: &FunctionVersion, number: usize) -> Ends {
    let caller = Caller::new(rig).await;
    let (id, mut made, mut ends) = (format!("worst-{number}"), 0, Ends::new());
    let mut alive = None;
    for turn in 0..WORST.len() {
        let (what, event, wanted) = WORST[(number + turn) % WORST.len()];
        let sandbox = if let Some(sandbox) = alive.take() {
            sandbox
        } else {
            made += 1;
            let sandbox = format!("{id}-{made}");
            caller.create(&sandbox, worst).await.unwrap();
            sandbox
        };
        let said = match caller.invoke(&sandbox, event).await {
            Ok(answer) => Ok(answer.payload),
            Err(status) => Err(WireError::from_status(&status).reason),
        };
        let is_over = matches!(&said, Err(reason) if OVER.contains(&reason.as_str()));
        let is_right = match (&said, wanted) {
            (Ok(answer), Ok(wanted)) => answer[..] == *wanted,
            (Err(reason), Err(wanted)) => reason == wanted,
            _ => false,
        };
        assert!(is_over || is_right, "{what}: {said:?}");
        *ends.entry(said.err().unwrap_or_else(|| ANSWERED.to_owned())).or_default() += 1;
        if is_over {
            caller.until_gone(&sandbox).await;
        } else {
            alive = Some(sandbox);
        }
    }
    if let Some(sandbox) = alive {
        caller.destroy(&sandbox, 1).await.unwrap();
        caller.until_gone(&sandbox).await;
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn all_at_their_worst_at_once_are_their_own_affair() {
    let all = if full_form() { 200 } else { 16 };
    // More memory than any host has: what bounds them here is each one's own.
    let rig = Rig::start(&["--memory-mib=64000"]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let worst = version("worst", &code, |_| ());
    // Its time is never over: nobody knows how long a processor is others'.
    let calm = version("calm", &code, |version| version.limits.as_mut().unwrap().timeout_ms = 900_000);
    for version in [&worst, &calm] {
        caller.prepare(version, &code, b"").await.unwrap();
    }
    caller.create("bystander", &calm).await.unwrap();
    let before = (rig.agent.pid(), rig.jailer_pid());
    let over = AtomicBool::new(false);
    let rage = async {
        let ends = futures::future::join_all((0..all).map(|number| rages(&rig, &worst, number))).await;
        over.store(true, Ordering::Relaxed);
        ends
    };
    let asks = async {
        let mut answers = 0_usize;
        while !over.load(Ordering::Relaxed) {
            let event = format!("x{answers}");
            assert_eq!(
                &caller.invoke("bystander", event.as_bytes()).await.unwrap().payload[..],
                event.as_bytes()
            );
            answers += 1;
        }
        answers
    };
    let (ends, answers) = tokio::join!(rage, asks);
    let mut sum = Ends::new();
    for (end, count) in ends.into_iter().flatten() {
        *sum.entry(end).or_default() += count;
    }
    println!("{all} at their worst: {sum:?}; the bystander answered {answers} times");
    assert_eq!(sum.values().sum::<usize>(), all * WORST.len());
    for (what, _, wanted) in WORST {
        assert!(sum.contains_key(wanted.err().unwrap_or(ANSWERED)), "nobody came to {what}: {sum:?}");
    }
    assert_eq!((rig.agent.pid(), rig.jailer_pid()), before);
    caller.destroy("bystander", 1).await.unwrap();
    caller.until_gone("bystander").await;
    assert_eq!(rig.run_files(), [""; 0]);
    assert_eq!(rig.jailed_processes(), [0; 0]);
}
