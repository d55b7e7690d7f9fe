//! Identifiers that become file and cgroup names.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most bytes of a name.
pub const NAME_MAX: usize = 40;

/// A sandbox's name: 1 to [`NAME_MAX`] bytes of ASCII `[a-z0-9-]`, beginning with a letter or digit.
///
/// Holding one proves that it can be one path component and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

/// Why text is no [`SandboxName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

impl core::fmt::Display for NameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a name is 1 to {NAME_MAX} characters of a-z, 0-9 and -, and does not begin with -")
    }
}

impl core::error::Error for NameError {}

impl SandboxName {
    /// Checks and wraps.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        match text.as_bytes() {
            [first, ..] if *first != b'-' && text.len() <= NAME_MAX && text.bytes().all(allowed) => {
                Ok(Self(text))
            }
            _ => Err(NameError),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SandboxName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

impl core::fmt::Display for SandboxName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for good in ["a", "0", "sbx-01", "a-"] {
            assert!(SandboxName::new(good).is_ok(), "{good:?}");
        }
        let long = "a".repeat(NAME_MAX + 1);
        for bad in ["", "-a", "A", "a/b", "..", "a.b", "a b", "ä", "a\0", &long] {
            assert_eq!(SandboxName::new(bad), Err(NameError), "{bad:?}");
        }
    }
}
