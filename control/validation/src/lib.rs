//! What clients ask and workers report, judged before anything is done for it.
//!
//! Pure, and of the messages alone: it deliberately knows no catalog, no fleet, no clock and no policy, so that fuzz targets can be built
//! over it without any of those. What only they can say (is there such a function, such a host) is asked by who has them.
//!
//! - What passes is within every bound that is named here; judged again, it is the same.
//! - What does not is refused by name. No refusal says back more than [`CLIP_CHARS`] characters of what came: it travels in a trailer.
//! - A worker of the fleet is no more believed than a client.
//!
//! Modules: [`function`] deploys, [`invoke`] invocations, [`operator`] what people look at, [`worker`] registrations and heartbeats.
#![forbid(unsafe_code)]

pub mod function;
pub mod invoke;
pub mod operator;
pub mod worker;

use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
};

/// Most characters of a request that its refusal says back.
pub const CLIP_CHARS: usize = 80;

/// Something is wrong with the request.
#[must_use]
pub fn bad_request(message: impl Into<String>) -> WireError {
    WireError::new(Code::InvalidArgument, reason::BAD_REQUEST, Fault::Caller, message)
}

/// Of somebody's text, as much as a refusal says back.
#[must_use]
pub fn clip(text: &str) -> &str {
    let end = text.char_indices().nth(CLIP_CHARS).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

/// A function's name: also a file's on every host.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || byte == b'-')
}

/// A blake3 digest, as all that has one is named.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What Warren or a client calls one invocation.
fn is_request_id(id: &str) -> bool {
    id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips() {
        assert_eq!((clip(""), clip("short")), ("", "short"));
        assert_eq!(clip(&"\u{e9}".repeat(100)), "\u{e9}".repeat(80));
    }
}
