//! The built-in CA, role-bound certificates, tokens.
