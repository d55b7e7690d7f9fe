//! Inputs that are made, not stored.

/// The beginning of a text, for messages.
pub(crate) fn start(text: &str) -> String {
    text.chars().take(60).collect()
}
