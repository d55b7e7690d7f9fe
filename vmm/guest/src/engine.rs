//! The Wasmtime engine: settings agreed with the compiler, the host's instruction sets, code that is already mapped.
#![allow(unsafe_code, reason = "three promises to Wasmtime that only the contract with the monitor can keep")]

use crate::{failure::FRAMES_MAX, heap::Memories};
use alloc::sync::Arc;
use core::{
    num::NonZeroUsize,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use warren_abi::{boot::BootHeader, isa::IsaSet, window::CODE, window::PAGE_SIZE};
use wasmtime::{Config, CustomCodeMemory, Engine, Module, component::Component};

/// What the boot page says; Wasmtime asks through a plain function.
static ISA: AtomicU64 = AtomicU64::new(0);

/// Makes the engine.
pub(crate) fn engine(isa: IsaSet) -> wasmtime::Result<Engine> {
    ISA.store(isa.0, Relaxed);
    let mut config = Config::new();
    warren_abi::configure_function_engine!(&mut config);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX));
    config.with_host_memory(Arc::new(Memories));
    config.with_custom_code_memory(Some(Arc::new(AlreadyMapped)));
    // SAFETY: the host read the set from its own CPUID and shows the guest's processor the same.
    unsafe { config.detect_host_feature(|name| Some(IsaSet(ISA.load(Relaxed)).contains_name(name))) };
    // SAFETY: this program is built without SSE registers, so it passes no float to or from compiled code but through
    // memory; no host function here takes or gives one.
    unsafe { config.x86_float_abi_ok(true) };
    Engine::new(&config)
}

/// The function as a core module, where it lies.
pub(crate) fn module(engine: &Engine, boot: &BootHeader) -> wasmtime::Result<Module> {
    // SAFETY: as for `code`; the monitor maps only artefacts whose signature the agent has checked.
    unsafe { Module::deserialize_raw(engine, code(boot)) }
}

/// The function as a component, where it lies.
pub(crate) fn component(engine: &Engine, boot: &BootHeader) -> wasmtime::Result<Component> {
    // SAFETY: as for `code`; the monitor maps only artefacts whose signature the agent has checked.
    unsafe { Component::deserialize_raw(engine, code(boot)) }
}

/// The code window as far as it is mapped: read-execute, page-aligned, for as long as the program runs.
fn code(boot: &BootHeader) -> NonNull<[u8]> {
    let base = ptr::with_exposed_provenance_mut::<u8>(usize::try_from(CODE.base).unwrap_or(0));
    let len = usize::try_from(boot.code_len.min(CODE.max_len)).unwrap_or(0);
    NonNull::slice_from_raw_parts(NonNull::new(base).unwrap_or(NonNull::dangling()), len)
}

/// Code is executable before this program starts, and nothing here could change that.
struct AlreadyMapped;

impl CustomCodeMemory for AlreadyMapped {
    fn required_alignment(&self) -> usize {
        usize::try_from(PAGE_SIZE).unwrap_or(0)
    }

    fn publish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }

    fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }
}
