use super::*;
use proptest::prelude::*;
use zeroize::Zeroizing;

fn key(secret: u8) -> SigningKey {
    SigningKey::from_secret(&Zeroizing::new([secret; 32]))
}

fn wasm() -> GuestOf {
    GuestOf::Wasm {
        source: Digest::of(b"module"),
        code: Digest::of(b"code"),
        program: Digest::of(b"guest"),
        abi_version: 2,
        isa: IsaSet::BASELINE,
    }
}

fn linux() -> GuestOf {
    let [runtime, kernel, initrd, machine] =
        [b"runtime", b"kernel.", b"initrd.", b"machine"].map(|bytes| Digest::of(bytes));
    let processor = Processor { template: "amd-zen".into(), seen: Digest::of(b"leaves") };
    GuestOf::Linux { runtime, kernel, initrd, machine, processor, protocol_version: 5 }
}

fn of(function: &str) -> SnapshotOf {
    SnapshotOf { function: function.into(), version: 1, task: None, told: Digest::of(b"told"), guest: wasm() }
}

fn linux_of(function: &str) -> SnapshotOf {
    SnapshotOf { task: Some(Digest::of(b"files")), guest: linux(), ..of(function) }
}

fn memory() -> Vec<u8> {
    (0..3 * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

const DISK: &[u8] = b"a disk without its holes";

/// A whole file.
fn file() -> Vec<u8> {
    file_of(&of("hello"), b"")
}

fn file_of(of: &SnapshotOf, disk: &[u8]) -> Vec<u8> {
    let part = copy(&mut memory().as_slice(), &mut io::sink()).unwrap();
    assert_eq!(part, Part::of(&memory()));
    let head = SnapshotHead::new(of.clone(), b"state".to_vec(), part, Part::of(disk), 7);
    let mut file = Vec::new();
    head.write(&key(1), &mut file).unwrap();
    assert_eq!(file.len() % PAGE, 0);
    file.extend(memory());
    file.extend(disk);
    file
}

/// State, memory, disk.
type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

fn open(file: &[u8], of: &SnapshotOf, trusted: &SigningKey) -> Result<Parts, SnapshotError> {
    let mut from = file;
    let head = SnapshotHead::read(&mut from, of, &[trusted.verifying_key()])?;
    let (mut memory, mut disk) = (Vec::new(), Vec::new());
    head.copy_memory(&mut from, &mut memory)?;
    head.copy_disk(&mut from, &mut disk)?;
    Ok((head.state().to_vec(), memory, disk))
}

#[test]
fn what_was_written_is_read() {
    let with = |disk: &[u8]| (b"state".to_vec(), memory(), disk.to_vec());
    assert_eq!(open(&file(), &of("hello"), &key(1)).unwrap(), with(b""));
    let linux = linux_of("hello");
    assert_eq!(open(&file_of(&linux, DISK), &linux, &key(1)).unwrap(), with(DISK));
    assert_eq!((of("a").source(), linux.source()), (Some(Digest::of(b"module")), Some(Digest::of(b"files"))));
}

#[test]
fn what_is_not_served() {
    let longer = [file(), vec![0]].concat();
    let whole = file();
    let with_disk = file_of(&linux_of("hello"), DISK);
    let cut = with_disk.len() - 1;
    let cases: [(&[u8], SnapshotOf, u8, &str); 7] = [
        (&whole, of("other"), 1, "made of something else"),
        (&whole, SnapshotOf { guest: linux(), ..of("hello") }, 1, "made of something else"),
        (&with_disk[..cut - DISK.len()], linux_of("hello"), 1, "memory does not have the length"),
        (&with_disk[..cut], linux_of("hello"), 1, "disk does not have the length"),
        (&whole, of("hello"), 2, "refused"),
        (&longer, of("hello"), 1, "disk does not have the length"),
        (b"", of("hello"), 1, "cut short"),
    ];
    for (file, of, trusted, words) in cases {
        let error = open(file, &of, &key(trusted)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}, not {words}");
    }
}

#[test]
fn every_part_is_in_the_key() {
    let x = Digest::of(b"x");
    let wasm = |change: &dyn Fn([&mut Digest; 3], &mut u32, &mut IsaSet)| {
        let mut guest = wasm();
        if let GuestOf::Wasm { source, code, program, abi_version, isa } = &mut guest {
            change([source, code, program], abi_version, isa);
        }
        SnapshotOf { guest, ..of("a") }
    };
    let linux = |change: &dyn Fn([&mut Digest; 5], &mut String, &mut u32)| {
        let mut guest = linux();
        if let GuestOf::Linux { runtime, kernel, initrd, machine, processor, protocol_version } = &mut guest {
            let Processor { template, seen } = processor;
            change([runtime, kernel, initrd, machine, seen], template, protocol_version);
        }
        SnapshotOf { guest, ..of("a") }
    };
    let base = of("a");
    let others = [
        of("b"),
        SnapshotOf { version: 2, ..base.clone() },
        SnapshotOf { task: Some(x), ..base.clone() },
        SnapshotOf { told: x, ..base.clone() },
        wasm(&|[source, ..], _, _| *source = x),
        wasm(&|[_, code, _], _, _| *code = x),
        wasm(&|[.., program], _, _| *program = x),
        wasm(&|_, abi_version, _| *abi_version = 3),
        wasm(&|_, _, isa| *isa = IsaSet(0x7FF)),
        linux(&|_, _, _| {}),
        linux(&|[runtime, ..], _, _| *runtime = x),
        linux(&|[_, kernel, ..], _, _| *kernel = x),
        linux(&|[_, _, initrd, ..], _, _| *initrd = x),
        linux(&|[.., machine, _], _, _| *machine = x),
        linux(&|[.., seen], _, _| *seen = x),
        linux(&|_, template, _| *template = "host".into()),
        linux(&|_, _, protocol_version| *protocol_version = 6),
    ];
    let keys: std::collections::BTreeSet<_> = others.iter().map(SnapshotOf::key).collect();
    assert_eq!(keys.len(), others.len());
    for other in others {
        assert_ne!(base.key(), other.key(), "{other:?}");
    }
    assert_eq!(base.key(), of("a").key());
    assert_eq!(SnapshotKey::from_hex(&base.key().to_string()), Some(base.key()));
    assert_eq!(["", "00", &"g".repeat(64), &"0".repeat(65)].map(SnapshotKey::from_hex), [None; 4]);
}

proptest! {
    #[test]
    fn no_flipped_bit_is_served(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let of = linux_of("hello");
        let mut file = file_of(&of, DISK);
        let at = at.index(file.len());
        file[at] ^= 1_u8 << bit;
        prop_assert!(open(&file, &of, &key(1)).is_err(), "byte {at}");
    }

    #[test]
    fn no_cut_is_served(at in any::<prop::sample::Index>()) {
        let of = linux_of("hello");
        let file = file_of(&of, DISK);
        prop_assert!(open(&file[..at.index(file.len())], &of, &key(1)).is_err());
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&bytes, &of("hello"), &key(1)).is_err());
        let like = [MAGIC.as_slice(), &bytes].concat();
        prop_assert!(open(&like, &of("hello"), &key(1)).is_err());
    }
}

#[test]
fn functions_of_one_guest_begin_with_one_runtimes() {
    let [one, other] = ["one", "other"].map(linux_of);
    let runtime = one.runtime().unwrap();
    assert_eq!(other.runtime(), Some(runtime.clone()));
    assert!(runtime.is_runtime() && !one.is_runtime() && runtime.source().is_none());
    assert_eq!((runtime.runtime(), of("wasm").runtime()), (None, None));
    // Another kernel, init, runtime, machine, processor or VMM is another guest, with another one.
    for part in 0..6 {
        let mut another = one.clone();
        if let GuestOf::Linux { runtime, kernel, initrd, machine, processor, protocol_version } =
            &mut another.guest
        {
            match [runtime, kernel, initrd, machine, &mut processor.seen].into_iter().nth(part) {
                Some(digest) => *digest = Digest::of(b"another"),
                None => *protocol_version += 1,
            }
        }
        assert_ne!(another.runtime().unwrap().key(), runtime.key(), "{part}");
    }
    assert!([one, other].iter().all(|function| function.key() != runtime.key()));
}
