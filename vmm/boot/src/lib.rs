//! Page tables, descriptor tables and memory plans, written through a small guest-memory trait.
