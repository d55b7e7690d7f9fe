//! The second half of the jail: what this process does to itself before it reads a byte it was given.
//!
//! The first half (namespaces, empty root, uid, cgroup, limits, no capabilities) was the jailer's. Here: Landlock denies
//! every path and port where the kernel has it, then a seccomp filter leaves the calls of
//! [`warren_sandbox_plan::compiler::SYSTEM_CALLS`]; any other kills the process.

use landlock::{ABI, Access as _, AccessFs, AccessNet, Compatible as _, Ruleset, RulesetAttr as _, Scope};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use warren_sandbox_plan::compiler::{ArgumentRule, SYSTEM_CALLS};

/// Why the jail could not be closed: the host's or Warren's fault. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter does not build.
    #[error("the seccomp filter does not build")]
    Filter(#[from] seccompiler::BackendError),
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
    seccompiler::apply_filter(&filter()?)?;
    Ok(())
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

fn filter() -> Result<BpfProgram, LockError> {
    let mut rules = BTreeMap::new();
    for call in SYSTEM_CALLS {
        let condition = match call.rule {
            ArgumentRule::Any => None,
            ArgumentRule::Equals { argument, value } => Some((argument, SeccompCmpOp::Eq, value)),
            ArgumentRule::BitsClear { argument, bits } => Some((argument, SeccompCmpOp::MaskedEq(bits), 0)),
        };
        let conditions = match condition {
            None => Vec::new(),
            Some((argument, compare, value)) => {
                let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, compare, value)?;
                vec![SeccompRule::new(vec![condition])?]
            }
        };
        rules.insert(call.number, conditions);
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}
