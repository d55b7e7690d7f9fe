//! The Wasm guest: a freestanding program in user mode, with no kernel under it, that runs one precompiled function.
//!
//! ```text
//! entered --boot page and engine good, function linked (and initialised)--> ready
//! entered --anything of the function's wrong--> Error reply; the monitor ends the sandbox
//! ready   --doorbell returns: an event is in the mailbox--> running
//! running --response, or the function's failure--> ready, by the same doorbell
//! any     --a defect of this program, or its heap used up--> Panic reply; the monitor ends the sandbox
//! ```
//! It deliberately has *no* scheduler, no interrupts, no page tables of its own, no writable code, and no way to the
//! outside but the mailbox and one port.
//!
//! Modules: [`raw`] addresses and instructions, [`heap`] memory, [`engine`] Wasmtime's settings, [`outside`] the mailbox
//! as the function sees it, [`limits`], [`failure`], [`preview1`] and [`component`] the two worlds.
#![no_std]
#![no_main]

extern crate alloc;

mod component;
mod engine;
mod failure;
mod heap;
mod limits;
mod outside;
mod preview1;
mod raw;

use alloc::boxed::Box;
use component::{Handler, Phase};
use failure::Failure;
use limits::Limits;
use outside::{Outside, Reply};
use preview1::{Command, Sandbox};
use warren_abi::{
    ABI_VERSION,
    boot::{BOOT_MAGIC, BootHeader, FunctionSpec, World},
    outcome::FunctionError,
};
use warren_wasi::{Fs, Wasi, fs::Quota};

/// From the first instruction on; never returns.
pub(crate) fn main() -> ! {
    match raw::boot_header() {
        Some(boot) if boot.magic == BOOT_MAGIC && boot.abi_version == ABI_VERSION => {
            heap::start(boot.heap_len);
            match set_up(&boot) {
                Ok(function) => serve(function),
                Err(failure) => give_up(failure),
            }
        }
        _ => stop("the boot page is not of this contract"),
    }
}

/// A linked function and the sandbox it runs in.
enum Function {
    Command(Command, Box<Sandbox>),
    Handler(Handler, Phase),
}

impl Function {
    fn sandbox(&mut self) -> &mut Sandbox {
        match self {
            Self::Command(_, sandbox) => sandbox,
            Self::Handler(_, phase) => phase.sandbox(),
        }
    }

    /// Runs the event in the mailbox; the bytes of its response.
    fn run(self) -> (Self, Result<usize, Failure>) {
        match self {
            Self::Command(command, sandbox) => {
                let (sandbox, result) = command.run(sandbox);
                (Self::Command(command, sandbox), result)
            }
            Self::Handler(handler, phase) => {
                let (phase, result) = handler.run(phase);
                (Self::Handler(handler, phase), result)
            }
        }
    }
}

/// Links the function, and initialises it if its world has that.
fn set_up(boot: &BootHeader) -> Result<Function, Failure> {
    let Ok(spec) = postcard::from_bytes::<FunctionSpec>(raw::boot_spec(boot)) else {
        stop("the boot page describes no function")
    };
    let outside = Outside::new(boot.tsc_hz);
    let limits = Limits::new(spec.memory_limit_bytes);
    let fs = Fs::new(raw::task_archive(boot), Quota::new(spec.tmp_quota_bytes, heap::room_bytes)).map_err(
        |error| Failure::new(FunctionError::Init, format_args!("the archive of /var/task: {error:?}")),
    )?;
    let sandbox = Box::new(Sandbox::new(Wasi::new(outside, fs, spec.args, &spec.env), limits));
    let init = |error: wasmtime::Error| Failure::new(FunctionError::Init, format_args!("{error:#}"));
    let engine = engine::engine(boot.isa_set()).map_err(init)?;
    match spec.world {
        World::WasiPreview1 => {
            let module = engine::module(&engine, boot).map_err(init)?;
            Ok(Function::Command(Command::new(&engine, &module)?, sandbox))
        }
        World::Component => {
            let component = engine::component(&engine, boot).map_err(init)?;
            heap::keep(component::KEPT);
            let handler = Handler::new(&engine, &component)?;
            let (phase, initialised) = handler.init(sandbox);
            initialised.map(|()| Function::Handler(handler, phase))
        }
    }
}

/// Ready, then one event after the other.
fn serve(mut function: Function) -> ! {
    let mut answer = Reply::Ready { drew: function.sandbox().wasi.host.drew() };
    loop {
        let sandbox = function.sandbox();
        outside::reply(&answer, sandbox.limits.peak());
        sandbox.wasi.host.take_event();
        sandbox.limits.begin_event();
        let (back, result) = function.run();
        function = back;
        answer = match result {
            Ok(payload_len) => Reply::Response { payload_len },
            Err(failure) => Reply::Failed(failure),
        };
    }
}

/// Says why the function cannot be served. The monitor does not come back; should it, it hears the same again.
fn give_up(failure: Failure) -> ! {
    let answer = Reply::Failed(failure);
    loop {
        outside::reply(&answer, 0);
    }
}

/// A defect on either side of the contract.
#[expect(clippy::panic, reason = "the one way to end a sandbox that cannot be")]
fn stop(why: &str) -> ! {
    panic!("{why}")
}

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    outside::last_words(info)
}
