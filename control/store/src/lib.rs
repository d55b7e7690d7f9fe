//! Registry and journal: traits and the embedded backend.
