//! What policy authors depend on.
