//! Hosts policies: pooling, deadlines, fallback, metrics.
