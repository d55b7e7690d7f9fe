//! The second half of the jail: what this process does to itself before it reads a byte it was given.
//!
//! The first half (namespaces, empty root, uid, cgroup, limits, no capabilities) was the jailer's. Here: Landlock denies
//! every path and port where the kernel has it, then a seccomp filter leaves the calls of
//! [`warren_sandbox_plan::compiler::SYSTEM_CALLS`]; any other kills the process.

use landlock::{ABI, Access as _, AccessFs, AccessNet, Compatible as _, Ruleset, RulesetAttr as _, Scope};
use seccompiler::sock_filter;
use std::os::fd::OwnedFd;
use warren_sandbox_plan::compiler::FILTER;
use warren_sandbox_plan::filter::Instruction;

/// Why the jail could not be closed: the host's or Warren's fault. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter was refused.
    #[error("the seccomp filter was refused")]
    Seccomp(#[from] seccompiler::Error),
    /// `no_new_privs` was refused.
    #[error("no_new_privs was refused")]
    NoNewPrivileges(#[source] std::io::Error),
}

/// The module (3) and the answer (4): the descriptors the jailer leaves open. To be called once, first thing.
pub fn descriptors() -> std::io::Result<[OwnedFd; 2]> {
    Ok([crate::sys::inherited(3)?, crate::sys::inherited(4)?])
}

/// Closes the jail around this process, which must have one thread. There is no way back.
pub fn lock() -> Result<(), LockError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| LockError::NoNewPrivileges(error.into()))?;
    deny_all_paths()?;
    let instruction = |of: &Instruction| {
        let Instruction { code, jump_true: jt, jump_false: jf, value: k } = *of;
        sock_filter { code, jt, jf, k }
    };
    let program: Vec<_> = FILTER.instructions().iter().map(instruction).collect();
    Ok(seccompiler::apply_filter(&program)?)
}

/// Everything the newest kernel interface we know can deny; older kernels deny what they can.
fn deny_all_paths() -> Result<(), LockError> {
    let abi = ABI::V6;
    Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(())
}
