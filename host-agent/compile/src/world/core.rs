//! WASI preview 1 commands.

use crate::inspect::shorten;
use crate::limits::NAME_CHARS;
use warren_abi::wasi;
use warren_artefact::{CompileError, Purpose, World};
use wasmparser::types::{EntityType, TypesRef};

/// Recognises a validated core module.
pub fn recognise(types: TypesRef<'_>, purpose: Purpose) -> Result<World, CompileError> {
    if purpose == Purpose::Policy {
        let detail =
            "a policy is a component; make one with `wasm-tools component new` or `warren policy new`";
        return Err(CompileError::WrongKind { detail: detail.into() });
    }
    for (module, name, ty) in types.core_imports().into_iter().flatten() {
        check_import(module, name, ty)?;
    }
    let exports = || types.core_exports().into_iter().flatten();
    let find = |wanted: &str| exports().find(|(name, _)| *name == wanted).map(|(_, ty)| ty);
    match find("_start") {
        Some(EntityType::Func(id)) => {
            let function = types[id].unwrap_func();
            if !function.params().is_empty() || !function.results().is_empty() {
                return Err(wrong_type("_start", "it must take and return nothing"));
            }
        }
        Some(_) => return Err(wrong_type("_start", "it must be a function")),
        None if find("_initialize").is_some() => {
            return Err(missing(
                "_start",
                "this is a WASI reactor (a library); build a program with a main function",
            ));
        }
        None => return Err(missing("_start", "build a program for wasm32-wasip1 (WASI preview 1)")),
    }
    match find("memory") {
        Some(EntityType::Memory(_)) => Ok(World::Preview1),
        Some(_) => Err(wrong_type("memory", "it must be a memory")),
        None => Err(missing("memory", "WASI calls pass pointers into the exported memory")),
    }
}

fn check_import(module: &str, name: &str, ty: EntityType) -> Result<(), CompileError> {
    let import = || shorten(&format!("{module}.{name}"), NAME_CHARS);
    if module != wasi::MODULE {
        let hint = match module {
            "env" => "functions import WASI preview 1 only; is a C or JavaScript library left unlinked?",
            "wasi_unstable" => "this is WASI preview 0; rebuild with a current toolchain",
            "wasi" => "threads are not offered; build for wasm32-wasip1 without threads",
            _ => "functions import WASI preview 1 (wasi_snapshot_preview1) only",
        };
        return Err(CompileError::MissingImport { import: import(), hint: hint.into() });
    }
    if !wasi::FUNCTIONS.contains(&name) {
        let hint = "WASI preview 1 has no such function".into();
        return Err(CompileError::MissingImport { import: import(), hint });
    }
    match ty {
        EntityType::Func(_) => Ok(()),
        _ => Err(CompileError::WrongType { name: import(), detail: "it must be a function".into() }),
    }
}

fn missing(export: &str, hint: &str) -> CompileError {
    CompileError::MissingExport { export: export.into(), hint: hint.into() }
}

fn wrong_type(name: &str, detail: &str) -> CompileError {
    CompileError::WrongType { name: name.into(), detail: detail.into() }
}
