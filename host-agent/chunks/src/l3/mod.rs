//! The third tier: where every chunk is kept, for all workers.
//!
//! A folder by default, an S3 bucket beyond one machine. Four areas lie in it: `chunks/` is what is served, `retired/` what
//! garbage collection took out of service, `damaged/` what a scrub found to be something else than its name, `entries/` what is called
//! by what it is about.
//!
//! [`origin`] is the tier: one error enum, put-if-absent, retries, limits; [`entries`] its part that can be replaced. [`folder`] and [`s3`] are where the bytes lie,
//! [`retry`] the arithmetic of trying again, [`http`] what carries S3.

pub mod entries;
pub mod error;
pub mod folder;
pub mod http;
pub mod origin;
pub mod retry;
pub mod s3;

pub use entries::EntryName;
pub use error::OriginError;
pub use folder::Reading;
pub use origin::{Area, Held, Origin, OriginLimits};
pub use s3::S3;
