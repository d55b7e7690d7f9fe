//! Host inventory and hard limits before the policies.
