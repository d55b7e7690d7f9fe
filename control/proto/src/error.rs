//! Typed errors on the wire: a gRPC status whose `google.rpc.ErrorInfo` says the reason and whose fault it is.

use core::time::Duration;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "warren.v1";
/// Metadata key: `caller`, `function`, `throttle` or `system`.
pub const FAULT_KEY: &str = "fault";
/// Metadata key: `true` if the same call may succeed when sent again.
pub const RETRYABLE_KEY: &str = "retryable";

/// Metadata keys of a function's own error, named as in AWS Lambda's document of it.
pub const ERROR_TYPE_KEY: &str = "errorType";
/// The same: its text.
pub const ERROR_MESSAGE_KEY: &str = "errorMessage";
/// Most bytes of each of the two.
const SAID_MAX: usize = 1024;
/// Most bytes of a reason, as `google.rpc.ErrorInfo` has it.
const REASON_MAX: usize = 63;
/// Most bytes of a message. A status travels in trailers, the message twice: each byte as three at the worst, and again in the details, as
/// Base64. Clients of HTTP/2 take 16 KiB of trailers; of more they see a broken stream, and no error of ours.
pub const MESSAGE_MAX: usize = 2560;
/// Of a longer one, this much of its beginning is left; the rest is its end, where a VMM's last words are.
const MESSAGE_HEAD: usize = 640;
const LEFT_OUT: &str = " [...] ";

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request.
    Caller,
    /// The function's code.
    Function,
    /// A limit.
    Throttle,
    /// Warren or the machine.
    System,
}

impl Fault {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Function => "function",
            Self::Throttle => "throttle",
            Self::System => "system",
        }
    }

    /// The fault with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Caller, Self::Function, Self::Throttle, Self::System]
            .into_iter()
            .find(|fault| fault.name() == name)
    }
}

/// What a function says of its own error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `ValueError`, `Runtime.ExitError`, `Sandbox.Timedout`.
    pub error_type: String,
    /// Its text, cut at 1 KiB.
    pub error_message: String,
}

/// One error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// gRPC code.
    pub code: Code,
    /// UPPER_SNAKE reason, stable, e.g. `FUNCTION_TIMED_OUT`.
    pub reason: String,
    /// Whose fault.
    pub fault: Fault,
    /// Whether the same call may succeed when sent again.
    pub retryable: bool,
    /// When to try again, if known.
    pub retry_after: Option<Duration>,
    /// A sentence for a person, with the next step in it.
    pub message: String,
    /// What the function itself says, if it says something.
    pub said: Option<Said>,
}

impl WireError {
    /// A new error that is not worth retrying.
    #[must_use]
    pub fn new(code: Code, reason: &str, fault: Fault, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            fault,
            retryable: false,
            retry_after: None,
            message: message.into(),
            said: None,
        }
    }

    /// Says that the same call may succeed when sent again, and when.
    #[must_use]
    pub fn retryable(mut self, after: Option<Duration>) -> Self {
        self.retryable = true;
        self.retry_after = after;
        self
    }

    /// Adds what the function itself says.
    #[must_use]
    pub fn said(mut self, error_type: &str, error_message: &str) -> Self {
        self.said = Some(Said {
            error_type: cut(error_type, SAID_MAX).to_owned(),
            error_message: cut(error_message, SAID_MAX).to_owned(),
        });
        self
    }

    /// Reads the details back out of a status; a status of another origin becomes a system error.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let meta = |key: &str| info.and_then(|info| info.metadata.get(key)).map(String::as_str);
        let transport = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        Self {
            code: status.code(),
            reason: info.map_or_else(|| "UNSPECIFIED".to_owned(), |info| info.reason.clone()),
            fault: meta(FAULT_KEY).and_then(Fault::from_name).unwrap_or(Fault::System),
            retryable: meta(RETRYABLE_KEY).map_or(transport, |text| text == "true"),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            message: status.message().to_owned(),
            said: meta(ERROR_TYPE_KEY).map(|error_type| Said {
                error_type: error_type.to_owned(),
                error_message: meta(ERROR_MESSAGE_KEY).unwrap_or_default().to_owned(),
            }),
        }
    }
}

/// Whatever an error's parts are, the status fits a client's trailers.
impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        let mut metadata = HashMap::from([
            (FAULT_KEY.to_owned(), error.fault.name().to_owned()),
            (RETRYABLE_KEY.to_owned(), error.retryable.to_string()),
        ]);
        if let Some(said) = error.said {
            metadata.insert(ERROR_TYPE_KEY.to_owned(), cut(&said.error_type, SAID_MAX).to_owned());
            metadata.insert(ERROR_MESSAGE_KEY.to_owned(), cut(&said.error_message, SAID_MAX).to_owned());
        }
        let reason = cut(&error.reason, REASON_MAX);
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        if let Some(after) = error.retry_after {
            details.set_retry_info(Some(after));
        }
        Self::with_error_details(error.code, bounded(error.message), details)
    }
}

fn bounded(message: String) -> String {
    if message.len() <= MESSAGE_MAX {
        return message;
    }
    let tail = message.len() - (MESSAGE_MAX - MESSAGE_HEAD - LEFT_OUT.len());
    let tail = message.get(message.ceil_char_boundary(tail)..).unwrap_or_default();
    [cut(&message, MESSAGE_HEAD), LEFT_OUT, tail].concat()
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_wire() {
        let error = WireError::new(
            Code::ResourceExhausted,
            "CONCURRENCY_LIMIT",
            Fault::Throttle,
            "at its limit of 3",
        )
        .retryable(Some(Duration::from_millis(250)));
        assert_eq!(WireError::from_status(&Status::from(error.clone())), error);
        let long = "\u{e9}".repeat(SAID_MAX);
        let error =
            WireError::new(Code::Unknown, "FUNCTION_FAILED", Fault::Function, "no").said("ValueError", &long);
        assert_eq!(error.said.as_ref().map(|said| said.error_message.len()), Some(SAID_MAX));
        assert_eq!(WireError::from_status(&Status::from(error.clone())), error);
    }

    /// Also what a worker made up: everything too long, of characters that cost most.
    #[test]
    fn fits_a_clients_trailers() {
        let long = |end: &str| "\u{1f573}".repeat(1 << 18) + end;
        let mut error = WireError::new(Code::Unknown, &long(""), Fault::System, long("the last words"))
            .retryable(Some(Duration::MAX));
        error.said = Some(Said { error_type: long(""), error_message: long("") });
        let status = Status::from(error);
        assert!(status.message().len() <= MESSAGE_MAX && status.message().ends_with("the last words"));
        let trailers = status.into_http::<()>().into_parts().0.headers;
        // As HPACK counts them (RFC 7541, 4.1), and room for what a server adds.
        let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes <= (16 << 10) - 512, "{bytes} bytes of trailers");
    }
}
