//! The Telemetry API, and what is left of the Logs API.

use super::answer::{Answer, bytes, error};
use super::body::read;
use super::extension::identify;
use crate::serve::supervisor::Supervisor;
use crate::telemetry::subscription::Subscription;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::Value;

const BODY_MAX: usize = 64 << 10;

/// `PUT /telemetry`.
pub(super) async fn subscribe(supervisor: &Supervisor, request: Request<Incoming>) -> Answer {
    let id = match identify(supervisor, request.headers()) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    if !supervisor.feed(|machine, _| machine.takes_subscriptions()) {
        let text = "Telemetry API subscription is closed";
        return error(StatusCode::FORBIDDEN, "Telemetry.SubscriptionClosed", text);
    }
    let Ok(whole) = read(request.into_body(), BODY_MAX).await else {
        return error(StatusCode::BAD_REQUEST, "ValidationError", "the body is too large or cut short");
    };
    match Subscription::read(&whole.bytes) {
        Ok(subscription) => {
            let types = serde_json::from_slice::<Value>(&whole.bytes)
                .ok()
                .and_then(|request| request.get("types").cloned())
                .unwrap_or_default();
            supervisor.subscribe(id, subscription, &types);
            bytes(StatusCode::OK, "application/json", Bytes::from_static(b"\"OK\""))
        }
        Err(why) => error(StatusCode::BAD_REQUEST, "ValidationError", &why),
    }
}

/// The Telemetry API took the Logs API's place. As where Lambda itself does not offer it: taken, and nothing comes.
pub(super) fn logs() -> Answer {
    error(StatusCode::ACCEPTED, "Logs.NotSupported", "Logs API is not supported")
}
