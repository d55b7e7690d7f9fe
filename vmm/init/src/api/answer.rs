//! Answers as Lambda gives them.

use crate::core::Refusal;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// An answer's whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// Bytes of a kind.
pub(super) fn bytes(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A document.
pub(super) fn document(status: StatusCode, document: &Value) -> Answer {
    bytes(status, "application/json", document.to_string().into())
}

/// Plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Answer {
    bytes(status, "text/plain", Bytes::from_static(text.as_bytes()))
}

/// Taken.
pub(super) fn accepted() -> Answer {
    document(StatusCode::ACCEPTED, &json!({ "status": "OK" }))
}

/// An error by type and text.
pub(super) fn error(status: StatusCode, error_type: &str, message: &str) -> Answer {
    document(status, &json!({ "errorMessage": message, "errorType": error_type }))
}

/// No such path.
pub(super) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The program was not meant to wait any more: another request of its took its place, or it is ending.
pub(super) fn gone() -> Answer {
    error(StatusCode::GONE, "Sandbox.Gone", "another request took the place of this one")
}

/// Sets a header whose value comes from outside; one that cannot be a value is left out.
pub(super) fn set(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (error_type, text) = match refusal {
            Refusal::RequestId => {
                return error(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID");
            }
            Refusal::RuntimeState { from, to } => (
                "InvalidStateTransition",
                format!(
                    "State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"
                ),
            ),
            Refusal::ExtensionState => {
                ("Extension.InvalidExtensionState", "not allowed in its state".to_owned())
            }
            Refusal::RegistrationClosed => {
                ("Extension.RegistrationClosed", "Extension registration closed already".to_owned())
            }
            Refusal::NameTaken => {
                ("Extension.InvalidExtensionState", "Extension with this name already registered".to_owned())
            }
            Refusal::TooManyExtensions => {
                let most = crate::core::EXTENSIONS_MAX;
                ("Extension.TooManyExtensions", format!("Extension limit ({most}) reached"))
            }
            Refusal::EventType => (
                "Extension.InvalidEventType",
                "SHUTDOWN: event is not available for internal extensions".to_owned(),
            ),
            Refusal::UnknownExtension => {
                ("Extension.UnknownExtensionIdentifier", "Unknown extension".to_owned())
            }
        };
        error(StatusCode::FORBIDDEN, error_type, &text)
    }
}
