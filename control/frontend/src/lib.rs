//! Authenticate, validate, admit, lease, forward.
