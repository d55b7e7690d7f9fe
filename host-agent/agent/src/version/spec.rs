//! A function version as this host may run it: every field within its limits.

use warren_abi::boot::{FunctionSpec, World};
use warren_artefact::Digest;
use warren_proto::v1::{FunctionVersion, Kind, Network, SnapStart};
use warren_vmm_protocol::guest::Environment;

/// MiB of memory when a version names none.
const DEFAULT_MEMORY_MIB: u32 = 128;
/// MiB of memory a function may have.
const MEMORY_MIB: core::ops::RangeInclusive<u32> = 128..=10_240;
/// Milliseconds of timeout when a version names none.
const DEFAULT_TIMEOUT_MS: u32 = 3_000;
/// Longest timeout.
const MAX_TIMEOUT_MS: u32 = 900_000;
/// MiB of files in `/tmp` when a version names none.
const DEFAULT_TMP_MIB: u32 = 64;
/// Most bytes of arguments and environment together: what the boot page holds, with room for its header.
const MAX_WORDS_BYTES: usize = 48 << 10;
/// MiB that a Linux function may write.
const LINUX_TMP_MIB: core::ops::RangeInclusive<u32> = 512..=10_240;
/// Longest handler.
const MAX_HANDLER: usize = 256;
/// Longest function name.
const MAX_NAME: usize = 64;

/// Words on the wire that describe no version. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVersion {
    /// No version at all.
    #[error("the request names no function version")]
    Missing,
    /// The name.
    #[error("a function's name is 1 to {MAX_NAME} characters of a-z, 0-9 and -, and does not begin with -")]
    Name,
    /// A digest is not 64 hex digits.
    #[error("{0} is not a blake3 digest in hex")]
    Digest(&'static str),
    /// Memory.
    #[error("memory is {least} to {most} MiB, not {0}", least = MEMORY_MIB.start(), most = MEMORY_MIB.end())]
    Memory(u32),
    /// Timeout.
    #[error("a timeout is 1 to {MAX_TIMEOUT_MS} ms, not {0}")]
    Timeout(u32),
    /// `/tmp`.
    #[error("/tmp may hold at most half of the memory, not {0} MiB")]
    Tmp(u32),
    /// Arguments and environment.
    #[error("arguments and environment are {0} bytes together, at most {MAX_WORDS_BYTES} are allowed")]
    Words(usize),
    /// What a Linux function writes.
    #[error("a Linux function may write {least} to {most} MiB, not {0}", least = LINUX_TMP_MIB.start(), most = LINUX_TMP_MIB.end())]
    Scratch(u32),
    /// The runtime's name.
    #[error("a Linux function names its runtime in 1 to {MAX_NAME} characters")]
    Runtime,
    /// The handler.
    #[error("a handler has at most {MAX_HANDLER} bytes and no NUL")]
    Handler,
    /// What a guest's environment cannot hold.
    #[error("the environment cannot be a Linux guest's: it {0}")]
    Environment(String),
    /// A NUL, or a name with `=`.
    #[error("argument or environment variable {0:?} cannot be passed to a program")]
    Word(String),
}

/// What a version is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A module.
    Wasm {
        /// Its digest.
        code: Digest,
    },
    /// Files and a runtime.
    Linux {
        /// The runtime's name.
        runtime: String,
        /// Of which build; `None` until the version is fixed to one.
        build: Option<String>,
        /// What the runtime calls.
        handler: String,
    },
}

/// A checked version. Holding one proves that every number is within its limit and that the name is a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSpec {
    /// The function.
    pub name: String,
    /// Counts from 1.
    pub version: u64,
    /// What it is made of.
    pub what: What,
    /// Of the archive, if it has files.
    pub task: Option<Digest>,
    /// Its memory.
    pub memory_mib: u32,
    /// Its timeout.
    pub timeout_ms: u32,
    /// What `/tmp` may hold.
    pub tmp_mib: u32,
    /// Whether responses must be JSON.
    pub json_response: bool,
    /// What it reaches, if it is a Linux function.
    pub network: Network,
    /// Whether its cold starts may begin from a snapshot.
    pub snap_start: bool,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl VersionSpec {
    /// The one door from the wire.
    pub fn check(wire: Option<&FunctionVersion>) -> Result<Self, BadVersion> {
        let wire = wire.ok_or(BadVersion::Missing)?;
        let limits = wire.limits.unwrap_or_default();
        let or = |given: u32, default: u32| if given == 0 { default } else { given };
        let memory_mib = or(limits.memory_mib, DEFAULT_MEMORY_MIB);
        let timeout_ms = or(limits.timeout_ms, DEFAULT_TIMEOUT_MS);
        let linux = wire.kind() == Kind::Linux;
        let tmp_default = if linux { *LINUX_TMP_MIB.start() } else { DEFAULT_TMP_MIB.min(memory_mib / 2) };
        let tmp_mib = or(limits.tmp_mib, tmp_default);
        if !is_name(&wire.name) {
            return Err(BadVersion::Name);
        }
        if !MEMORY_MIB.contains(&memory_mib) {
            return Err(BadVersion::Memory(memory_mib));
        }
        if timeout_ms > MAX_TIMEOUT_MS {
            return Err(BadVersion::Timeout(timeout_ms));
        }
        match linux {
            true if !LINUX_TMP_MIB.contains(&tmp_mib) => return Err(BadVersion::Scratch(tmp_mib)),
            false if tmp_mib > memory_mib / 2 => return Err(BadVersion::Tmp(tmp_mib)),
            _ => {}
        }
        let env: Vec<_> = wire.env.iter().map(|var| (var.name.clone(), var.value.clone())).collect();
        check_words(&wire.args, &env)?;
        let what = if linux { linux_words(wire, &env)? } else { module(wire)? };
        Ok(Self {
            name: wire.name.clone(),
            version: wire.version,
            what,
            task: match wire.task_digest.as_str() {
                "" => None,
                text => Some(digest(text).ok_or(BadVersion::Digest("task_digest"))?),
            },
            memory_mib,
            timeout_ms,
            tmp_mib,
            json_response: wire.json_response,
            network: wire.network(),
            snap_start: wire.snap_start() != SnapStart::Off,
            args: wire.args.clone(),
            env,
        })
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    /// The function's own environment.
    #[must_use]
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// What a Wasm guest is told: the program's name first, and which function it is in the environment.
    #[must_use]
    pub fn for_guest(&self, world: World) -> FunctionSpec {
        let about = [
            ("WARREN_FUNCTION_NAME", self.name.clone()),
            ("WARREN_FUNCTION_VERSION", self.version.to_string()),
            ("WARREN_FUNCTION_MEMORY_MIB", self.memory_mib.to_string()),
        ];
        let about = about.into_iter().map(|(name, value)| (name.to_owned(), value));
        FunctionSpec {
            world,
            args: std::iter::once(self.name.clone()).chain(self.args.iter().cloned()).collect(),
            env: about.chain(self.env.iter().cloned()).collect(),
            tmp_quota_bytes: u64::from(self.tmp_mib) << 20,
            memory_limit_bytes: self.memory_bytes(),
        }
    }
}

fn module(wire: &FunctionVersion) -> Result<What, BadVersion> {
    let code = digest(&wire.code_digest).ok_or(BadVersion::Digest("code_digest"))?;
    Ok(What::Wasm { code })
}

fn linux_words(wire: &FunctionVersion, env: &[(String, String)]) -> Result<What, BadVersion> {
    if !(1..=MAX_NAME).contains(&wire.runtime.len()) {
        return Err(BadVersion::Runtime);
    }
    if wire.handler.len() > MAX_HANDLER || wire.handler.contains('\0') {
        return Err(BadVersion::Handler);
    }
    Environment::try_from(env.to_vec()).map_err(|error| BadVersion::Environment(error.to_string()))?;
    let build = match wire.runtime_digest.as_str() {
        "" => None,
        text => Some(digest(text).ok_or(BadVersion::Digest("runtime_digest"))?.to_string()),
    };
    Ok(What::Linux { runtime: wire.runtime.clone(), build, handler: wire.handler.clone() })
}

/// What a function may be called.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_NAME).contains(&text.len())
        && text.as_bytes().first().is_some_and(plain)
        && text.as_bytes().iter().all(|byte| plain(byte) || *byte == b'-')
}

fn check_words(args: &[String], env: &[(String, String)]) -> Result<(), BadVersion> {
    let bytes: usize = args.iter().map(|arg| arg.len() + 8).sum::<usize>()
        + env.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
    if bytes > MAX_WORDS_BYTES {
        return Err(BadVersion::Words(bytes));
    }
    let bad_env = |(name, value): &&(String, String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = env.iter().find(bad_env) {
        return Err(BadVersion::Word(name.clone()));
    }
    match args.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(BadVersion::Word(arg.clone())),
        None => Ok(()),
    }
}

/// 64 hex digits.
fn digest(text: &str) -> Option<Digest> {
    blake3::Hash::from_hex(text).ok().map(|hash| Digest(*hash.as_bytes()))
}

#[cfg(test)]
mod tests;
