//! Part two of the jail, applied: exactly the table of [`warren_sandbox_plan::monitor`].
//!
//! Phases are types: [`Seal::begin`] closes the process and gives the two threads' filters, each of which is consumed
//! by the thread that puts it on. There is no way back and no flag that leaves anything out.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use seccompiler::sock_filter;
use warren_sandbox_plan::filter::{Filter, Instruction};
use warren_sandbox_plan::{linux::filters, monitor};

/// Why the process could not seal itself: the host's fault, or a defect here. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// `no_new_privs` was refused.
    #[error("no_new_privs was refused")]
    NoNewPrivileges(#[from] rustix::io::Errno),
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] landlock::RulesetError),
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
#[derive(Clone, Copy, Debug)]
#[must_use = "a filter does nothing until it is put on"]
pub struct ThreadFilter(&'static Filter);

impl ThreadFilter {
    /// Narrows the calling thread to its own calls.
    pub fn put_on(self) -> Result<(), SealError> {
        let instruction = |of: &Instruction| {
            let Instruction { code, jump_true: jt, jump_false: jf, value: k } = *of;
            sock_filter { code, jt, jf, k }
        };
        let program: Vec<_> = self.0.instructions().iter().map(instruction).collect();
        Ok(seccompiler::apply_filter(&program)?)
    }
}

impl Seal {
    /// Closes the process, which must have one thread and must not have read from any descriptor.
    pub fn begin() -> Result<Self, SealError> {
        let [main, vcpu] = [&monitor::MAIN, &monitor::VCPU].map(ThreadFilter);
        Ok(Self { main, vcpu, landlock: close(ThreadFilter(&monitor::START))? })
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
    /// For the thread that listens to a pager, first thing.
    pub pager: ThreadFilter,
    /// What Landlock could do.
    pub landlock: RulesetStatus,
}

impl LinuxSeal {
    /// Closes the process, which must have one thread and must not have read from any descriptor.
    pub fn begin() -> Result<Self, SealError> {
        let landlock = close(ThreadFilter(&filters::START))?;
        let [main, vcpu, worker] = [&filters::MAIN, &filters::VCPU, &filters::WORKER].map(ThreadFilter);
        let [network, disk, pager] = [&filters::NETWORK, &filters::DISK, &filters::PAGER].map(ThreadFilter);
        Ok(Self { main, vcpu, worker, network, disk, pager, landlock })
    }
}

fn close(start: ThreadFilter) -> Result<RulesetStatus, SealError> {
    rustix::thread::set_no_new_privs(true)?;
    let landlock = deny_all_paths()?;
    start.put_on()?;
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
