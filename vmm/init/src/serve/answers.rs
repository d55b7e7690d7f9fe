//! How the end of an event, or of init, is said to the host. Pure.

use crate::core::{Answer, Fault};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use warren_vmm_protocol::guest::{DETAIL_MAX, InitError, InitFailure, Text};
use warren_vmm_protocol::{FunctionError, Outcome};

/// An error's document, as runtimes post it and as clients get it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Document<'a> {
    /// Its type.
    pub(crate) error_type: Cow<'a, str>,
    /// Its text.
    pub(crate) error_message: Cow<'a, str>,
}

impl<'a> Document<'a> {
    /// Reads one; what is not there is empty.
    pub(crate) fn read(body: &'a [u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn line(&self) -> String {
        Text::<DETAIL_MAX>::cut(&format!("{}: {}", self.error_type, self.error_message)).into()
    }
}

/// The outcome and the payload that follows it.
pub(crate) fn outcome(request_id: &str, answer: Answer) -> (Outcome, Bytes) {
    let function = |error, exit_code, document: &Document<'_>, payload| {
        (Outcome::Function { error, exit_code, detail: document.line() }, payload)
    };
    match answer {
        Answer::Response(body) => (Outcome::Response, body),
        Answer::TimedOut => (Outcome::TimedOut, Bytes::new()),
        Answer::Stopped => (Outcome::Stopped, Bytes::new()),
        Answer::Error { error_type, body } => {
            let mut document = Document::read(&body);
            if document.error_type.is_empty() {
                document.error_type = error_type.into();
            }
            let payload = if body.is_empty() { document.bytes() } else { body.clone() };
            function(FunctionError::Handler, 0, &document, payload)
        }
        Answer::TooLarge { most } => {
            let document = Document {
                error_type: "Function.ResponseSizeTooLarge".into(),
                error_message: format!(
                    "Response payload size exceeded maximum allowed payload size ({most} bytes)."
                )
                .into(),
            };
            function(FunctionError::ResponseTooLarge, 0, &document, document.bytes())
        }
        Answer::Failed(fault) => {
            let error = match fault.failure {
                _ if fault.out_of_memory => FunctionError::OutOfMemory,
                InitFailure::Exited | InitFailure::Extension => FunctionError::Exit,
                _ => FunctionError::Init,
            };
            let exit_code = fault.exit_code.and_then(|code| u32::try_from(code).ok()).unwrap_or(0);
            let own = Document {
                error_type: fault.error_type.as_str().into(),
                error_message: format!("RequestId: {request_id} Error: {}", fault.message).into(),
            };
            let payload = if fault.body.is_empty() { own.bytes() } else { fault.body.clone() };
            let said = Document::read(&fault.body);
            let document = if said.error_type.is_empty() { own } else { said };
            function(error, exit_code, &document, payload)
        }
    }
}

/// A failed init.
pub(crate) fn init_error(fault: &Fault) -> InitError {
    InitError {
        failure: fault.failure,
        error_type: Text::cut(&fault.error_type),
        message: Text::cut(&fault.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Answer) -> String {
        let (outcome, payload) = outcome("r-1", answer);
        let (name, detail) = match outcome {
            Outcome::Function { error, exit_code, detail } => {
                (format!("{} {exit_code}", error.name()), detail)
            }
            other => (format!("{other:?}"), String::new()),
        };
        format!("{name} | {detail} | {}", String::from_utf8_lossy(&payload))
    }

    #[test]
    fn table() {
        let error = |error_type: &str, body: &'static str| Answer::Error {
            error_type: error_type.to_owned(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let fault = |failure, code| Fault {
            exit_code: code,
            ..Fault::new(failure, "Runtime.ExitError", "exit status 3".to_owned())
        };
        let made =
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: r-1 Error: exit status 3"}"#;
        let line = "Runtime.ExitError: RequestId: r-1 Error: exit status 3";
        for (answer, expect) in [
            (Answer::Response(Bytes::from_static(b"{}")), "Response |  | {}".to_owned()),
            (Answer::TimedOut, "TimedOut |  | ".to_owned()),
            (
                error("unhandled", r#"{"errorType":"ValueError","errorMessage":"no","stackTrace":[]}"#),
                r#"handler 0 | ValueError: no | {"errorType":"ValueError","errorMessage":"no","stackTrace":[]}"#
                    .to_owned(),
            ),
            (error("X", "not json"), "handler 0 | X:  | not json".to_owned()),
            (error("X", ""), r#"handler 0 | X:  | {"errorType":"X","errorMessage":""}"#.to_owned()),
            (Answer::Failed(fault(InitFailure::Exited, Some(3))), format!("exit 3 | {line} | {made}")),
            (Answer::Failed(fault(InitFailure::Exited, None)), format!("exit 0 | {line} | {made}")),
            (Answer::Failed(fault(InitFailure::Runtime, None)), format!("init 0 | {line} | {made}")),
        ] {
            assert_eq!(text(answer), expect);
        }
        assert!(text(Answer::TooLarge { most: 7 }).contains("maximum allowed payload size (7 bytes)."));
    }
}
