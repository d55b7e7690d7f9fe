//! What `warren-compile` answers through its output descriptor.
//!
//! ```text
//! 0     b"WRNCOMP\x01"
//! 8     u32 LE: bytes of postcard
//! 12    postcard of Result<Compiled, CompileError>
//! 4096-aligned: code, `Compiled::code_len` bytes, to the end (only after Ok)
//! ```
//! The compiler parses hostile input, so its answer is untrusted too: lengths are checked against what is there.
//! That it says "Ok" is believed (the agent signs it); that is why it runs with a jail, limits and no network.

use crate::digest::Digest;
use crate::envelope::MAX_CODE_BYTES;
use crate::metadata::{MemoryDemand, Metadata, Purpose, World};
use crate::settings::SETTINGS_VERSION;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use warren_abi::isa::IsaSet;

const MAGIC: [u8; 8] = *b"WRNCOMP\x01";
const PAGE: usize = 4096;
/// Most bytes of the postcard part.
const MAX_HEAD_BYTES: usize = 48 << 10;

/// Facts of a compiled module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// What it fulfils.
    pub world: World,
    /// What its memories ask for.
    pub memory: MemoryDemand,
    /// What it imports, `module.name`, a summary.
    pub imports: Vec<String>,
    /// Bytes of code.
    pub code_len: u64,
}

/// Why a module was not compiled. Every variant but [`CompileError::Internal`] is the fault of who made the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CompileError {
    /// The input is larger than is looked at.
    #[error("the module is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The bytes are not WebAssembly, or not well-formed.
    #[error("the module does not parse: {detail}")]
    Malformed {
        /// Where and why.
        detail: String,
    },
    /// Well-formed, but not valid, or using a proposal that is not offered.
    #[error("the module is not valid: {detail}")]
    Invalid {
        /// Where and why.
        detail: String,
    },
    /// More of something than compilation allows.
    #[error("the module has too much of one thing: {what} {found}, at most {limit} allowed")]
    TooComplex {
        /// Of what.
        what: String,
        /// How much.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// It imports what its world does not offer.
    #[error("the module imports {import}, which is not offered: {hint}")]
    MissingImport {
        /// `module.name`.
        import: String,
        /// What is offered.
        hint: String,
    },
    /// It lacks what its world demands.
    #[error("the module does not export {export}: {hint}")]
    MissingExport {
        /// Its name.
        export: String,
        /// What is demanded.
        hint: String,
    },
    /// An import or export has another type than its world gives it.
    #[error("{name} has the wrong type: {detail}")]
    WrongType {
        /// Of which.
        name: String,
        /// What is there and what is wanted.
        detail: String,
    },
    /// A good module of a kind the purpose cannot use (a core module as policy, say).
    #[error("the module does not fit the purpose: {detail}")]
    WrongKind {
        /// Why.
        detail: String,
    },
    /// Warren's own fault or the machine's.
    #[error("compilation failed: {detail}")]
    Internal {
        /// Why.
        detail: String,
    },
}

impl CompileError {
    /// A short stable name for logs, metrics and API details.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "module-too-large",
            Self::Malformed { .. } => "module-malformed",
            Self::Invalid { .. } => "module-invalid",
            Self::TooComplex { .. } => "module-too-complex",
            Self::MissingImport { .. } => "missing-import",
            Self::MissingExport { .. } => "missing-export",
            Self::WrongType { .. } => "wrong-type",
            Self::WrongKind { .. } => "wrong-kind",
            Self::Internal { .. } => "compiler-internal",
        }
    }

    /// Whether the module is to blame (otherwise Warren or the machine is).
    #[must_use]
    pub const fn is_modules_fault(&self) -> bool {
        !matches!(self, Self::Internal { .. })
    }
}

/// The answer as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileResult {
    /// Compiled.
    Compiled {
        /// What is known of it.
        facts: Compiled,
        /// The code.
        code: Vec<u8>,
    },
    /// Not compiled, and why.
    Refused(CompileError),
}

/// Why there is no answer to be read. Warren's fault: the compiler died before it answered (its exit status says how) or
/// wrote something else.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// Nothing was written.
    #[error("the compiler wrote no answer")]
    Empty,
    /// What was written is no answer.
    #[error("the compiler's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The descriptor cannot be read.
    #[error("the compiler's answer cannot be read")]
    Io(#[from] io::Error),
}

impl CompileResult {
    /// The bytes to write. Code goes after them when the answer is Ok (see [`CompileResult::read`]).
    #[must_use]
    pub fn encode_head(head: &Result<Compiled, CompileError>) -> Vec<u8> {
        // Encoding plain data into a Vec does not fail; an empty head would be refused by the reader.
        let encoded = postcard::to_allocvec(head).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&encoded);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        bytes
    }

    /// Reads an answer from its beginning (seek the memfd to 0 first; the compiler shares its offset).
    pub fn read(mut input: impl Read) -> Result<Self, ResultError> {
        let mut start = [0; MAGIC.len() + 4];
        let got = read_up_to(&mut input, &mut start)?;
        if got == 0 {
            return Err(ResultError::Empty);
        }
        let (magic, length) = start.split_at(MAGIC.len());
        if got != start.len() || magic != MAGIC {
            return Err(ResultError::Malformed("unknown beginning"));
        }
        let length = length.try_into().map_or(usize::MAX, |bytes| u32::from_le_bytes(bytes) as usize);
        if length > MAX_HEAD_BYTES {
            return Err(ResultError::Malformed("head too long"));
        }
        let mut head = vec![0; (start.len() + length).next_multiple_of(PAGE) - start.len()];
        if read_up_to(&mut input, &mut head)? != head.len() {
            return Err(ResultError::Malformed("head cut short"));
        }
        let encoded = head.get(..length).unwrap_or_default();
        let head: Result<Compiled, CompileError> =
            postcard::from_bytes(encoded).map_err(|_| ResultError::Malformed("head does not decode"))?;
        match head {
            Ok(facts) => Ok(Self::Compiled { code: read_code(input, facts.code_len)?, facts }),
            Err(error) => Ok(Self::Refused(error)),
        }
    }
}

impl Compiled {
    /// The metadata to sign for this answer about `module`.
    #[must_use]
    pub fn into_metadata(
        self,
        module: &[u8],
        code: &[u8],
        purpose: Purpose,
        isa: IsaSet,
        created_unix_s: u64,
    ) -> Metadata {
        Metadata {
            purpose,
            world: self.world,
            source: Digest::of(module),
            code: Digest::of(code),
            code_len: code.len() as u64,
            isa,
            wasmtime: warren_abi::WASMTIME_VERSION.to_owned(),
            settings: SETTINGS_VERSION,
            memory: self.memory,
            imports: self.imports,
            created_unix_s,
        }
    }
}

fn read_code(input: impl Read, code_len: u64) -> Result<Vec<u8>, ResultError> {
    if code_len > MAX_CODE_BYTES {
        return Err(ResultError::Malformed("more code than the guest can map"));
    }
    let mut code = Vec::new();
    input.take(code_len + 1).read_to_end(&mut code)?;
    if code.len() as u64 == code_len {
        Ok(code)
    } else {
        Err(ResultError::Malformed("code of another length"))
    }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
