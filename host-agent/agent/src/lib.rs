//! The worker's agent: serves control over gRPC, asks the jailer for microVMs, and runs invocations in them.
//!
//! It deliberately holds no privilege, opens no device, parses no Wasm and decides no placement. It is the truth about
//! which sandboxes exist on its host and whether they are busy.
//!
//! Principles:
//! - One invocation at a time is enforced here, by the machine drawn in [`sandbox::machine`].
//! - VMs outlive the agent: a restarted one adopts them. Nothing on the invocation path is written to disk first.
//! - Whatever happens to a caller, an invocation ends, its sandbox is idle or reclaimed, and nothing stays behind.
//! - Only artefacts signed by this host's builder are loaded, from sealed memory.
//! - Every queue, cache, log and tail is bounded; what does not fit is counted and said.
//!
//! Modules: [`config`] flags, [`run`] start and stop, [`host`] what everything shares, [`service`] gRPC in, [`fleet`]
//! gRPC out, [`sandbox`] life of a sandbox, [`version`] code made startable, [`snapshot`] functions at rest, from which cold starts begin, [`zygote`] VMMs that
//! wait for them, [`pager`] memory that comes page by page, [`vmm`] and [`jailer`] the two local
//! protocols, [`linux`] what Linux functions run on, [`logs`] function logs, [`resources`] memory and CPU shares, [`memfd`] sealed files,
//! [`pidfd`] the end of a process.
#![forbid(unsafe_code)]

pub mod config;
pub mod fleet;
pub mod garbage;
pub mod host;
pub mod jailer;
pub mod linux;
pub mod logs;
pub mod memfd;
pub mod pager;
pub mod pidfd;
pub mod resources;
mod run;
pub mod sandbox;
pub mod service;
pub mod snapshot;
pub mod version;
pub mod vmm;
pub mod zygote;

pub use run::run;
