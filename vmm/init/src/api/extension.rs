//! The Extensions API.

use super::answer::{Answer, accepted, document, error as refuse, gone, set};
use super::body::read;
use crate::core::{ExtensionId, Fault, Refusal, Subscription, Who};
use crate::serve::supervisor::{Delivered, Supervisor};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use warren_vmm_protocol::guest::InitFailure;

const BODY_MAX: usize = 256 << 10;
const NAME: &str = "lambda-extension-name";
const IDENTIFIER: &str = "lambda-extension-identifier";
const EVENT_IDENTIFIER: &str = "lambda-extension-event-identifier";
const ERROR_TYPE: &str = "lambda-extension-function-error-type";
const ACCEPT_FEATURE: &str = "lambda-extension-accept-feature";

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    events: Vec<String>,
}

/// `POST /extension/register`.
pub(super) async fn register(supervisor: &Supervisor, request: Request<Incoming>) -> Answer {
    let Some(name) = header(request.headers(), NAME).filter(|name| !name.is_empty()) else {
        return forbidden("Extension.InvalidExtensionName", "Empty extension name");
    };
    let wants_account = header(request.headers(), ACCEPT_FEATURE)
        .is_some_and(|features| features.split(',').any(|feature| feature.trim() == "accountId"));
    let Ok(whole) = read(request.into_body(), BODY_MAX).await else {
        return forbidden("InvalidRequestFormat", "the body is too large or cut short");
    };
    let registration: Registration = match serde_json::from_slice(&whole.bytes) {
        Ok(registration) => registration,
        Err(error) => return forbidden("InvalidRequestFormat", &error.to_string()),
    };
    let mut subscription = Subscription::default();
    for event in &registration.events {
        match event.as_str() {
            "INVOKE" => subscription.invoke = true,
            "SHUTDOWN" => subscription.shutdown = true,
            other => return forbidden("Extension.InvalidEventType", &format!("{other}: invalid event type")),
        }
    }
    let id = match supervisor.feed(|machine, _| machine.register(&name, subscription)) {
        Ok((id, _)) => id,
        Err(refusal) => return refusal.into(),
    };
    let identifier = supervisor.identify(id);
    let config = supervisor.config();
    let mut about = json!({
        "functionName": config.function.as_str(),
        "functionVersion": config.function_version.as_str(),
        "handler": config.handler.as_str(),
    });
    if let (true, Some(about)) = (wants_account, about.as_object_mut()) {
        about.insert("accountId".to_owned(), config.account.as_str().into());
    }
    supervisor.feed(crate::core::Machine::registered);
    let mut answer = document(StatusCode::OK, &about);
    set(&mut answer, IDENTIFIER, &identifier);
    answer
}

/// `GET /extension/event/next`: answered when there is one.
pub(super) async fn next(supervisor: &Supervisor, headers: &HeaderMap) -> Answer {
    let id = match identify(supervisor, headers) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    let waiting = supervisor.wait(Who::Extension(id));
    if let Err(refusal) = supervisor.feed(|machine, now| machine.extension_next(now, id)) {
        return refusal.into();
    }
    let event = match waiting.await {
        Ok(Delivered::Event { event, deadline_unix_ms }) => {
            let own = supervisor.config().function_arn.as_str();
            let mut told = json!({
                "eventType": "INVOKE",
                "deadlineMs": deadline_unix_ms,
                "requestId": event.request_id,
                "invokedFunctionArn": event.invoked_arn.as_deref().unwrap_or(own),
            });
            if let (Some(trace), Some(told)) = (&event.trace_id, told.as_object_mut()) {
                told.insert("tracing".to_owned(), json!({ "type": "X-Amzn-Trace-Id", "value": trace }));
            }
            told
        }
        Ok(Delivered::Shutdown { reason, deadline_unix_ms }) => {
            json!({ "eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_unix_ms })
        }
        Ok(Delivered::Restored) | Err(_) => return gone(),
    };
    let mut answer = document(StatusCode::OK, &event);
    set(&mut answer, EVENT_IDENTIFIER, &crate::serve::identifier());
    answer
}

/// `POST /extension/init/error` and `POST /extension/exit/error`.
pub(super) async fn error(supervisor: &Supervisor, when: &str, request: Request<Incoming>) -> Answer {
    let id = match identify(supervisor, request.headers()) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    let Some(said) = header(request.headers(), ERROR_TYPE) else {
        return forbidden("Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found");
    };
    let bytes = read(request.into_body(), BODY_MAX).await.map(|whole| whole.bytes).unwrap_or_default();
    let message = crate::serve::Document::read(&bytes).error_message.into_owned();
    let error_type = if when == "init" { "Extension.InitError" } else { "Extension.ExitError" };
    let fault = Fault::new(InitFailure::Extension, error_type, format!("{said}: {message}"));
    match supervisor.feed(|machine, now| machine.extension_error(now, id, &fault)) {
        Ok(()) => accepted(),
        Err(refusal) => refusal.into(),
    }
}

/// Which extension asks, or what it lacks.
pub(super) fn identify(supervisor: &Supervisor, headers: &HeaderMap) -> Result<ExtensionId, Box<Answer>> {
    let Some(identifier) = header(headers, IDENTIFIER).filter(|identifier| !identifier.is_empty()) else {
        let text = "Missing Lambda-Extension-Identifier header";
        return Err(Box::new(forbidden("Extension.MissingExtensionIdentifier", text)));
    };
    supervisor.identified(&identifier).ok_or_else(|| Box::new(Refusal::UnknownExtension.into()))
}

fn forbidden(error_type: &str, message: &str) -> Answer {
    refuse(StatusCode::FORBIDDEN, error_type, message)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
