//! The Runtime API.

use super::answer::{Answer, accepted, bytes, error as refuse, gone, set, text};
use super::body::{Broken, Whole, read};
use crate::core::{Answer as EventAnswer, Fault, Machine, Who};
use crate::serve::HostEvent;
use crate::serve::supervisor::{Delivered, Supervisor};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};
use warren_vmm_protocol::guest::{InitFailure, SandboxKind};

/// Most bytes of a response, and of an error's document.
const RESPONSE_MAX: usize = 6 << 20;
const ERROR_MAX: usize = 1 << 20;
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";

/// `GET /runtime/invocation/next`: answered when there is an event.
pub(super) async fn next(supervisor: &Supervisor) -> Answer {
    let waiting = supervisor.wait(Who::Runtime);
    if let Err(refusal) = supervisor.feed(Machine::runtime_next) {
        return refusal.into();
    }
    let Ok(Delivered::Event { event, deadline_unix_ms }) = waiting.await else { return gone() };
    let HostEvent { request_id, invoked_arn, trace_id, client_context, identity, payload, .. } = &*event;
    let mut answer = bytes(StatusCode::OK, "application/json", payload.clone());
    set(&mut answer, "lambda-runtime-aws-request-id", request_id);
    set(&mut answer, "lambda-runtime-deadline-ms", &deadline_unix_ms.to_string());
    let own = supervisor.config().function_arn.as_str();
    set(&mut answer, "lambda-runtime-invoked-function-arn", invoked_arn.as_deref().unwrap_or(own));
    for (name, value) in [
        ("lambda-runtime-trace-id", trace_id),
        ("lambda-runtime-client-context", client_context),
        ("lambda-runtime-cognito-identity", identity),
    ] {
        if let Some(value) = value {
            set(&mut answer, name, value);
        }
    }
    answer
}

/// `POST /runtime/invocation/ID/response`, whole or as a stream.
///
/// A stream is taken as it comes and kept until its end: the host's messages know whole answers only. So its bound is that of
/// a whole answer, and its first bytes reach the client with its last.
pub(super) async fn response(supervisor: &Supervisor, id: &str, request: Request<Incoming>) -> Answer {
    const TO: &str = "InvocationResponse";
    let mode = header(request.headers(), RESPONSE_MODE).unwrap_or_default();
    if !["", "buffered", "streaming"].contains(&mode.to_ascii_lowercase().as_str()) {
        let text = format!("{mode:?} is no response mode");
        return refuse(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", &text);
    }
    if let Err(refusal) = supervisor.feed(|machine, _| machine.may_answer(id, TO)) {
        return refusal.into();
    }
    let (answer, reply) = match read(request.into_body(), RESPONSE_MAX).await {
        Ok(Whole { bytes, trailers }) => (finished(bytes, &trailers), accepted()),
        Err(Broken::TooLarge) => {
            let text = format!("Exceeded maximum allowed payload size ({RESPONSE_MAX} bytes).");
            let reply = refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text);
            (EventAnswer::TooLarge { most: RESPONSE_MAX }, reply)
        }
        Err(Broken::Truncated) => return truncated(),
    };
    match supervisor.feed(|machine, _| machine.answer(id, answer, TO)) {
        Ok(()) => reply,
        Err(refusal) => refusal.into(),
    }
}

/// A stream that broke in its middle says so behind its end.
fn finished(bytes: bytes::Bytes, trailers: &HeaderMap) -> EventAnswer {
    let Some(error_type) = header(trailers, ERROR_TYPE) else { return EventAnswer::Response(bytes) };
    let document = header(trailers, "lambda-runtime-function-error-body").unwrap_or_default();
    let body = super::base64::decode(&document).unwrap_or_else(|| document.into_bytes());
    EventAnswer::Error { error_type, body: body.into() }
}

/// `POST /runtime/invocation/ID/error`.
pub(super) async fn error(supervisor: &Supervisor, id: &str, request: Request<Incoming>) -> Answer {
    const TO: &str = "InvocationErrorResponse";
    if let Err(refusal) = supervisor.feed(|machine, _| machine.may_answer(id, TO)) {
        return refusal.into();
    }
    let error_type = header(request.headers(), ERROR_TYPE).unwrap_or_else(|| "Runtime.Unknown".to_owned());
    let body = match read(request.into_body(), ERROR_MAX).await {
        Ok(whole) => whole.bytes,
        Err(Broken::TooLarge) => bytes::Bytes::new(),
        Err(Broken::Truncated) => return truncated(),
    };
    let answer = EventAnswer::Error { error_type, body };
    match supervisor.feed(|machine, _| machine.answer(id, answer, TO)) {
        Ok(()) => accepted(),
        Err(refusal) => refusal.into(),
    }
}

/// `POST /runtime/init/error`.
pub(super) async fn init_error(supervisor: &Supervisor, request: Request<Incoming>) -> Answer {
    // Of a sandbox that is to be written down the runtime also says when: before that, or in init.
    let named_first = supervisor.config().kind == SandboxKind::Snapshot;
    let fault = match fault(request, InitFailure::Runtime, named_first).await {
        Ok(fault) => fault,
        Err(answer) => return *answer,
    };
    match supervisor.feed(|machine, now| machine.runtime_init_error(now, &fault)) {
        Ok(()) => accepted(),
        Err(refusal) => refusal.into(),
    }
}

/// `GET /runtime/restore/next`: answered when the sandbox was restored.
pub(super) async fn restore_next(supervisor: &Supervisor) -> Answer {
    let waiting = supervisor.wait(Who::Runtime);
    if let Err(refusal) = supervisor.feed(Machine::restore_next) {
        return refusal.into();
    }
    match waiting.await {
        Ok(Delivered::Restored) => text(StatusCode::OK, ""),
        _ => gone(),
    }
}

/// `POST /runtime/restore/error`.
pub(super) async fn restore_error(supervisor: &Supervisor, request: Request<Incoming>) -> Answer {
    let fault = match fault(request, InitFailure::Restore, true).await {
        Ok(fault) => fault,
        Err(answer) => return *answer,
    };
    match supervisor.feed(|machine, now| machine.restore_error(now, &fault)) {
        Ok(()) => accepted(),
        Err(refusal) => refusal.into(),
    }
}

/// What a runtime says of its failure: its name stands in a header and in the document. They may be two, where the header says when
/// it happened and the document what.
async fn fault(
    request: Request<Incoming>,
    failure: InitFailure,
    named_first: bool,
) -> Result<Fault, Box<Answer>> {
    let named = header(request.headers(), ERROR_TYPE);
    let body = match read(request.into_body(), ERROR_MAX).await {
        Ok(whole) => whole.bytes,
        Err(Broken::TooLarge) => bytes::Bytes::new(),
        Err(Broken::Truncated) => return Err(Box::new(truncated())),
    };
    let document = crate::serve::Document::read(&body);
    let said = Some(document.error_type.as_ref()).filter(|kind| !kind.is_empty());
    let mut message = document.error_message.clone().into_owned();
    let error_type = match (said, named) {
        (Some(said), Some(named)) if named_first && said != named => {
            message = format!("{said}: {message}");
            named
        }
        (Some(said), _) => said.to_owned(),
        (None, named) => named.unwrap_or_else(|| "Runtime.Unknown".to_owned()),
    };
    Ok(Fault { body: body.clone(), ..Fault::new(failure, &error_type, message) })
}

fn truncated() -> Answer {
    refuse(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "HTTP request detected as truncated")
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
