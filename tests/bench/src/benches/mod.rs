//! The benches, by what they need.

pub(crate) mod create;
pub(crate) mod dedupe;
pub(crate) mod density;
pub(crate) mod devices;
pub(crate) mod fairness;
mod first_process;
pub(crate) mod invoke;
pub(crate) mod jail;
pub(crate) mod link;
pub(crate) mod linux;
pub(crate) mod linux_restore;
mod probe;
pub(crate) mod streams;
pub(crate) mod vm;
