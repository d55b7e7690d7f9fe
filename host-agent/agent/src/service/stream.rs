//! An invocation whose log lines go out while it runs.

use super::Answers;
use crate::{
    host::Host,
    logs::Line,
    sandbox::{
        invoke::{self, Invocation},
        live::Begun,
    },
};
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use warren_proto::{
    error::WireError,
    v1::{InvokeSandboxEvent, InvokeSandboxResponse, invoke_sandbox_event::Event},
};

/// Lines a caller may be behind before it misses some; the invocation never waits for it.
const LINES: usize = 1024;

/// Starts the invocation as a task of its own; the stream is only a view of it.
pub(super) fn invoke(host: Arc<Host>, begun: Begun, invocation: Invocation) -> Answers<InvokeSandboxEvent> {
    let (live, lines) = mpsc::channel(LINES);
    let (answer, wait) = oneshot::channel();
    let host_id = host.id.clone();
    tokio::spawn(async move {
        // An error means that the caller has left.
        let _ = answer.send(invoke::run(host, begun, invocation, Some(live)).await);
    });
    let lines =
        ReceiverStream::new(lines).map(move |line: Line| Ok(event(Event::Log(line.on_wire(&host_id)))));
    // The line channel closes when the invocation is over, so the end comes after the last line.
    let end = futures::stream::once(async move {
        match wait.await {
            Ok(Ok(response)) => Ok(event(Event::End(without_tail(response)))),
            Ok(Err(error)) => Err(Status::from(WireError::from(error))),
            Err(_) => Err(Status::internal("the invocation's task ended")),
        }
    });
    Box::pin(lines.chain(end))
}

fn event(event: Event) -> InvokeSandboxEvent {
    InvokeSandboxEvent { event: Some(event) }
}

/// Whoever streams has had every line already.
fn without_tail(mut response: InvokeSandboxResponse) -> InvokeSandboxResponse {
    response.log_tail.clear();
    response
}
