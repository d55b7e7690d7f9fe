//! Strict concurrency limits: a pure core.
