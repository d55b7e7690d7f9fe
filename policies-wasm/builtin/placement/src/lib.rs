//! The built-in placement policy as a component.
