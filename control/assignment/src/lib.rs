//! The table of sandboxes: a pure core.
