//! From a Wasmtime error to what the contract calls it.

use crate::limits::Limits;
use alloc::{string::String, vec::Vec};
use core::{error::Error, fmt, fmt::Write as _};
use warren_abi::{mailbox::DETAIL_MAX, outcome::FunctionError};
use warren_wasi::Halt;
use wasmtime::{FrameInfo, OutOfMemory, Trap, WasmBacktrace};

/// Most frames looked at after a trap.
pub(crate) const FRAMES_MAX: usize = 256;
/// Most frames told.
const FRAMES_SHOWN: usize = 20;
/// Most functions that take part in what is called one recursion.
const RECURSION_FUNCTIONS: usize = 16;

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
    pub(crate) fn new(error: FunctionError, detail: impl fmt::Display) -> Self {
        Self { error, exit_code: 0, detail: bounded(format_args!("{detail}")) }
    }

    /// How a call that ended in `error` failed; none if it exited with code 0.
    pub(crate) fn of_call(error: &wasmtime::Error, limits: &Limits) -> Option<Self> {
        match error.downcast_ref::<Halted>() {
            Some(Halted(Halt::Exit(0))) => None,
            Some(Halted(Halt::Exit(code))) => Some(Self {
                exit_code: *code,
                ..Self::new(FunctionError::Exit, format_args!("exit code {code}"))
            }),
            Some(halted) => Some(Self::new(FunctionError::ResponseTooLarge, halted)),
            None => Some(Self::of_trap(error, limits, FunctionError::Trap)),
        }
    }

    /// How setting up an instance failed.
    pub(crate) fn of_init(error: &wasmtime::Error, limits: &Limits) -> Self {
        Self::of_trap(error, limits, FunctionError::Init)
    }

    fn of_trap(error: &wasmtime::Error, limits: &Limits, otherwise: FunctionError) -> Self {
        let trap = error.downcast_ref::<Trap>();
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
        let limit = limits.memory_limit();
        let root = error.root_cause();
        let what: &dyn fmt::Display = trap.map_or(&root, |trap| trap);
        let frames_told = Frames(frames);
        match trap {
            Some(Trap::StackOverflow) => {
                Self::new(FunctionError::StackOverflow, format_args!("{what}{frames_told}"))
            }
            Some(Trap::MemoryOutOfBounds) if is_endless(frames) => Self::new(
                FunctionError::StackOverflow,
                format_args!("recursion ran off the stack in linear memory: {what}{frames_told}"),
            ),
            // It asked for memory, did not get it, and gave up.
            _ if limits.refused() || error.is::<OutOfMemory>() => Self::new(
                FunctionError::OutOfMemory,
                format_args!("the memory limit of {limit} bytes was reached: {what}{frames_told}"),
            ),
            _ => Self::new(otherwise, format_args!("{what}{frames_told}")),
        }
    }
}

/// Text as far as a reply can carry it: names in it are the function's own, and may be of any length.
fn bounded(text: fmt::Arguments<'_>) -> String {
    struct Cut(String);
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = usize::try_from(DETAIL_MAX).unwrap_or(0).saturating_sub(self.0.len());
            let fits = text.floor_char_boundary(room);
            self.0.push_str(text.get(..fits).unwrap_or_default());
            if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new());
    // An error only says that it was cut.
    let _ = cut.write_fmt(text);
    cut.0
}

/// Whether the innermost frames are a recursion as deep as can be seen. A toolchain's own stack lies in linear memory,
/// and running off it looks like any access out of bounds.
fn is_endless(frames: &[FrameInfo]) -> bool {
    let mut functions: Vec<u32> = frames.iter().map(FrameInfo::func_index).collect();
    functions.sort_unstable();
    functions.dedup();
    frames.len() >= FRAMES_MAX && functions.len() <= RECURSION_FUNCTIONS
}

/// The innermost frames, one a line.
struct Frames<'a>(&'a [FrameInfo]);

impl fmt::Display for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in self.0.iter().take(FRAMES_SHOWN) {
            match frame.func_name() {
                Some(name) => write!(f, "\n  at {:#}", rustc_demangle::demangle(name))?,
                None => write!(f, "\n  at function {}", frame.func_index())?,
            }
        }
        match self.0.len().saturating_sub(FRAMES_SHOWN) {
            0 => Ok(()),
            more if self.0.len() >= FRAMES_MAX => write!(f, "\n  and more than {more} further"),
            more => write!(f, "\n  and {more} further"),
        }
    }
}
