//! The lab host.
