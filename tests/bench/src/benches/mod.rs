//! The benches, by what they need.

pub(crate) mod invoke;
pub(crate) mod linux;
pub(crate) mod streams;
pub(crate) mod vm;
