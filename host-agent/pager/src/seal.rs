//! What the pager leaves itself before it opens a chunk or hears of a VM: the two folders that it works in, and no network.
//!
//! Sockets and userfaultfds come to it by a socket that it was given. No program can be started, no right can be gained.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::Path;

/// Why the process could not seal itself: the host's fault.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] PathFdError),
    /// Landlock refused.
    #[error("Landlock refused")]
    Landlock(#[from] RulesetError),
}

/// Narrows the calling thread, and so every thread that it starts, to these folders. Kernels deny what they know of.
pub fn seal(folders: &[&Path]) -> Result<RulesetStatus, SealError> {
    let abi = ABI::V8;
    let files = AccessFs::from_all(abi);
    let allowed: BitFlags<AccessFs> = files & !BitFlags::from(AccessFs::Execute);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(files)?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    for folder in folders {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(folder)?, allowed))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}
