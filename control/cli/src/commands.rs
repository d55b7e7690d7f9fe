//! One module a command, each a thin layer over one or two calls.

pub(crate) mod doctor;
pub(crate) mod functions;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod operate;
pub(crate) mod payload;
pub(crate) mod policy;
pub(crate) mod repeat;
pub(crate) mod runtime;
pub(crate) mod snap_start;
pub(crate) mod snapshot;
pub(crate) mod task;
