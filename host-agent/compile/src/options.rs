//! What can be typed.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use warren_abi::isa::IsaSet;
use warren_artefact::Purpose;

/// Compiles WebAssembly for Warren ahead of time.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  warren-compile file hello.wasm -o hello.cwasm
  warren-compile file packing.wasm -o packing.cwasm --purpose policy --isa host
  warren-compile jailed --purpose function --isa 1039 3<module 4<>answer

Exit codes of `file`: 0 compiled, 1 the module is at fault, 2 anything else.
Exit code of `jailed`: 0 whenever an answer was written, good or bad.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a module from descriptor 3, write the answer to descriptor 4; what the agent runs in a jail
    Jailed(Target),
    /// Compile a file without a jail, for development and tests
    File(FileOptions),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Target {
    /// What the code is for: function or policy
    #[arg(long, value_parser = parse_purpose, default_value = "function")]
    pub(crate) purpose: Purpose,
    /// Instruction sets the code may use: bits (decimal or 0x...), `host` for all of this machine's, or `baseline`
    #[arg(long, value_parser = parse_isa, default_value = "host")]
    pub(crate) isa: IsaSet,
}

#[derive(Debug, Args)]
pub(crate) struct FileOptions {
    /// The module or component
    pub(crate) module: PathBuf,
    /// Where the precompiled code goes
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) target: Target,
}

fn parse_purpose(text: &str) -> Result<Purpose, String> {
    Purpose::from_name(text).ok_or_else(|| "must be function or policy".to_owned())
}

fn parse_isa(text: &str) -> Result<IsaSet, String> {
    let bits = match (text, text.strip_prefix("0x")) {
        ("host", _) => return Ok(warren_compile::engine::host_isa()),
        ("baseline", _) => return Ok(IsaSet::BASELINE),
        (_, Some(hex)) => u64::from_str_radix(hex, 16),
        (_, None) => text.parse(),
    };
    let set = IsaSet(bits.map_err(|_| "must be a number of bits, host or baseline".to_owned())?);
    if IsaSet::detect(|_| true).covers(set) && set.covers(IsaSet::BASELINE) {
        Ok(set)
    } else {
        Err(format!("must hold the baseline ({}) and nothing Warren does not know", IsaSet::BASELINE.0))
    }
}
