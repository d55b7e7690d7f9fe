//! What things cost at least, measured in the same run as what they bound.

pub(crate) mod bare;
pub(crate) mod kvm;
pub(crate) mod rpc;
