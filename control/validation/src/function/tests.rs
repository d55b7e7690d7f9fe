use super::*;
use proptest::prelude::*;

/// What a host takes of arguments and environment together, by its own rule: eight bytes for each beside its own.
const HOST_WORDS_BYTES: usize = 48 << 10;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[A-Za-z_][A-Za-z0-9_]{0,12}",
        "[a-z0-9.-]{1,64}",
        ".{0,40}",
        Just("x".repeat(4 << 10)),
        Just("nul\0".to_owned()),
    ]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    // Also more than anybody takes, of the shortest there are.
    prop_oneof![
        prop::collection::vec(word(), 0..6),
        (0..9_000_usize).prop_map(|count| vec![String::new(); count]),
        (0..9_000_usize).prop_map(|count| (0..count).map(|n| format!("A{n}")).collect()),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(128), Just(512), Just(10_240), 0..1_000_000_u32, any::<u32>()]
}

prop_compose! {
    fn settings()(
        limits in prop::option::of((number(), number(), number(), prop::option::of(any::<u32>()))),
        names in words(), values in words(), args in words(),
        kind in -1..4_i32, snap_start in -1..5_i32, network in -1..4_i32,
        runtime in word(), handler in word(), json_response in any::<bool>(),
    ) -> FunctionConfig {
        let limits = limits.map(|(memory_mib, timeout_ms, tmp_mib, reserved_concurrency)| FunctionLimits {
            memory_mib, timeout_ms, tmp_mib, reserved_concurrency,
        });
        let values = values.into_iter().chain(std::iter::repeat(String::new()));
        let env = names.into_iter().zip(values).map(|(name, value)| EnvVar { name, value }).collect();
        FunctionConfig { limits, env, args, kind, snap_start, network, runtime, handler, json_response }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a client says: refused by name, or within every limit, the same when judged again, and no more than a host takes.
    #[test]
    fn settings_are_refused_or_such_as_hosts_take(given in settings()) {
        let settled = match config(Some(given)) {
            Ok(settled) => settled,
            Err(error) => {
                prop_assert_eq!((error.code, error.fault), (Code::InvalidArgument, Fault::Caller));
                prop_assert!(error.message.len() < 1_000, "it repeats {} bytes", error.message.len());
                return Ok(());
            }
        };
        prop_assert_eq!(config(Some(settled.clone())).ok(), Some(settled.clone()));
        let limits = settled.limits.unwrap();
        prop_assert!((128..=10_240).contains(&limits.memory_mib) && (1..=900_000).contains(&limits.timeout_ms));
        prop_assert!(settled.kind() == Kind::Linux || limits.tmp_mib <= limits.memory_mib / 2);
        prop_assert!(settled.kind() == Kind::Linux || settled.snap_start() != SnapStart::Unspecified);
        let words: usize = settled.args.iter().map(|arg| arg.len() + 8).sum::<usize>()
            + settled.env.iter().map(|var| var.name.len() + var.value.len() + 8).sum::<usize>();
        prop_assert!(words <= HOST_WORDS_BYTES, "{words} bytes of words, by a host's rule");
        prop_assert!(settled.env.len() <= 512, "a Linux guest takes 512 variables");
    }

    #[test]
    fn names_are_file_names(given in word()) {
        if name(&given).is_ok() {
            prop_assert!(given.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!((1..=64).contains(&given.len()) && !given.starts_with('-'));
        }
    }
}
