//! The built-in routing policy as a component.
