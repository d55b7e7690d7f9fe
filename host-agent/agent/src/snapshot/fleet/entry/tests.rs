use super::*;
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use warren_abi::isa::IsaSet;
use warren_artefact::{Digest, GuestOf, Processor};
use warren_identity::{CERTIFICATE_LIFETIME, Service, ensure_local_at};

/// The least generation that is believed.
const LEAST: u32 = 2;

/// A fleet's files, as one of its hosts has them.
pub(in super::super) fn fleet(host: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    ensure_local_at(dir.path(), Some(HostId::new(host).unwrap()), SystemTime::now()).unwrap();
    dir
}

pub(in super::super) fn keys(dir: &Path) -> Keys {
    Keys::load(dir).unwrap()
}

pub(in super::super) fn of(function: &str) -> SnapshotOf {
    let digest = |text: &str| Digest::of(text.as_bytes());
    let guest = GuestOf::Wasm {
        source: digest("source"),
        code: digest("code"),
        program: digest("program"),
        abi_version: 1,
        isa: IsaSet::BASELINE,
    };
    SnapshotOf { function: function.to_owned(), version: 1, task: None, told: digest("told"), guest }
}

pub(in super::super) fn linux_of(function: &str, kernel: &str) -> SnapshotOf {
    let digest = |text: &str| Digest::of(text.as_bytes());
    let guest = GuestOf::Linux {
        runtime: digest("runtime"),
        kernel: digest(kernel),
        initrd: digest("initrd"),
        machine: digest("machine"),
        processor: Processor { template: "host".into(), seen: digest("leaves") },
        protocol_version: 1,
    };
    SnapshotOf { task: Some(digest("files")), guest, ..of(function) }
}

pub(in super::super) fn head(function: &str) -> SnapshotHead {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    SnapshotHead::new(of(function), vec![7; 100], Part::of(b"memory"), Part::of(b""), now)
}

struct Case {
    dir: TempDir,
    service: Service,
    head: SnapshotHead,
    disk: Option<Name>,
    at: SystemTime,
    generation: u32,
}

impl Case {
    fn new() -> Self {
        let (head, at) = (head("echo"), SystemTime::now());
        Self { dir: fleet("h1"), service: Service::Agent, head, disk: None, at, generation: LEAST }
    }

    fn bytes(&self) -> Vec<u8> {
        let signer = StatementSigner::load(self.dir.path(), self.service).unwrap();
        let facts = Facts {
            head: &self.head,
            memory: Name([1; 32]),
            disk: self.disk,
            sequence: 3,
            stored: Stored { new_bytes: 10, shared_bytes: 20 },
        };
        sign(&signer, facts, self.at, self.generation).unwrap()
    }

    /// As a host of the fleet in `dir` judges these bytes, found under the key of `echo`.
    fn judged(dir: &TempDir, bytes: &[u8], now: SystemTime) -> Result<FleetSnapshot, EntryError> {
        let verifier = StatementVerifier::load(dir.path()).unwrap();
        judge(&verifier, of("echo").key(), bytes, now, LEAST, &keys(dir.path()))
    }

    #[track_caller]
    fn refused(&self, expected: &str) {
        Self::refuses(&self.dir, &self.bytes(), expected);
    }

    #[track_caller]
    fn refuses(dir: &TempDir, bytes: &[u8], expected: &str) {
        let error = Self::judged(dir, bytes, SystemTime::now()).unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains(expected), "{text:?}, and not {expected:?}");
    }
}

#[test]
fn a_good_one_says_what_was_signed() {
    let case = Case::new();
    let found = Case::judged(&case.dir, &case.bytes(), SystemTime::now()).unwrap();
    assert_eq!(found.head, case.head);
    assert_eq!(found.head.begun_with(), None);
    let begun = Case { head: head("echo").begun(Some(Digest::of(b"its runtime's"))), ..Case::new() };
    assert_eq!(Case::judged(&begun.dir, &begun.bytes(), begun.at).unwrap().head, begun.head);
    assert_eq!((found.memory, found.disk, found.sequence), (Name([1; 32]), None, 3));
    assert_eq!((found.by.as_str(), found.stored.shared_bytes), ("h1", 20));
    assert!(!format!("{found:?}").contains("TenantKey"));
    // It outlives its signer's certificate.
    let later = SystemTime::now() + CERTIFICATE_LIFETIME * 3;
    assert!(Case::judged(&case.dir, &case.bytes(), later).is_ok());
}

/// Each is refused by a name of its own.
#[test]
fn what_is_not_believed() {
    let good = Case::new();
    Case::refuses(&fleet("h1"), &good.bytes(), "not of this fleet");
    Case { service: Service::Control, ..Case::new() }.refused("no worker");
    Case { generation: LEAST - 1, ..Case::new() }.refused("generation 1, which was revoked");
    Case { at: SystemTime::now() + Duration::from_hours(1), ..Case::new() }.refused("from the future");
    Case { at: SystemTime::now() - Duration::from_hours(1), ..Case::new() }.refused("not valid at the time");
    Case { head: head("other"), ..Case::new() }.refused("the entry of another snapshot");
    Case { disk: Some(Name([2; 32])), ..Case::new() }.refused("a disk without");
    let parts = |memory, disk| SnapshotHead::new(of("echo"), Vec::new(), memory, disk, 0);
    let large = |len| Part { len, ..Part::of(b"") };
    Case { head: parts(large(1 << 40), Part::of(b"")), ..Case::new() }.refused("more memory than any");
    Case { head: parts(Part::of(b""), large(1 << 40)), ..Case::new() }.refused("a larger disk than any");
    Case { head: parts(Part::of(b""), large(1)), ..Case::new() }.refused("a disk without a manifest");
    let state = vec![0; MAX_STATE_BYTES as usize + 1];
    let long = SnapshotHead::new(of("echo"), state, Part::of(b""), Part::of(b""), 0);
    Case { head: long, ..Case::new() }.refused("a state longer than any");
    let then = SnapshotHead::new(of("echo"), Vec::new(), Part::of(b""), Part::of(b""), u64::MAX);
    Case { head: then, ..Case::new() }.refused("a time that there is not");
    Case::refuses(&good.dir, &vec![0; MAX_BYTES + 1], "longer than any entry");
    Case::refuses(&good.dir, b"", "no signed statement");
}

/// What a worker of the fleet signed and is no entry, or another release's.
#[test]
fn what_is_signed_is_judged_all_the_same() {
    let case = Case::new();
    let signer = StatementSigner::load(case.dir.path(), Service::Agent).unwrap();
    let said = |purpose: &str, body: &[u8]| signer.sign(purpose, case.at, LEAST, body).unwrap();
    for (body, expected) in
        [(&b""[..], "nothing"), (b"\x02rest", "of version 2"), (b"\x03rest", "does not decode")]
    {
        Case::refuses(&case.dir, &said(PURPOSE, body), expected);
    }
    let verifier = StatementVerifier::load(case.dir.path()).unwrap();
    let body = verifier.verify(PURPOSE, &case.bytes(), case.at, 0).unwrap().body.to_vec();
    Case::refuses(&case.dir, &said(PURPOSE, &[&body[..], b"\0"].concat()), "does not decode");
    Case::refuses(&case.dir, &said("something else", &body), "not what was signed");
}

#[test]
fn no_byte_of_one_can_be_changed() {
    let case = Case::new();
    let good = case.bytes();
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(Case::judged(&case.dir, &bytes, case.at).is_err(), "byte {at}");
    }
}

mod property {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static CASE: LazyLock<Case> = LazyLock::new(Case::new);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// A worker of this fleet may sign what it likes.
        #[test]
        fn what_a_worker_signs_is_judged_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
            let case = &*CASE;
            let signer = StatementSigner::load(case.dir.path(), Service::Agent).unwrap();
            let verifier = StatementVerifier::load(case.dir.path()).unwrap();
            let good = verifier.verify(PURPOSE, &case.bytes(), case.at, 0).unwrap().body.to_vec();
            // Anything, and a good one with something else from some byte on.
            for body in [[&[VERSION][..], &bytes].concat(), [&good[..at.index(good.len())], &bytes].concat()] {
                let signed = signer.sign(PURPOSE, case.at, LEAST, &body).unwrap();
                if let Ok(found) = Case::judged(&case.dir, &signed, case.at) {
                    prop_assert_eq!(found.head.of(), &of("echo"));
                }
            }
        }
    }
}
