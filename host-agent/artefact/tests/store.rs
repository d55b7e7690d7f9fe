//! The directory store: what is there is whole, what is not whole is not there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it found by failing")]

use std::fs;
use std::os::unix::fs::symlink;
use warren_abi::isa::IsaSet;
use warren_artefact::metadata::MemoryDemand;
use warren_artefact::store::Damage;
use warren_artefact::{
    Artefact, ArtefactKey, Compiled, Digest, Lookup, Purpose, SigningKey, Store, VerifyingKey, World,
};

struct Bench {
    store: Store,
    directory: tempfile::TempDir,
    key: SigningKey,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("artefacts")).unwrap();
        Self { store, directory, key: SigningKey::from_secret(&[3; 32].into()) }
    }

    fn artefact(&self, module: &[u8], code: &[u8]) -> Artefact {
        let facts = Compiled {
            world: World::Preview1,
            memory: MemoryDemand::default(),
            imports: Vec::new(),
            code_len: code.len() as u64,
        };
        let metadata = facts.into_metadata(module, code, Purpose::Function, IsaSet::BASELINE, 0);
        Artefact::sign(&metadata, code, &self.key).unwrap()
    }

    fn get(&self, module: &[u8]) -> Lookup {
        self.store.get(key_of(module), &self.trusted()).unwrap()
    }

    fn trusted(&self) -> [VerifyingKey; 1] {
        [self.key.verifying_key()]
    }
}

fn key_of(module: &[u8]) -> ArtefactKey {
    ArtefactKey::new(Digest::of(module), Purpose::Function, IsaSet::BASELINE)
}

fn assert_hit(found: Lookup, expected: &Artefact) {
    match found {
        Lookup::Hit(artefact) => assert_eq!(artefact, *expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn put_get_again_and_after_reopening() {
    let bench = Bench::new();
    assert!(matches!(bench.get(b"m"), Lookup::Miss));
    let artefact = bench.artefact(b"m", b"code");
    for _ in 0..2 {
        bench.store.put(&artefact).unwrap();
        assert_hit(bench.get(b"m"), &artefact);
    }
    let reopened = Store::open(bench.directory.path().join("artefacts")).unwrap();
    assert_hit(reopened.get(key_of(b"m"), &bench.trusted()).unwrap(), &artefact);
    assert!(matches!(bench.get(b"other"), Lookup::Miss));
}

#[test]
fn damage_is_found_and_put_repairs_it() {
    let bench = Bench::new();
    let good = bench.artefact(b"m", &[9; 10_000]);
    let path = bench.store.path(key_of(b"m"));
    let whole = good.envelope().to_vec();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damages = [Vec::new(), whole[..5000].to_vec(), flipped(0), flipped(60), flipped(4095), flipped(9999)];
    for bytes in damages {
        bench.store.put(&good).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(bench.get(b"m"), Lookup::Damaged(Damage::Envelope(_))), "{} bytes", bytes.len());
        bench.store.put(&good).unwrap();
        assert_hit(bench.get(b"m"), &good);
    }
}

#[test]
fn a_good_artefact_under_a_wrong_name_is_damage() {
    let bench = Bench::new();
    let other = bench.artefact(b"other", b"code");
    bench.store.put(&bench.artefact(b"m", b"code")).unwrap();
    bench.store.put(&other).unwrap();
    fs::copy(bench.store.path(key_of(b"other")), bench.store.path(key_of(b"m"))).unwrap();
    match bench.get(b"m") {
        Lookup::Damaged(Damage::OtherKey { found }) => assert_eq!(found, key_of(b"other")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn strangers_artefacts_and_links_are_not_used() {
    let bench = Bench::new();
    let artefact = bench.artefact(b"m", b"code");
    bench.store.put(&artefact).unwrap();
    let stranger = SigningKey::from_secret(&[4; 32].into()).verifying_key();
    assert!(matches!(bench.store.get(key_of(b"m"), &[stranger]).unwrap(), Lookup::Damaged(_)));

    let path = bench.store.path(key_of(b"m"));
    let aside = bench.directory.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    symlink(&aside, &path).unwrap();
    assert!(bench.store.get(key_of(b"m"), &bench.trusted()).is_err(), "a link is never followed");
    bench.store.put(&artefact).unwrap();
    assert_hit(bench.get(b"m"), &artefact);
}

#[test]
fn a_larger_file_than_any_artefact_is_not_read() {
    let bench = Bench::new();
    bench.store.put(&bench.artefact(b"m", b"code")).unwrap();
    let file = fs::File::options().write(true).open(bench.store.path(key_of(b"m"))).unwrap();
    // Sparse, so the test costs no disk.
    file.set_len(warren_artefact::envelope::MAX_ENVELOPE_BYTES + 1).unwrap();
    assert!(matches!(bench.get(b"m"), Lookup::Damaged(Damage::TooLarge)));
}

#[test]
fn writers_and_readers_of_one_key_at_once() {
    let bench = Bench::new();
    let artefact = bench.artefact(b"m", &vec![5; 200_000]);
    bench.store.put(&artefact).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| bench.store.put(&artefact).unwrap()));
            scope.spawn(|| (0..20).for_each(|_| assert_hit(bench.get(b"m"), &artefact)));
        }
    });
    let leftovers = fs::read_dir(bench.directory.path().join("artefacts/tmp")).unwrap().count();
    assert_eq!(leftovers, 0);
}

#[test]
fn old_leftovers_go_young_ones_stay() {
    let bench = Bench::new();
    let temporary = bench.directory.path().join("artefacts/tmp");
    let (old, young) = (temporary.join("1-0"), temporary.join("2-0"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    fs::File::create(&old).unwrap().set_modified(long_ago).unwrap();
    fs::File::create(&young).unwrap();
    Store::open(bench.directory.path().join("artefacts")).unwrap();
    assert!(!old.exists() && young.exists());
}

#[test]
fn a_put_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let artefact = bench.artefact(b"m", b"code");
    // A file where the shard directory should be: every user, root as well, fails to write below it.
    let shard = bench.store.path(key_of(b"m")).parent().unwrap().to_owned();
    fs::write(&shard, b"").unwrap();
    let error = bench.store.put(&artefact).unwrap_err();
    assert!(!error.is_disk_full(), "{error}");
    assert_eq!(fs::read_dir(bench.directory.path().join("artefacts/tmp")).unwrap().count(), 0);
    fs::remove_file(&shard).unwrap();
    bench.store.put(&artefact).unwrap();
    assert_hit(bench.get(b"m"), &artefact);
}
