//! The one door through which compiled code comes in, and the engine's one `unsafe` block.
#![allow(unsafe_code, reason = "deserialising compiled code is unsafe; this module holds the one call")]

use warren_artefact::Artefact;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Makes a component of a verified artefact.
///
/// Wasmtime itself refuses code of another version, of other settings, or for instructions this CPU lacks.
pub(crate) fn component(engine: &Engine, artefact: &Artefact) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` asks that the bytes are what `Engine::precompile_component` or `Component::serialize` gave.
    // 1. An `Artefact` exists only if a trusted builder's signature over its metadata, and the digest of its code in
    //    that metadata, were right: no byte has changed since the builder signed.
    // 2. A builder signs only what `warren-compile` gave, which is `precompile_component`'s output, unchanged.
    // 3. The bytes are copied by this call: nobody can change them afterwards.
    unsafe { Component::deserialize(engine, artefact.code()) }
}
