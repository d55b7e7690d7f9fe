//! From the rules' plain types to the contract's: field by field, the same in two worlds.

macro_rules! inventory_types {
    ($types:path) => {
        use $types as contract;

        pub(in crate::wasm) fn host(info: &warren_policy_rules::HostInfo) -> contract::HostInfo {
            use warren_policy_rules::Health;
            contract::HostInfo {
                index: info.index,
                zone: info.zone,
                health: match info.health {
                    Health::NotReady => contract::Health::NotReady,
                    Health::Ready => contract::Health::Ready,
                    Health::Draining => contract::Health::Draining,
                },
                memory_mib: info.memory_mib,
                free_memory_mib: info.free_memory_mib,
                cpu_millis: info.cpu_millis,
                free_cpu_millis: info.free_cpu_millis,
                used_p50_mib: info.used_p50_mib,
                used_spread_mib: info.used_spread_mib,
                sandboxes: info.sandboxes,
                busy: info.busy,
            }
        }

        pub(in crate::wasm) fn demand(demand: &warren_policy_rules::Demand) -> contract::Demand {
            contract::Demand {
                function: demand.function,
                memory_mib: demand.memory_mib,
                cpu_millis: demand.cpu_millis,
                memory_used_p50_mib: demand.memory_used_p50_mib,
                memory_used_p99_mib: demand.memory_used_p99_mib,
                concurrency_p50: demand.concurrency_p50,
                concurrency_p99: demand.concurrency_p99,
            }
        }
    };
}

pub(in crate::wasm) mod packing {
    inventory_types!(super::super::bindings::packing::warren::policy::types);
}

pub(in crate::wasm) mod placement {
    inventory_types!(super::super::bindings::placement::warren::policy::types);
}
