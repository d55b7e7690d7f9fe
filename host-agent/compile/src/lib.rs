//! Compiles function and policy modules ahead of time.
//!
//! The binary `warren-compile` runs this in a jail of its own (`jailed`), because a compiler fed by strangers is an
//! attack surface; `warren-compile file` runs the same code on a file, for developers and tests.
//!
//! It deliberately does *not* sign, store or run anything, and knows no network: module in, answer out.
//!
//! Principles:
//! - Structure is bounded before Cranelift sees it ([`limits`]); what is still too slow or too big dies of the jail's
//!   CPU and memory limits, and the agent says so.
//! - The parser that checks is the parser that compiles, so the two cannot disagree.
//! - Everything wrong with a module is a typed answer, never a crash.
//!
//! Modules: [`inspect`] validate, bound and recognise a module, [`limits`] the bounds and why, [`world`] what a function
//! or policy imports and exports, [`engine`] Wasmtime's settings, [`jail`] the second half of the jail.

pub mod engine;
pub mod inspect;
pub mod jail;
pub mod limits;
mod sys;
pub mod world;

use warren_abi::isa::IsaSet;
use warren_artefact::{CompileError, Compiled, Purpose};

/// Inspects and compiles `module`: the facts and the code, or whose fault it is that there is none.
pub fn compile(module: &[u8], purpose: Purpose, isa: IsaSet) -> Result<(Compiled, Vec<u8>), CompileError> {
    let inspected = inspect::inspect(module, purpose)?;
    let code = engine::precompile(module, inspected.kind, purpose, isa)?;
    let facts = Compiled {
        world: inspected.world,
        memory: inspected.memory,
        imports: inspected.imports,
        code_len: code.len() as u64,
    };
    Ok((facts, code))
}
