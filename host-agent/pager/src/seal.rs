//! Part two of the pager's jail: what it does to itself before it opens a chunk or hears of a VM.
//!
//! Part one (a user of its own, an empty root, no network, a cgroup, no capability) is the jailer's. Here: no memory of this process
//! is for others, Landlock leaves the folders that it works in, and the filter of [`warren_sandbox_plan::pager`] its system calls.
//! Sockets and userfaultfds come to it by a socket that it was given.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::{
    fd::BorrowedFd,
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};
use seccompiler::sock_filter;
use warren_sandbox_plan::{filter::Instruction, pager::FILTER};

/// Why the process could not seal itself: the host's fault. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The kernel refused something of the process's own.
    #[error("the kernel refused {0}")]
    Process(&'static str, #[source] Errno),
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] RulesetError),
    /// The filter was refused.
    #[error("the seccomp filter was refused")]
    Seccomp(#[from] seccompiler::Error),
}

/// The folders that it works in.
#[derive(Debug)]
pub struct Folders<'a> {
    /// To be read.
    pub origin: [BorrowedFd<'a>; 2],
    /// To be read and written.
    pub cache: Option<BorrowedFd<'a>>,
}

/// Narrows the calling thread, and so every thread that it starts: it must be the only one. There is no way back. Kernels before
/// Landlock, or with less of it, deny what they know of; the filter is on, or this fails.
pub fn seal(folders: &Folders<'_>) -> Result<RulesetStatus, SealError> {
    let process = |what| move |error| SealError::Process(what, error);
    // Keys are in this memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(process("not to be dumped"))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(process("to dump no core"))?;
    set_no_new_privs(true).map_err(process("no_new_privs"))?;
    let landlock = leave(folders)?;
    let instruction = |of: &Instruction| {
        let Instruction { code, jump_true: jt, jump_false: jf, value: k } = *of;
        sock_filter { code, jt, jf, k }
    };
    let program: Vec<_> = FILTER.instructions().iter().map(instruction).collect();
    seccompiler::apply_filter(&program)?;
    Ok(landlock)
}

fn leave(folders: &Folders<'_>) -> Result<RulesetStatus, SealError> {
    let abi = ABI::V8;
    let files = AccessFs::from_all(abi);
    let written: BitFlags<AccessFs> = files & !BitFlags::from(AccessFs::Execute);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(files)?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let all = folders.origin.iter().map(|folder| (folder, read));
    for (folder, allowed) in all.chain(folders.cache.iter().map(|folder| (folder, written))) {
        ruleset = ruleset.add_rule(PathBeneath::new(folder, allowed))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}
