//! Part two of the jail, applied: exactly the table of [`warren_sandbox_plan::monitor`].
//!
//! Phases are types: [`Seal::begin`] closes the process and gives the two threads' filters, each of which is consumed
//! by the thread that puts it on. There is no way back and no flag that leaves anything out.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use warren_sandbox_plan::compiler::{ArgumentRule, SystemCall};
use warren_sandbox_plan::linux;
use warren_sandbox_plan::monitor::SYSTEM_CALLS;

/// Why the process could not seal itself: the host's fault, or a defect here. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// `no_new_privs` was refused.
    #[error("no_new_privs was refused")]
    NoNewPrivileges(#[from] rustix::io::Errno),
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] landlock::RulesetError),
    /// A filter does not build.
    #[error("a seccomp filter does not build")]
    Build(#[from] seccompiler::BackendError),
    /// A filter was refused.
    #[error("a seccomp filter was refused")]
    Seccomp(#[from] seccompiler::Error),
}

/// A process that is sealed, with what its threads have yet to put on.
#[derive(Debug)]
pub struct Seal {
    /// For the main thread, once everything is started.
    pub main: ThreadFilter,
    /// For the vCPU thread, first thing.
    pub vcpu: ThreadFilter,
    /// What Landlock could do.
    pub landlock: RulesetStatus,
}

/// A filter not yet on.
#[derive(Clone, Debug)]
#[must_use = "a filter does nothing until it is put on"]
pub struct ThreadFilter(BpfProgram);

impl ThreadFilter {
    /// Narrows the calling thread to its own calls.
    pub fn put_on(self) -> Result<(), SealError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }
}

impl Seal {
    /// Closes the process, which must have one thread and must not have read from any descriptor.
    pub fn begin() -> Result<Self, SealError> {
        let rows = || SYSTEM_CALLS.iter();
        let start = filter(rows().map(|row| &row.call))?;
        let main = filter(rows().filter(|row| row.thread.is_main()).map(|row| &row.call))?;
        let vcpu = filter(rows().filter(|row| row.thread.is_vcpu()).map(|row| &row.call))?;
        Ok(Self { main, vcpu, landlock: close(&start)? })
    }
}

/// The same for a Linux machine, whose threads are others: exactly the table of [`warren_sandbox_plan::linux`].
#[derive(Debug)]
pub struct LinuxSeal {
    /// For the main thread, once everything is started.
    pub main: ThreadFilter,
    /// For each vCPU thread, first thing.
    pub vcpu: ThreadFilter,
    /// For the worker thread, first thing.
    pub worker: ThreadFilter,
    /// For the network thread, first thing.
    pub network: ThreadFilter,
    /// For each disk's thread, first thing.
    pub disk: ThreadFilter,
    /// What Landlock could do.
    pub landlock: RulesetStatus,
}

impl LinuxSeal {
    /// Closes the process, which must have one thread and must not have read from any descriptor.
    pub fn begin() -> Result<Self, SealError> {
        let of = |threads| filter(linux::calls_of(threads));
        let start = of(linux::START)?;
        let [main, vcpu, worker] = [of(linux::MAIN)?, of(linux::VCPU)?, of(linux::WORKER)?];
        let [network, disk] = [of(linux::NETWORK)?, of(linux::DISK)?];
        Ok(Self { main, vcpu, worker, network, disk, landlock: close(&start)? })
    }
}

fn close(start: &ThreadFilter) -> Result<RulesetStatus, SealError> {
    rustix::thread::set_no_new_privs(true)?;
    let landlock = deny_all_paths()?;
    seccompiler::apply_filter(&start.0)?;
    Ok(landlock)
}

/// Handles everything the kernel knows and allows nothing; older kernels deny what they can.
fn deny_all_paths() -> Result<RulesetStatus, SealError> {
    let abi = ABI::V8;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn filter<'a>(calls: impl Iterator<Item = &'a SystemCall>) -> Result<ThreadFilter, SealError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        let conditions = rules.entry(call.number).or_default();
        if let Some(condition) = condition(call.rule)? {
            conditions.push(SeccompRule::new(vec![condition])?);
        }
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(ThreadFilter(filter.try_into()?))
}

/// Arguments that are compared are 32-bit ones for the kernel (`ioctl` and `fcntl` commands, `prctl` options, `clone`
/// flags, protections): the upper half must not decide.
fn condition(rule: ArgumentRule) -> Result<Option<SeccompCondition>, SealError> {
    let (argument, operator, value) = match rule {
        ArgumentRule::Any => return Ok(None),
        ArgumentRule::Equals { argument, value } => (argument, SeccompCmpOp::Eq, value),
        ArgumentRule::BitsClear { argument, bits } => (argument, SeccompCmpOp::MaskedEq(bits), 0),
    };
    Ok(Some(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?))
}
