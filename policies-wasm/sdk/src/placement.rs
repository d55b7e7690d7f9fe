//! For policies that choose the host of a new sandbox.

pub use crate::bindings::packing::warren::policy::types::{Delta, Demand, Health, HostInfo};
pub use crate::bindings::placement::exports::warren::policy::placer::{
    Choice, Place, PlaceRequest, Reason, Scored,
};
use alloc::vec::Vec;

/// A placement policy. See the contract for what is asked of the answers.
pub trait PlacementPolicy: 'static {
    /// A policy that knows no hosts yet. `config` has words `key=value`, separated by blanks.
    fn new(config: &str) -> Self;
    /// Forget everything: these are the hosts.
    fn snapshot(&mut self, hosts: Vec<HostInfo>);
    /// What changed since the last call, and what is asked.
    fn choose(&mut self, deltas: Vec<Delta>, request: PlaceRequest) -> Place;
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
                    deltas: $crate::Vec<contract::Delta>,
                    request: contract::PlaceRequest,
                ) -> contract::Place {
                    $crate::placement::PlacementPolicy::choose(&mut *self.0.borrow_mut(), deltas, request)
                }
            }
            $crate::glue::placement::export_placer!(Component with_types_in $crate::glue::placement);
        }
    };
}
