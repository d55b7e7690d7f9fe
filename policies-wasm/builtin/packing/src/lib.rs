//! The built-in packing policy as a component.
