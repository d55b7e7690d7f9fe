//! For policies that choose the sandbox of an invocation.

pub use crate::bindings::routing::exports::warren::policy::router::{Route, Windows};
pub use warren_policy_rules::IdleSandbox;

/// A request, its idle sandboxes as they came over.
#[derive(Debug, Clone)]
pub struct RouteRequest {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Random.
    pub seed: u64,
    /// Stable hash of account and function.
    pub function: u64,
    /// The caller's.
    pub zone: u32,
    /// At most 64.
    pub idle: warren_policy_rules::Rows<IdleSandbox, 5>,
    /// Sandboxes of the function that are busy.
    pub busy: u32,
}

/// A routing policy. See the contract for what is asked of the answers.
pub trait RoutingPolicy: 'static {
    /// A policy without history. `config` has words `key=value`, separated by blanks.
    fn new(config: &str) -> Self;
    /// One of the request's idle sandboxes, or a new one.
    fn choose(&mut self, request: RouteRequest) -> Route;
    /// An invocation of the function came: how long shall its sandboxes be kept?
    fn observe(&mut self, function: u64, now_ms: u64) -> Windows;
}

/// Makes this crate the component of a [`RoutingPolicy`].
#[macro_export]
macro_rules! export_routing {
    ($policy:ty) => {
        #[allow(unsafe_code, reason = "generated exports of the canonical ABI")]
        mod component {
            use super::*;
            use $crate::glue::routing::exports::warren::policy::router as contract;

            struct Component;
            struct State(::core::cell::RefCell<$policy>);

            impl contract::Guest for Component {
                type State = State;
            }
            impl contract::GuestState for State {
                fn new(config: $crate::String) -> Self {
                    Self(::core::cell::RefCell::new(<$policy as $crate::routing::RoutingPolicy>::new(&config)))
                }
                fn choose(&self, request: contract::RouteRequest) -> contract::Route {
                    let contract::RouteRequest { now_ms, seed, function, zone, idle, busy } = request;
                    let idle = $crate::rules::Rows::new(idle);
                    let request =
                        $crate::routing::RouteRequest { now_ms, seed, function, zone, idle, busy };
                    $crate::routing::RoutingPolicy::choose(&mut *self.0.borrow_mut(), request)
                }
                fn observe(&self, function: u64, now_ms: u64) -> contract::Windows {
                    $crate::routing::RoutingPolicy::observe(&mut *self.0.borrow_mut(), function, now_ms)
                }
            }
            $crate::glue::routing::export_router!(Component with_types_in $crate::glue::routing);
        }
    };
}
