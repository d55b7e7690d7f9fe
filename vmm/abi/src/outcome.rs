//! How an event can end, as one closed list both sides know.

use serde::{Deserialize, Serialize};

/// Why a function gave no response. All of these are the function's own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u32)]
pub enum FunctionError {
    /// A Wasm trap (unreachable, out-of-bounds access, division by zero, ...).
    Trap = 1,
    /// Memory growth was refused at the function's limit, and the function then gave up.
    OutOfMemory = 2,
    /// Wasm recursion ran out of stack.
    StackOverflow = 3,
    /// `proc_exit` with a code other than 0.
    Exit = 4,
    /// The response is larger than the limit.
    ResponseTooLarge = 5,
    /// The function answered with an error of its own (the component world's `err`).
    Handler = 6,
    /// The module imports something its world does not offer.
    MissingImport = 7,
    /// The module lacks the export its world demands.
    MissingExport = 8,
    /// Instantiation or `init` failed for another reason.
    Init = 9,
}

impl FunctionError {
    /// Every variant.
    pub const ALL: [Self; 9] = [
        Self::Trap,
        Self::OutOfMemory,
        Self::StackOverflow,
        Self::Exit,
        Self::ResponseTooLarge,
        Self::Handler,
        Self::MissingImport,
        Self::MissingExport,
        Self::Init,
    ];

    /// The variant with this number, if there is one.
    #[must_use]
    pub fn from_u32(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == raw)
    }

    /// A short stable name for logs, metrics and API details.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::OutOfMemory => "out-of-memory",
            Self::StackOverflow => "stack-overflow",
            Self::Exit => "exit",
            Self::ResponseTooLarge => "response-too-large",
            Self::Handler => "handler",
            Self::MissingImport => "missing-import",
            Self::MissingExport => "missing-export",
            Self::Init => "init",
        }
    }
}
