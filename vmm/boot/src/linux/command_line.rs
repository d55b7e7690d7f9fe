//! The kernel's command line.

use alloc::string::String;

/// Most bytes, without the terminator: what every kernel for x86 takes (`COMMAND_LINE_SIZE` 2048).
pub const COMMAND_LINE_MAX: usize = 2047;

/// A command line that can be handed to a kernel: printable ASCII, not too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(String);

/// Why text is none; the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// Too long.
    #[error("the command line has {len} bytes, {max} are allowed", max = COMMAND_LINE_MAX)]
    TooLong {
        /// How long.
        len: usize,
    },
    /// Something that is not printable ASCII.
    #[error("byte {at} of the command line is {byte:#04x}, which is not printable ASCII")]
    Unprintable {
        /// Where.
        at: usize,
        /// What.
        byte: u8,
    },
}

impl CommandLine {
    /// Checks and wraps.
    pub fn new(text: impl Into<String>) -> Result<Self, CommandLineError> {
        let text = text.into();
        if text.len() > COMMAND_LINE_MAX {
            return Err(CommandLineError::TooLong { len: text.len() });
        }
        match text.bytes().enumerate().find(|(_, byte)| !(0x20..0x7F).contains(byte)) {
            Some((at, byte)) => Err(CommandLineError::Unprintable { at, byte }),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        assert!(CommandLine::new("").is_ok());
        assert!(CommandLine::new("console=ttyS0 root=/dev/vda x=\"a b\"").is_ok());
        assert!(CommandLine::new("a".repeat(COMMAND_LINE_MAX)).is_ok());
        assert_eq!(CommandLine::new("a".repeat(2048)), Err(CommandLineError::TooLong { len: 2048 }));
        for (text, at, byte) in [("a\0b", 1, 0), ("\n", 0, b'\n'), ("ä", 0, 0xC3), ("xx\x7F", 2, 0x7F)] {
            assert_eq!(CommandLine::new(text), Err(CommandLineError::Unprintable { at, byte }), "{text:?}");
        }
    }
}
