//! For policies that choose the host of a new sandbox.

pub use crate::bindings::packing::warren::policy::types::{Demand, Health, HostInfo};
pub use crate::bindings::placement::exports::warren::policy::placer::{Choice, Place, Reason};
pub use crate::packing::Deltas;
use alloc::vec::Vec;
pub use warren_policy_rules::{Candidate, Delta};

/// A request, its candidates as they came over.
#[derive(Debug, Clone)]
pub struct PlaceRequest {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Random.
    pub seed: u64,
    /// What the function asks for.
    pub demand: Demand,
    /// From the packing policy, best first, at most 64.
    pub fits: warren_policy_rules::Rows<Candidate, 6>,
    /// Sandboxes of this function, on any host.
    pub siblings: u32,
}

/// A placement policy. See the contract for what is asked of the answers.
pub trait PlacementPolicy: 'static {
    /// A policy that knows no hosts yet. `config` has words `key=value`, separated by blanks.
    fn new(config: &str) -> Self;
    /// Forget everything: these are the hosts.
    fn snapshot(&mut self, hosts: Vec<HostInfo>);
    /// What changed since the last call, and what is asked.
    fn choose(&mut self, deltas: Deltas, request: PlaceRequest) -> Place;
}

/// Makes this crate the component of a [`PlacementPolicy`].
#[macro_export]
macro_rules! export_placement {
    ($policy:ty) => {
        #[allow(unsafe_code, reason = "generated exports of the canonical ABI")]
        mod component {
            use super::*;
            use $crate::glue::placement::exports::warren::policy::placer as contract;

            struct Component;
            struct State(::core::cell::RefCell<$policy>);

            impl contract::Guest for Component {
                type State = State;
            }
            impl contract::GuestState for State {
                fn new(config: $crate::String) -> Self {
                    Self(::core::cell::RefCell::new(<$policy as $crate::placement::PlacementPolicy>::new(
                        &config,
                    )))
                }
                fn snapshot(&self, hosts: $crate::Vec<contract::HostInfo>) {
                    $crate::placement::PlacementPolicy::snapshot(&mut *self.0.borrow_mut(), hosts);
                }
                fn choose(
                    &self,
                    deltas: $crate::Vec<u32>,
                    request: contract::PlaceRequest,
                ) -> contract::Place {
                    let deltas = $crate::packing::Deltas::new(deltas);
                    let contract::PlaceRequest { now_ms, seed, demand, fits, siblings } = request;
                    let fits = $crate::rules::Rows::new(fits);
                    let request =
                        $crate::placement::PlaceRequest { now_ms, seed, demand, fits, siblings };
                    $crate::placement::PlacementPolicy::choose(&mut *self.0.borrow_mut(), deltas, request)
                }
            }
            $crate::glue::placement::export_placer!(Component with_types_in $crate::glue::placement);
        }
    };
}
