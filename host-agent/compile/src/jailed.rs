//! `warren-compile jailed`: module in by descriptor 3, answer out by descriptor 4, nothing else.
//!
//! ```text
//! start -> lock the jail's second half -> read module -> compile -> write answer -> exit 0
//!          | cannot: exit 2, nothing read                              | cannot: exit 2
//! ```
//! A compiler that crashes, runs out of memory or of CPU time writes no answer; the agent reads how from the exit status.

use crate::options::Target;
use anyhow::Context as _;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use warren_artefact::CompileResult;
use warren_compile::{compile, jail, limits};

pub(crate) fn run(target: Target) -> anyhow::Result<ExitCode> {
    let [module, output] = jail::descriptors().context("descriptors 3 (module) and 4 (output) are needed")?;
    jail::lock().context("cannot lock the jail")?;
    let module = read_module(module).context("cannot read the module")?;
    let (head, code) = match compile(&module, target.purpose, target.isa) {
        Ok((facts, code)) => (Ok(facts), code),
        Err(error) => (Err(error), Vec::new()),
    };
    let head = CompileResult::encode_head(&head);
    let output = File::from(output);
    // Code first: an answer cut short by a full disk or a kill has no beginning, so nobody takes it for one.
    output.write_all_at(&code, head.len() as u64).context("cannot write the code")?;
    output.write_all_at(&head, 0).context("cannot write the answer")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads from the beginning, whatever offset the descriptor came with, at most one byte more than a module may have.
fn read_module(descriptor: OwnedFd) -> anyhow::Result<Vec<u8>> {
    let file = File::from(descriptor);
    let length = usize::try_from(file.metadata()?.len().min(limits::MODULE_BYTES + 1))?;
    let mut module = vec![0; length];
    file.read_exact_at(&mut module, 0)?;
    Ok(module)
}
