//! One pass over a module: is it valid, is it bounded, what is it.
//!
//! ```text
//! payload -> parse error?   Malformed
//!         -> over a bound?  TooComplex    before anything is allocated for it
//!         -> validator      Invalid
//!         -> end of the outermost: types -> world::recognise -> MissingImport, MissingExport, WrongType, WrongKind
//! ```

mod budget;
mod payload;

use crate::{limits, world};
use budget::Budget;
pub(crate) use budget::Outer;
use warren_artefact::{CompileError, MemoryDemand, Purpose, World};
use wasmparser::{FuncValidatorAllocations, Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// What kind of binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// What a good module was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Module or component.
    pub kind: Kind,
    /// The contract it fulfils.
    pub world: World,
    /// What its memories ask for.
    pub memory: MemoryDemand,
    /// What it imports, sorted, at most [`limits::IMPORTS_LISTED`].
    pub imports: Vec<String>,
}

/// The proposals on offer: those Wasmtime is built with here, without 64-bit memories (WASI preview 1 has no such
/// pointers, and no bound on them would mean anything).
fn features() -> WasmFeatures {
    (WasmFeatures::WASM2 - WasmFeatures::GC_TYPES)
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::COMPONENT_MODEL
}

/// Validates, bounds and recognises `module`.
pub fn inspect(module: &[u8], purpose: Purpose) -> Result<Inspected, CompileError> {
    if module.len() as u64 > limits::MODULE_BYTES {
        return Err(CompileError::TooLarge { limit: limits::MODULE_BYTES });
    }
    let mut validator = Validator::new_with_features(features());
    let mut budget = Budget::default();
    let mut allocations = FuncValidatorAllocations::default();
    let mut types = None;
    for item in Parser::new(0).parse_all(module) {
        let item = item.map_err(|error| malformed(&error))?;
        payload::spend(&mut budget, &item)?;
        match validator.payload(&item).map_err(|error| invalid(&error))? {
            ValidPayload::Func(function, body) => {
                let mut checker = function.into_validator(allocations);
                payload::check_body(&mut budget, &mut checker, &body)?;
                allocations = checker.into_allocations();
            }
            ValidPayload::End(found) => types = Some(found),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
        if let Payload::End(_) = item {
            budget.leave();
        }
    }
    // The last End is the outermost one's; `parse_all` fails on input that has none.
    let types = types.ok_or_else(|| CompileError::Malformed { detail: "it has no end".into() })?;
    let (kind, imports) = (budget.kind(), budget.imports());
    let world = match kind {
        Kind::Module => world::core::recognise(types.as_ref(), purpose)?,
        Kind::Component => world::component::recognise(types.as_ref(), budget.outer(), purpose)?,
    };
    Ok(Inspected { kind, world, memory: budget.memory(), imports })
}

fn malformed(error: &wasmparser::BinaryReaderError) -> CompileError {
    CompileError::Malformed { detail: shorten(&error.to_string(), 400) }
}

fn invalid(error: &wasmparser::BinaryReaderError) -> CompileError {
    CompileError::Invalid { detail: shorten(&error.to_string(), 400) }
}

/// At most `chars` characters of text a module's author chose, without control characters.
pub(crate) fn shorten(text: &str, chars: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(chars).map(clean).collect();
    if text.chars().nth(chars).is_some() {
        short.push_str("...");
    }
    short
}
