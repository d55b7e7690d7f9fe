//! Functions as `warren:function` components: `init` once, `handle` for every event.
//!
//! ```text
//! live --handle answers, ok or err--> live
//! live --trap--> fallen: the instance is gone, the sandbox's files stay
//! fallen --next event: instantiate, init--> live, or fallen again with the failure as the event's answer
//! ```

use crate::{failure::Failure, outside::Outside, preview1::Sandbox};
use alloc::string::ToString as _;
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use serde::Deserialize;
use warren_abi::{mailbox::PAYLOAD_MAX, outcome::FunctionError};
use warren_wasi::{Errno, Host as _};
use wasmtime::{Engine, Store, WasmBacktrace, component::Component, component::HasSelf, component::Linker};

/// The contract, as Rust.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated from wit/")]
mod bindings {
    wasmtime::component::bindgen!({ path: "wit", world: "function" });
}

use bindings::{FunctionPre, warren::function::host, warren::function::types::Context};

/// Most bytes of one `random` answer.
const RANDOM_MAX: u32 = 64 << 10;
/// Most bytes that one call may hand out of the component: an answer, or a file with its path.
const HANDED_OUT_MAX: u64 = PAYLOAD_MAX + (64 << 10);
/// What is kept from the component's memory, so that they can always be taken over: Wasmtime allocates for them without
/// asking. (Strings would need more in other encodings than UTF-8; the compiler refuses those.)
#[expect(clippy::cast_possible_truncation, reason = "a constant of 6 MiB")]
pub(crate) const KEPT: usize = (PAYLOAD_MAX + (64 << 10)) as usize;
/// Most characters of a path that an error repeats.
const PATH_TOLD: usize = 400;

/// A linked component.
pub(crate) struct Handler {
    engine: Engine,
    function: FunctionPre<Box<Sandbox>>,
}

/// Where the sandbox is, see the drawing above.
pub(crate) enum Phase {
    Live(Store<Box<Sandbox>>, bindings::Function),
    Fallen(Box<Sandbox>),
}

impl Phase {
    pub(crate) fn sandbox(&mut self) -> &mut Sandbox {
        match self {
            Self::Live(store, _) => store.data_mut(),
            Self::Fallen(sandbox) => sandbox,
        }
    }
}

impl Handler {
    /// Links a component, or says what it lacks.
    pub(crate) fn new(engine: &Engine, component: &Component) -> Result<Self, Failure> {
        let mut linker = Linker::<Box<Sandbox>>::new(engine);
        bindings::Function::add_to_linker::<_, HasSelf<Sandbox>>(&mut linker, |sandbox| &mut **sandbox)
            .map_err(|error| Failure::new(FunctionError::Init, format_args!("{error:#}")))?;
        let instance = linker
            .instantiate_pre(component)
            .map_err(|error| Failure::new(FunctionError::MissingImport, format_args!("{error:#}")))?;
        let function = FunctionPre::new(instance)
            .map_err(|error| Failure::new(FunctionError::MissingExport, format_args!("{error:#}")))?;
        Ok(Self { engine: engine.clone(), function })
    }

    /// Instantiates and initialises.
    pub(crate) fn init(&self, mut sandbox: Box<Sandbox>) -> (Phase, Result<(), Failure>) {
        sandbox.limits.begin_instance();
        let mut store = Store::new(&self.engine, sandbox);
        store.limiter(|sandbox| &mut sandbox.limits);
        store.set_hostcall_fuel(usize::try_from(HANDED_OUT_MAX).unwrap_or(0));
        let instance = self.function.instantiate(&mut store);
        let instance = instance.inspect_err(|_| store.data_mut().limits.note_failed_instance());
        let initialised = instance.and_then(|function| {
            let answer = function.call_init(&mut store)?;
            Ok((function, answer))
        });
        match initialised {
            Ok((function, Ok(()))) => (Phase::Live(store, function), Ok(())),
            Ok((_, Err(text))) => {
                (Phase::Fallen(store.into_data()), Err(Failure::new(FunctionError::Init, text)))
            }
            Err(error) => {
                let sandbox = store.into_data();
                let failure = Failure::of_init(&error, &sandbox.limits);
                (Phase::Fallen(sandbox), Err(failure))
            }
        }
    }

    /// Runs one event; the bytes of its response.
    pub(crate) fn run(&self, phase: Phase) -> (Phase, Result<usize, Failure>) {
        let (mut store, function) = match phase {
            Phase::Live(store, function) => (store, function),
            Phase::Fallen(sandbox) => match self.init(sandbox) {
                (Phase::Live(store, function), Ok(())) => (store, function),
                (phase, initialised) => return (phase, initialised.map(|()| 0)),
            },
        };
        let context = context(&mut store.data_mut().wasi.host);
        // The bytes stay until the next doorbell, which `handle` reaches only through a log flush; the monitor does not
        // touch the event area then.
        let event = crate::raw::event_bytes(store.data().wasi.host.payload());
        match function.call_handle(&mut store, event, &context) {
            Ok(answer) => {
                store.data_mut().limits.observe();
                let host = &mut store.data_mut().wasi.host;
                let answer = match answer {
                    Ok(bytes) => host.write_response(&bytes).map(|()| host.response_len()).map_err(|_| {
                        Failure::new(
                            FunctionError::ResponseTooLarge,
                            format_args!("a response of {} bytes", bytes.len()),
                        )
                    }),
                    Err(text) => Err(Failure::new(FunctionError::Handler, text)),
                };
                (Phase::Live(store, function), answer)
            }
            Err(error) => {
                store.data_mut().limits.observe();
                let sandbox = store.into_data();
                let failure = if is_outsized_answer(&error) {
                    Failure::new(FunctionError::ResponseTooLarge, "the response is larger than 6 MiB")
                } else {
                    Failure::of_call(&error, &sandbox.limits)
                        .unwrap_or_else(|| Failure::new(FunctionError::Trap, "ended without an answer"))
                };
                (Phase::Fallen(sandbox), Err(failure))
            }
        }
    }
}

/// Whether taking the answer over went past [`HANDED_OUT_MAX`]. Wasmtime has no type for that error, only words; inside
/// a call of the component's it would carry a backtrace.
fn is_outsized_answer(error: &wasmtime::Error) -> bool {
    let inside = error.downcast_ref::<WasmBacktrace>().is_some();
    !inside && error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// The members of the caller's JSON that the contract passes on. Missing ones are empty: the context informs, it does
/// not decide.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Caller {
    request_id: String,
    function: String,
    version: u64,
    memory_mib: u32,
}

/// What the handler is told beside its event.
fn context(outside: &mut Outside) -> Context {
    let caller: Caller = serde_json::from_slice(outside.context()).unwrap_or_default();
    Context {
        request_id: caller.request_id,
        function_name: caller.function,
        function_version: caller.version,
        memory_mib: caller.memory_mib,
        remaining_ns: outside.remaining_ns(),
    }
}

impl bindings::warren::function::types::Host for Sandbox {}

impl host::Host for Sandbox {
    fn log(&mut self, mut line: String) {
        // In one go; a line that cannot grow is two.
        let whole = line.try_reserve(1).is_ok();
        if whole {
            line.push('\n');
        }
        self.wasi.host.write_log(line.as_bytes());
        if !whole {
            self.wasi.host.write_log(b"\n");
        }
    }

    fn wall_clock(&mut self) -> u64 {
        self.wasi.host.wall_ns()
    }

    fn monotonic_clock(&mut self) -> u64 {
        self.wasi.host.monotonic_ns()
    }

    fn random(&mut self, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len.min(RANDOM_MAX) as usize];
        self.wasi.host.fill_random(&mut bytes);
        bytes
    }

    fn env(&mut self) -> Vec<(String, String)> {
        self.wasi.environment().collect()
    }

    fn read_file(&mut self, path: String) -> Result<Vec<u8>, String> {
        self.wasi.fs().read_whole(&path).map_err(|errno| describe(errno, &path))
    }

    fn write_file(&mut self, path: String, contents: Vec<u8>) -> Result<(), String> {
        let now = self.wasi.host.wall_ns();
        let written =
            self.wasi.fs().write_whole(&path, &contents, now).map_err(|errno| describe(errno, &path));
        self.limits.observe();
        written
    }
}

fn describe(errno: Errno, path: &str) -> String {
    let told = path.get(..path.floor_char_boundary(PATH_TOLD)).unwrap_or_default();
    format!("{told}: {errno}")
}
