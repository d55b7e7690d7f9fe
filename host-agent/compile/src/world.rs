//! The contracts a module can fulfil, and how they are recognised.
//!
//! Modules: [`core`] WASI preview 1 commands, [`component`] functions and policies as components, [`describe`] component
//! types as text.

pub mod component;
pub mod core;
pub mod describe;
