//! Linux functions on this host: whether it can run any, and what they run on.
//!
//! - [`Offer`] is what the host tells control: the probe's verdict, the runtimes on its shelf.
//! - [`Runtime`] and [`Kernel`] are those whose bytes were compared with their digests; every guest shares them.
//! - [`scratch`] makes the one disk that a guest may write: a file without a name, gone with its last descriptor.
//!
//! - [`probe`] is what `warren-vmm probe` said: whether this KVM runs Linux guests, and as which processor.
//! - [`machine`] is the machine of a function, from which one boots, is written down, and is brought back.
//!
//! It deliberately makes nothing that is on the shelf: `warren runtime` does (crate `warren-image`).

mod config;
pub mod machine;
mod offer;
pub mod probe;
pub mod scratch;

pub use config::{guest_config, restored};
pub use offer::{Kernel, LinuxError, Offer, Runtime};
