//! Roles, and how a certificate names them.

use crate::IdentityError;
use std::fmt;

const CONTROL_URI: &str = "warren://control";
const WORKER_URI: &str = "warren://worker/";

/// A worker host's name: 1 to 63 characters of `[a-z0-9-]`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(String);

impl HostId {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, IdentityError> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=63).contains(&name.len())
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|byte| plain(byte) || byte == b'-');
        if fits { Ok(Self(name)) } else { Err(IdentityError::HostId(name)) }
    }

    /// The nearest valid name to any text, for instance to this machine's own.
    #[must_use]
    pub fn from_any(text: &str) -> Self {
        let mapped: String = text
            .trim()
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(63)
            .collect();
        let name = mapped.trim_matches('-');
        Self(if name.is_empty() { "local".to_owned() } else { name.to_owned() })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A local service that has certificate files of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `warren-control`.
    Control,
    /// `warren-agent`.
    Agent,
}

impl Service {
    /// The stem of its files: `<stem>.pem`, `<stem>.key`.
    #[must_use]
    pub const fn stem(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Agent => "agent",
        }
    }
}

/// A role that a certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The control layer.
    Control,
    /// One worker host.
    Worker(HostId),
}

impl Peer {
    /// The URI in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Control => CONTROL_URI.to_owned(),
            Self::Worker(host) => format!("{WORKER_URI}{host}"),
        }
    }

    /// The role that a certificate's URI names.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        if uri == CONTROL_URI {
            return Some(Self::Control);
        }
        HostId::new(uri.strip_prefix(WORKER_URI)?).ok().map(Self::Worker)
    }

    /// The DNS name in the certificate, which clients demand of the server they connect to.
    #[must_use]
    pub fn server_name(&self) -> String {
        match self {
            Self::Control => "control.warren.internal".to_owned(),
            Self::Worker(host) => format!("{host}.worker.warren.internal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ids_are_checked() {
        for good in ["a", "0", "host-1", &"x".repeat(63)] {
            assert!(HostId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(HostId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_text_becomes_a_host_id() {
        for (text, id) in [("Vm_1.example", "vm-1-example"), ("", "local"), ("---", "local"), (" a ", "a")] {
            assert_eq!(HostId::from_any(text).as_str(), id);
            assert!(HostId::new(id).is_ok());
        }
    }

    #[test]
    fn roles_survive_their_uri() {
        for peer in [Peer::Control, Peer::Worker(HostId::from_any("h1"))] {
            assert_eq!(Peer::from_uri(&peer.uri()), Some(peer));
        }
        for other in ["warren://worker/", "warren://worker/A", "warren://control/x", "https://control", ""] {
            assert_eq!(Peer::from_uri(other), None, "{other}");
        }
    }
}
