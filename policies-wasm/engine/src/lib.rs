//! Hosts policies: three decisions, each made by a Wasm component or, whenever that cannot, by the built-in default.
//!
//! Principles:
//! 1. A decision always comes, in bounded time, and is valid: on a trap, a deadline, spent fuel or nonsense, the
//!    built-in default decides *within the same decision*, and the caller is told.
//! 2. A policy is fed changes, never the fleet: a decision costs the same for ten hosts and ten thousand.
//! 3. A policy imports nothing and is deterministic; what it needs to know is in the request.
//! 4. Only signed artefacts are loaded. Nothing is compiled here.
//!
//! What it deliberately does not do: keep the fleet's truth (workers do), talk to anyone, or know gRPC.
//!
//! ```
//! use warren_policy_engine::{About, HostReport, Inventory, Packing, Placement, Routing};
//! use warren_policy_engine::rules::{Demand, FitRequest, Health, PackingConfig, Place, PlaceRequest, Scored};
//!
//! let inventory = Inventory::new();
//! let packing = Packing::new(&inventory, PackingConfig::default());
//! let placement = Placement::new(&inventory);
//! let routing = Routing::new();
//!
//! // On registration and with each heartbeat:
//! let zone = inventory.zone("a");
//! let report = HostReport {
//!     zone, health: Health::Ready, memory_mib: 8192, free_memory_mib: 8192, cpu_millis: 4000,
//!     free_cpu_millis: 4000, ..HostReport::default()
//! };
//! inventory.report("worker-1", report)?;
//!
//! // A new sandbox:
//! let about = About { function: "thumbnail", request: "r-1" };
//! let demand = Demand { function: 7, memory_mib: 512, cpu_millis: 289, ..Demand::default() };
//! let request = FitRequest { now_ms: 1, seed: 2, demand, shortlist: 8 };
//! let fits = packing.choose(&about, &request).answer;
//! let scored = fits.best.iter().map(|fit| Scored::of(*fit, 0, 1000)).collect();
//! let request = PlaceRequest { now_ms: 1, seed: 2, demand, fits: scored, zones: vec![] };
//! let decided = placement.choose(&about, &request);
//! let Place::On(choice) = decided.answer else { panic!("one host fits") };
//! // Set the memory aside until the host's next report tells of it.
//! inventory.adjust(choice.host, |host| host.free_memory_mib -= demand.memory_mib);
//! assert_eq!(inventory.name(choice.host).as_deref(), Some("worker-1"));
//! println!("{}", placement.recent(Some("thumbnail"), 1)[0].text);
//! # let _ = routing;
//! # Ok::<(), warren_policy_engine::TooManyHosts>(())
//! ```

mod decided;
mod interface;
mod inventory;
mod metrics;
mod packing;
mod placement;
mod recent;
mod routing;
mod slot;
mod trust;
mod wasm;

pub use decided::{About, By, Candidate, Decided, Explained, Identity, Kind, State, Status, WhyNative};
pub use inventory::{HostReport, Inventory, TooManyHosts};
pub use packing::Packing;
pub use placement::Placement;
pub use routing::Routing;
/// The plain types of requests and answers, and the built-in defaults themselves.
pub use warren_policy_rules as rules;
pub use wasm::{Limits, LoadError, Policy, Runtime, RuntimeError};
