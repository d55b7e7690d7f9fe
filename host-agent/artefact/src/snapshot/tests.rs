use super::*;
use proptest::prelude::*;
use zeroize::Zeroizing;

fn key(secret: u8) -> SigningKey {
    SigningKey::from_secret(&Zeroizing::new([secret; 32]))
}

fn of(function: &str) -> SnapshotOf {
    SnapshotOf {
        function: function.into(),
        source: Digest::of(b"module"),
        code: Digest::of(b"code"),
        task: None,
        told: Digest::of(b"told"),
        guest: Digest::of(b"guest"),
        abi_version: 2,
        isa: IsaSet::BASELINE,
    }
}

fn memory() -> Vec<u8> {
    (0..3 * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// A whole file.
fn file() -> Vec<u8> {
    let (digest, len) = copy(&mut memory().as_slice(), &mut io::sink()).unwrap();
    let head = SnapshotHead::new(of("hello"), b"state".to_vec(), digest, len, 7);
    let mut file = Vec::new();
    head.write(&key(1), &mut file).unwrap();
    assert_eq!(file.len() % PAGE, 0);
    file.extend(memory());
    file
}

fn open(file: &[u8], of: &SnapshotOf, trusted: &SigningKey) -> Result<(Vec<u8>, Vec<u8>), SnapshotError> {
    let mut from = file;
    let head = SnapshotHead::read(&mut from, of, &[trusted.verifying_key()])?;
    let mut memory = Vec::new();
    head.copy_memory(&mut from, &mut memory)?;
    Ok((head.state().to_vec(), memory))
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(open(&file(), &of("hello"), &key(1)).unwrap(), (b"state".to_vec(), memory()));
}

#[test]
fn what_is_not_served() {
    let longer = [file(), vec![0]].concat();
    let whole = file();
    let cases: [(&[u8], SnapshotOf, u8, &str); 5] = [
        (&whole, of("other"), 1, "made of something else"),
        (&whole, SnapshotOf { guest: Digest::of(b"new"), ..of("hello") }, 1, "made of something else"),
        (&whole, of("hello"), 2, "refused"),
        (&longer, of("hello"), 1, "memory does not have the length"),
        (b"", of("hello"), 1, "cut short"),
    ];
    for (file, of, trusted, words) in cases {
        let error = open(file, &of, &key(trusted)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}, not {words}");
    }
}

#[test]
fn every_part_is_in_the_key() {
    let base = of("a");
    let others = [
        of("b"),
        SnapshotOf { source: Digest::of(b"x"), ..base.clone() },
        SnapshotOf { code: Digest::of(b"x"), ..base.clone() },
        SnapshotOf { task: Some(Digest::of(b"x")), ..base.clone() },
        SnapshotOf { told: Digest::of(b"x"), ..base.clone() },
        SnapshotOf { guest: Digest::of(b"x"), ..base.clone() },
        SnapshotOf { abi_version: 3, ..base.clone() },
        SnapshotOf { isa: IsaSet(0x7FF), ..base.clone() },
    ];
    for other in others {
        assert_ne!(base.key(), other.key(), "{other:?}");
    }
    assert_eq!(base.key(), of("a").key());
}

proptest! {
    #[test]
    fn no_flipped_bit_is_served(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut file = file();
        let at = at.index(file.len());
        file[at] ^= 1_u8 << bit;
        prop_assert!(open(&file, &of("hello"), &key(1)).is_err(), "byte {at}");
    }

    #[test]
    fn no_cut_is_served(at in any::<prop::sample::Index>()) {
        let file = file();
        prop_assert!(open(&file[..at.index(file.len())], &of("hello"), &key(1)).is_err());
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&bytes, &of("hello"), &key(1)).is_err());
        let like = [MAGIC.as_slice(), &bytes].concat();
        prop_assert!(open(&like, &of("hello"), &key(1)).is_err());
    }
}
