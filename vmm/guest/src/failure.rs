//! From a Wasmtime error to what the contract calls it.

use crate::limits::Limits;
use alloc::{format, string::String, string::ToString};
use core::{error::Error, fmt};
use warren_abi::outcome::FunctionError;
use warren_wasi::Halt;
use wasmtime::{Trap, WasmBacktrace};

/// How a function failed; all of these are its own fault.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which way.
    pub(crate) error: FunctionError,
    /// For [`FunctionError::Exit`].
    pub(crate) exit_code: u32,
    /// For people.
    pub(crate) detail: String,
}

/// A [`Halt`] on its way out through compiled code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Halted(pub(crate) Halt);

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Halt::Exit(code) => write!(f, "exit with code {code}"),
            Halt::ResponseTooLarge => f.write_str("the response is larger than 6 MiB"),
        }
    }
}

impl Error for Halted {}

impl Failure {
    pub(crate) fn new(error: FunctionError, detail: impl ToString) -> Self {
        Self { error, exit_code: 0, detail: detail.to_string() }
    }

    /// How a call that ended in `error` failed; none if it exited with code 0.
    pub(crate) fn of_call(error: &wasmtime::Error, limits: &Limits) -> Option<Self> {
        if let Some(Halted(halt)) = error.downcast_ref::<Halted>() {
            return match halt {
                Halt::Exit(0) => None,
                Halt::Exit(code) => {
                    Some(Self { error: FunctionError::Exit, exit_code: *code, detail: format!("exit code {code}") })
                }
                Halt::ResponseTooLarge => Some(Self::new(FunctionError::ResponseTooLarge, Halted(*halt))),
            };
        }
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => FunctionError::StackOverflow,
            // It asked for memory, did not get it, and gave up.
            _ if limits.refused() => FunctionError::OutOfMemory,
            _ => FunctionError::Trap,
        };
        let mut detail = match error.downcast_ref::<Trap>() {
            Some(trap) => format!("{trap}"),
            None => format!("{error:#}"),
        };
        if kind == FunctionError::OutOfMemory {
            detail = format!("memory limit of {} bytes reached; {detail}", limits.memory_limit());
        }
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            detail = format!("{detail}\n{backtrace}");
        }
        Some(Self::new(kind, detail))
    }

    /// How setting up failed.
    pub(crate) fn of_init(error: &wasmtime::Error, limits: &Limits) -> Self {
        let kind = if limits.refused() { FunctionError::OutOfMemory } else { FunctionError::Init };
        Self::new(kind, format!("{error:#}"))
    }
}
