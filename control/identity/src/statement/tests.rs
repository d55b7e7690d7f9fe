use super::*;
use crate::{CERTIFICATE_LIFETIME, ensure_local_at, files::write};
use tempfile::TempDir;

const PURPOSE: &str = "test";

fn fleet(now: SystemTime) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    ensure_local_at(dir.path(), Some(HostId::from_any("h1")), now).unwrap();
    dir
}

fn signer(dir: &TempDir) -> StatementSigner {
    StatementSigner::load(dir.path(), Service::Agent).unwrap()
}

#[track_caller]
fn check(dir: &TempDir, bytes: &[u8], now: SystemTime, expected: &str) {
    let verifier = StatementVerifier::load(dir.path()).unwrap();
    let said = match verifier.verify(PURPOSE, bytes, now, 3) {
        Ok(good) => format!("{}: {:?} {}", good.host, good.body, good.generation),
        Err(error) => error.to_string(),
    };
    assert!(said.contains(expected), "{said:?}, and not {expected:?}");
}

/// Each case is refused by its own name, and the good one is not.
#[test]
fn who_said_it_and_when() {
    let now = SystemTime::now();
    let (ours, theirs) = (fleet(now), fleet(now));
    let day = Duration::from_hours(24);
    let sign = |dir: &TempDir, at, generation| signer(dir).sign(PURPOSE, at, generation, b"yes").unwrap();
    check(&ours, &sign(&ours, now, 3), now, "h1: [121, 101, 115] 3");
    check(&ours, &sign(&ours, now, 3), now + CERTIFICATE_LIFETIME * 4, "h1: ");
    check(&ours, &sign(&theirs, now, 3), now, "not of this fleet");
    check(&ours, &sign(&ours, now + day, 3), now, "from the future");
    check(
        &ours,
        &sign(&ours, now + CERTIFICATE_LIFETIME * 2, 3),
        now + CERTIFICATE_LIFETIME * 3,
        "not valid at the time",
    );
    check(&ours, &sign(&ours, now - day, 3), now, "not valid at the time");
    check(&ours, &sign(&ours, UNIX_EPOCH, 3), now, "not valid at the time");
    check(&ours, &sign(&ours, now, 2), now, "it is of generation 2, which was revoked: 3");
    check(&ours, &sign(&ours, now, 3), now + day * 365 * 11, "CA has expired");
    let control = StatementSigner::load(ours.path(), Service::Control).unwrap();
    check(&ours, &control.sign(PURPOSE, now, 3, b"yes").unwrap(), now, "no worker");
    check(&ours, &signer(&ours).sign("other", now, 3, b"yes").unwrap(), now, "not what was signed");
}

/// A certificate that somebody made for themselves, and one whose issuer only has the name of ours.
#[test]
fn a_ca_of_the_same_name_is_another() {
    let now = SystemTime::now();
    let (ours, theirs) = (fleet(now), fleet(now));
    for name in ["agent.pem", "agent.key"] {
        let text = std::fs::read_to_string(theirs.path().join(name)).unwrap();
        write(ours.path(), name, &text).unwrap();
    }
    let said = signer(&theirs).sign(PURPOSE, now, 3, b"yes").unwrap();
    check(&ours, &said, now, "not of this fleet");
    check(&theirs, &said, now, "h1: ");
    // Nor does a host of ours sign with such a pair.
    assert!(StatementSigner::load(ours.path(), Service::Agent).is_err());
}

#[test]
fn no_byte_can_be_changed_and_none_left_out() {
    let now = SystemTime::now();
    let ours = fleet(now);
    let verifier = StatementVerifier::load(ours.path()).unwrap();
    let good = signer(&ours).sign(PURPOSE, now, 3, b"yes").unwrap();
    verifier.verify(PURPOSE, &good, now, 0).unwrap();
    for at in 0..good.len() {
        for bit in [0, 3, 7] {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(verifier.verify(PURPOSE, &bytes, now, 0).is_err(), "byte {at}, bit {bit}");
        }
        assert!(verifier.verify(PURPOSE, &good[..at], now, 0).is_err(), "the first {at} bytes");
    }
    let mut longer = good;
    longer.push(0);
    assert!(verifier.verify(PURPOSE, &longer, now, 0).is_err());
}

mod property {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_of_any_origin_are_judged_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..400), begins in any::<bool>()) {
            let mut whole = if begins { MAGIC.to_vec() } else { Vec::new() };
            whole.extend(bytes);
            prop_assert!(split(&whole).is_err() || whole.starts_with(&MAGIC));
            if let Ok(parts) = split(&whole) {
                prop_assert_eq!(HEAD + parts.certificate.len() + parts.body.len() + parts.signature.len(), whole.len());
            }
        }
    }
}
