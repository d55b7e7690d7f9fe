//! Function logs, kept and followed.

use crate::rig::{Caller, Rig, module, version};
use warren_proto::v1::{LogsRequest, invoke_sandbox_event::Event};

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_with_their_ids() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let answer = caller.invoke("s1", b"l").await.unwrap();
    let id = answer.report.unwrap().request_id;
    let report = answer.log_tail.last().unwrap();
    assert!(report.starts_with(&format!("REPORT RequestId: {id}\tDuration: ")), "{report}");
    assert!(
        report.contains("\tMemory Size: 128 MB\tMax Memory Used: ") && report.contains("\tInit Duration: ")
    );
    let expect = [
        format!("START RequestId: {id} Version: 1"),
        "one".into(),
        "two \u{fffd}".into(),
        format!("END RequestId: {id}"),
    ];
    assert_eq!(answer.log_tail[..4], expect);
    assert_eq!(caller.logs("echo").await, answer.log_tail);
    assert_eq!(caller.logs("nobody").await, [""; 0]);
    let warm = caller.invoke("s1", b"x").await.unwrap();
    assert!(!warm.log_tail.last().unwrap().contains("Init Duration"), "{warm:?}");
    // A function that fails says so in its log.
    let _ = caller.invoke("s1", b"t").await.unwrap_err();
    assert!(caller.logs("echo").await.iter().any(|line| line.contains("trapped")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_and_said() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |version| version.limits.as_mut().unwrap().timeout_ms = 20_000);
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let answer = caller.invoke("s1", b"f").await.unwrap();
    assert!(answer.log_tail.iter().map(String::len).sum::<usize>() <= 5000);
    assert!(answer.log_tail.iter().any(|line| line.contains("more lines")), "{:?}", answer.log_tail);
    caller.invoke("s1", b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_lines_as_they_come() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    caller.invoke("s1", b"x").await.unwrap();
    let request = LogsRequest { function: "echo".into(), follow: true, tail: 1 };
    let mut follower = caller.client.clone().worker_logs(request).await.unwrap().into_inner();
    let past = follower.message().await.unwrap().unwrap();
    assert!(past.text.starts_with("REPORT"), "{past:?}");
    caller.invoke("s1", b"l").await.unwrap();
    let mut sequence = past.sequence;
    for expect in ["START", "one", "two", "END", "REPORT"] {
        let line = follower.message().await.unwrap().unwrap();
        assert!(line.text.starts_with(expect), "{line:?}");
        assert_eq!(
            (line.sequence, line.sandbox_id.as_str(), line.host_id.as_str()),
            (sequence + 1, "s1", "h1")
        );
        sequence = line.sequence;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_call_shows_its_log_and_then_its_end() {
    let rig = Rig::start(&[]).await;
    let caller = Caller::new(&rig).await;
    let code = module::obedient();
    let echo = version("echo", &code, |_| ());
    caller.prepare(&echo, &code, b"").await.unwrap();
    caller.create("s1", &echo).await.unwrap();
    let request = caller.request("s1", b"l");
    let mut events = caller.client.clone().invoke_sandbox_stream(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    let end = loop {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Log(line) => lines.push(line.text),
            Event::End(end) => break end,
        }
    };
    assert_eq!(end.payload, "l");
    assert_eq!((lines.len(), lines[1].as_str()), (5, "one"), "{lines:?}");
    assert!(events.message().await.unwrap().is_none());
    let request = caller.request("s1", b"t");
    let mut events = caller.client.clone().invoke_sandbox_stream(request).await.unwrap().into_inner();
    let error = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("trapped"), "{error}");
}
