//! An event as the host sends it, and as programs see it.

use bytes::Bytes;
use serde::Deserialize;
use warren_vmm_protocol::InvokeRequest;

/// What is read of an event's context (`warren_vmm_protocol::guest`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    request_id: Option<String>,
    deadline_unix_ms: Option<u64>,
    invoked_arn: Option<String>,
    trace_id: Option<String>,
    #[serde(rename = "client_context")]
    client: Option<String>,
    identity: Option<String>,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct HostEvent {
    /// What runtime, extensions and logs know it by.
    pub(crate) request_id: String,
    /// What it may take.
    pub(crate) timeout_ms: u32,
    /// The host's wall clock when it was sent.
    pub(crate) host_unix_ms: Option<u64>,
    /// By which name the function was called, if not its own.
    pub(crate) invoked_arn: Option<String>,
    /// The tracing header.
    pub(crate) trace_id: Option<String>,
    /// JSON of the caller's.
    pub(crate) client_context: Option<String>,
    /// JSON of an identity provider's.
    pub(crate) identity: Option<String>,
    /// The event itself.
    pub(crate) payload: Bytes,
}

impl HostEvent {
    /// Reads a request. A context that is no JSON object says nothing.
    pub(crate) fn new(request: &InvokeRequest, payload: Bytes) -> Self {
        let context: Context = serde_json::from_slice(&request.context).unwrap_or_default();
        let plain = request.id.split('/').next().unwrap_or_default();
        let named = context.request_id.filter(|id| is_id(id));
        Self {
            request_id: named.unwrap_or_else(|| if is_id(plain) { plain } else { "unnamed" }.to_owned()),
            timeout_ms: request.timeout_ms,
            host_unix_ms: context.deadline_unix_ms.map(|at| at.saturating_sub(request.timeout_ms.into())),
            invoked_arn: context.invoked_arn,
            trace_id: context.trace_id,
            client_context: context.client,
            identity: context.identity,
            payload,
        }
    }
}

/// It becomes part of a path and of headers.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let event = |id: &str, context: &str| {
            let request = InvokeRequest {
                id: id.to_owned(),
                timeout_ms: 3000,
                context: context.as_bytes().to_vec(),
                payload_len: 0,
            };
            HostEvent::new(&request, Bytes::new())
        };
        for (id, context, expect) in [
            ("r-1", "", "r-1"),
            ("r-1/7.9", "{}", "r-1"),
            ("r-1/7.9", r#"{"request_id":"abc","memory_mib":128}"#, "abc"),
            ("r-1", r#"{"request_id":"a/../b"}"#, "r-1"),
            ("a b", "[]", "unnamed"),
            ("", "{", "unnamed"),
        ] {
            assert_eq!(event(id, context).request_id, expect, "{id} {context}");
        }
        let event = event("r", r#"{"deadline_unix_ms":5000,"trace_id":"Root=1","invoked_arn":"arn:x"}"#);
        assert_eq!(event.host_unix_ms, Some(2000));
        assert_eq!(
            (event.trace_id.as_deref(), event.invoked_arn.as_deref()),
            (Some("Root=1"), Some("arn:x"))
        );
    }
}
