//! What the end-to-end suites share: a runner, an installation of Warren started for one suite, wasm modules that
//! misbehave, and expectations of errors.
//!
//! - Everything is real: `warren up` with its own data directory, ports and user ids; the public gRPC API; the CLI as
//!   a process. Nothing is mocked.
//! - A suite has a quick form (in `cargo xtask test`) and a full one (`cargo xtask soak NAME`); see [`full`].
//! - No case measures time. Bounds on waiting are there only to end what hangs.
#![forbid(unsafe_code)]

mod expect;
mod installation;
pub mod intervals;
pub mod modules;
mod runner;
pub mod work;
mod zygotes;

pub use expect::{Expected, expect_error};
pub use installation::{Answer, Deploy, Installation, Options, User, collected, function, root, sample};
pub use runner::{Case, Plain, Running, Suite, full, plain};
