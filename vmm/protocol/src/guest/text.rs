//! Bounded text: what holds it has checked it.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Why a value cannot be what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More bytes, or more entries, than may be.
    TooLong {
        /// How many may be.
        most: usize,
    },
    /// A NUL, which no program's arguments or environment can hold.
    Nul,
    /// Not `[A-Za-z_][A-Za-z0-9_]*`.
    Name,
    /// A number outside its range.
    Range {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong { most } => write!(f, "longer than {most}"),
            Self::Nul => f.write_str("contains a NUL"),
            Self::Name => f.write_str("is not the name of an environment variable"),
            Self::Range { least, most } => write!(f, "is not between {least} and {most}"),
        }
    }
}

impl core::error::Error for Refused {}

/// Text of at most `MOST` bytes, without NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MOST: usize>(String);

impl<const MOST: usize> Text<MOST> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As much of a text as fits: NULs become spaces, what is too long is cut between two characters.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        let mut end = text.len().min(MOST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text.get(..end).unwrap_or_default().replace('\0', " "))
    }
}

impl<const MOST: usize> TryFrom<String> for Text<MOST> {
    type Error = Refused;

    fn try_from(text: String) -> Result<Self, Refused> {
        match text {
            long if long.len() > MOST => Err(Refused::TooLong { most: MOST }),
            text if text.contains('\0') => Err(Refused::Nul),
            text => Ok(Self(text)),
        }
    }
}

impl<const MOST: usize> TryFrom<&str> for Text<MOST> {
    type Error = Refused;

    fn try_from(text: &str) -> Result<Self, Refused> {
        Self::try_from(String::from(text))
    }
}

impl<const MOST: usize> From<Text<MOST>> for String {
    fn from(text: Text<MOST>) -> Self {
        text.0
    }
}

impl<const MOST: usize> core::fmt::Display for Text<MOST> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Environment variables: at most [`Environment::MAX_ENTRIES`], together at most [`Environment::MAX_BYTES`], each with a name
/// that a shell takes. Of a name that comes twice the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Most variables.
    pub const MAX_ENTRIES: usize = 512;
    /// Most bytes of all names and values. Lambda gives a function 4 KiB of its own; the rest is for credentials.
    pub const MAX_BYTES: usize = 32 << 10;

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<Vec<(String, String)>> for Environment {
    type Error = Refused;

    fn try_from(entries: Vec<(String, String)>) -> Result<Self, Refused> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(Refused::TooLong { most: Self::MAX_ENTRIES });
        }
        let mut left = Self::MAX_BYTES;
        for (name, value) in &entries {
            let bytes = name.len().saturating_add(value.len());
            left = left.checked_sub(bytes).ok_or(Refused::TooLong { most: Self::MAX_BYTES })?;
            if value.contains('\0') {
                return Err(Refused::Nul);
            }
            let mut letters = name.bytes();
            let first = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            if !(first && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')) {
                return Err(Refused::Name);
            }
        }
        Ok(Self(entries))
    }
}

impl From<Environment> for Vec<(String, String)> {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}
