use super::*;
use proptest::prelude::*;
use warren_proto::v1::{EnvVar, FunctionLimits};

fn good() -> FunctionVersion {
    FunctionVersion {
        name: "hello".into(),
        version: 1,
        code_digest: Digest::of(b"code").to_string(),
        ..FunctionVersion::default()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "rows of the table read better")]
fn check(change: impl Fn(&mut FunctionVersion), expect: Result<(), BadVersion>) {
    let mut wire = good();
    change(&mut wire);
    assert_eq!(VersionSpec::check(Some(&wire)).map(|_| ()), expect, "{wire:?}");
}

#[expect(clippy::unnecessary_wraps, reason = "what the field takes")]
fn limits(memory_mib: u32, timeout_ms: u32, tmp_mib: u32) -> Option<FunctionLimits> {
    Some(FunctionLimits { memory_mib, timeout_ms, tmp_mib, reserved_concurrency: None })
}

#[test]
fn table() {
    check(|_| (), Ok(()));
    for bad in ["", "-a", "A", "a/b", "..", "a_b", &"a".repeat(65)] {
        check(|wire| wire.name = bad.to_owned(), Err(BadVersion::Name));
    }
    check(|wire| wire.code_digest = "00".into(), Err(BadVersion::Digest("code_digest")));
    check(|wire| wire.task_digest = "zz".repeat(32), Err(BadVersion::Digest("task_digest")));
    check(|wire| wire.limits = limits(127, 1, 1), Err(BadVersion::Memory(127)));
    check(|wire| wire.limits = limits(10_241, 1, 1), Err(BadVersion::Memory(10_241)));
    check(|wire| wire.limits = limits(128, 900_001, 1), Err(BadVersion::Timeout(900_001)));
    check(|wire| wire.limits = limits(128, 1, 65), Err(BadVersion::Tmp(65)));
    check(|wire| wire.limits = limits(128, 900_000, 64), Ok(()));
    check(|wire| wire.args = vec!["x".repeat(50_000)], Err(BadVersion::Words(50_008)));
    check(|wire| wire.args = vec!["a\0".into()], Err(BadVersion::Word("a\0".into())));
    let var = |name: &str, value: &str| vec![EnvVar { name: name.into(), value: value.into() }];
    check(|wire| wire.env = var("A", "b=c"), Ok(()));
    check(|wire| wire.env = var("A=", "b"), Err(BadVersion::Word("A=".into())));
    check(|wire| wire.env = var("", "b"), Err(BadVersion::Word(String::new())));
    assert_eq!(VersionSpec::check(None), Err(BadVersion::Missing));
}

#[test]
fn linux_table() {
    let linux = |change: &dyn Fn(&mut FunctionVersion)| {
        let mut wire = FunctionVersion {
            kind: Kind::Linux.into(),
            runtime: "debian-base".into(),
            code_digest: String::new(),
            ..good()
        };
        change(&mut wire);
        VersionSpec::check(Some(&wire)).map(|spec| (spec.what, spec.tmp_mib))
    };
    let what =
        |build: Option<String>| What::Linux { runtime: "debian-base".into(), build, handler: String::new() };
    assert_eq!(linux(&|_| ()), Ok((what(None), 512)));
    let build = Digest::of(b"root").to_string();
    assert_eq!(linux(&|wire| wire.runtime_digest.clone_from(&build)), Ok((what(Some(build.clone())), 512)));
    assert_eq!(linux(&|wire| wire.runtime_digest = "x".into()), Err(BadVersion::Digest("runtime_digest")));
    assert_eq!(linux(&|wire| wire.runtime = String::new()), Err(BadVersion::Runtime));
    assert_eq!(linux(&|wire| wire.handler = "h".repeat(257)), Err(BadVersion::Handler));
    assert_eq!(linux(&|wire| wire.limits = limits(128, 1, 511)), Err(BadVersion::Scratch(511)));
    assert!(linux(&|wire| wire.limits = limits(128, 1, 10_240)).is_ok());
    let var = |name: &str| vec![EnvVar { name: name.into(), value: String::new() }];
    assert!(linux(&|wire| wire.env = var("A_1")).is_ok());
    assert!(matches!(linux(&|wire| wire.env = var("a-b")), Err(BadVersion::Environment(_))));
}

#[test]
fn defaults_and_guest_words() {
    let spec = VersionSpec::check(Some(&good())).unwrap();
    assert_eq!((spec.memory_mib, spec.timeout_ms, spec.tmp_mib), (128, 3000, 64));
    let guest = spec.for_guest(World::WasiPreview1);
    assert_eq!((guest.args, guest.memory_limit_bytes), (vec!["hello".to_owned()], 128 << 20));
    assert_eq!(guest.env.len(), 3);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[A-Za-z_][A-Za-z0-9_]{0,12}",
        "[a-z0-9-]{1,64}",
        "[0-9a-f]{64}",
        ".{0,40}",
        Just("x".repeat(8 << 10)),
        Just("nul\0".to_owned()),
    ]
}

fn words() -> impl Strategy<Value = Vec<String>> {
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
    fn anything()(
        name in word(), code_digest in word(), task_digest in word(), runtime in word(),
        runtime_digest in word(), handler in word(),
        names in words(), args in words(), version in any::<u64>(), kind in -1..4_i32,
        limits in prop::option::of((number(), number(), number())),
    ) -> FunctionVersion {
        let limits = limits.map(|(memory_mib, timeout_ms, tmp_mib)| FunctionLimits {
            memory_mib, timeout_ms, tmp_mib, reserved_concurrency: None,
        });
        let env = names.into_iter().map(|name| EnvVar { value: name.clone(), name }).collect();
        FunctionVersion {
            name, version, code_digest, task_digest, runtime, runtime_digest, handler, kind, limits, args, env,
            ..FunctionVersion::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes over the wire: refused by name, or within every limit, a file name, and fit for a guest's boot page.
    #[test]
    fn anything_is_refused_or_can_be_started(wire in anything()) {
        let spec = match VersionSpec::check(Some(&wire)) {
            Ok(spec) => spec,
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                return Ok(());
            }
        };
        prop_assert!(!spec.name.contains(['/', '.', '\0']) && !spec.name.is_empty());
        prop_assert!(MEMORY_MIB.contains(&spec.memory_mib) && spec.timeout_ms <= MAX_TIMEOUT_MS);
        let linux = matches!(spec.what, What::Linux { .. });
        prop_assert!(linux || spec.tmp_mib <= spec.memory_mib / 2);
        prop_assert!(!linux || LINUX_TMP_MIB.contains(&spec.tmp_mib));
        let told = postcard::to_allocvec(&spec.for_guest(World::WasiPreview1)).unwrap();
        prop_assert!(told.len() + 4096 <= 64 << 10, "{} bytes for the boot page", told.len());
    }
}
