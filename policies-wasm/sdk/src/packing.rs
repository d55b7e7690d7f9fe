//! For policies that say how well functions fit hosts.

pub use crate::bindings::packing::exports::warren::policy::packer::FitRequest;
pub use crate::bindings::packing::warren::policy::types::{Demand, Health, HostInfo};
use alloc::vec::Vec;
pub use warren_policy_rules::{Delta, Fit, Fits};

/// Changes, as they came over.
pub type Deltas = warren_policy_rules::Rows<Delta, 11>;

/// A packing policy. See the contract for what is asked of the answers.
pub trait PackingPolicy: 'static {
    /// A policy that knows no hosts yet. `config` has words `key=value`, separated by blanks.
    fn new(config: &str) -> Self;
    /// Forget everything: these are the hosts.
    fn snapshot(&mut self, hosts: Vec<HostInfo>);
    /// What changed since the last call, and what is asked.
    fn choose(&mut self, deltas: Deltas, request: FitRequest) -> Fits;
}

/// Makes this crate the component of a [`PackingPolicy`].
#[macro_export]
macro_rules! export_packing {
    ($policy:ty) => {
        #[allow(unsafe_code, reason = "generated exports of the canonical ABI")]
        mod component {
            use super::*;
            use $crate::glue::packing::exports::warren::policy::packer as contract;

            struct Component;
            struct State(::core::cell::RefCell<$policy>);

            impl contract::Guest for Component {
                type State = State;
            }
            impl contract::GuestState for State {
                fn new(config: $crate::String) -> Self {
                    Self(::core::cell::RefCell::new(<$policy as $crate::packing::PackingPolicy>::new(&config)))
                }
                fn snapshot(&self, hosts: $crate::Vec<contract::HostInfo>) {
                    $crate::packing::PackingPolicy::snapshot(&mut *self.0.borrow_mut(), hosts);
                }
                fn choose(
                    &self,
                    deltas: $crate::Vec<u32>,
                    request: contract::FitRequest,
                ) -> $crate::Vec<u32> {
                    let deltas = $crate::packing::Deltas::new(deltas);
                    let fits =
                        $crate::packing::PackingPolicy::choose(&mut *self.0.borrow_mut(), deltas, request);
                    let mut words = $crate::Vec::with_capacity(fits.best.len() * 3);
                    $crate::rules::extend(&mut words, fits.best);
                    words
                }
            }
            $crate::glue::packing::export_packer!(Component with_types_in $crate::glue::packing);
        }
    };
}
