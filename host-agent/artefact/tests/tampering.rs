//! Nothing that was changed after signing is believed, in any of the forms an artefact takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it found by failing")]

use proptest::prelude::*;
use std::sync::LazyLock;
use warren_abi::isa::IsaSet;
use warren_artefact::metadata::MemoryDemand;
use warren_artefact::{
    Artefact, CompileError, CompileResult, Compiled, Digest, EnvelopeError, Metadata, Purpose, SigningKey,
    VerifyError, VerifyingKey, World, sign, verify,
};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_secret(&[7; 32].into()));
static STRANGER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_secret(&[8; 32].into()));
static CODE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..5000_u32).map(|i| i.to_le_bytes()[0]).collect());

fn metadata() -> Metadata {
    Metadata {
        purpose: Purpose::Function,
        world: World::Preview1,
        source: Digest::of(b"the module"),
        code: Digest::of(&CODE),
        code_len: CODE.len() as u64,
        isa: IsaSet::BASELINE,
        wasmtime: warren_abi::WASMTIME_VERSION.into(),
        settings: warren_artefact::settings::SETTINGS_VERSION,
        memory: MemoryDemand { initial_bytes: 1 << 20, max_bytes: None },
        imports: vec!["wasi_snapshot_preview1.fd_write".into()],
        created_unix_s: 1_790_000_000,
    }
}

fn trusted() -> [VerifyingKey; 1] {
    [KEY.verifying_key()]
}

#[test]
fn what_was_signed_is_believed() {
    assert_eq!(verify(&sign(&metadata(), &KEY), &CODE, &trusted()), Ok(metadata()));
    let both = [STRANGER.verifying_key(), KEY.verifying_key()];
    assert_eq!(verify(&sign(&metadata(), &KEY), &CODE, &both), Ok(metadata()));
    let artefact = Artefact::sign(&metadata(), &CODE, &KEY).unwrap();
    assert_eq!(artefact.code(), *CODE);
    assert_eq!(artefact.envelope().len() % 4096, CODE.len() % 4096, "code begins on a page");
    assert_eq!(Artefact::open(artefact.envelope().to_vec(), &trusted()), Ok(artefact));
}

#[test]
fn who_signed_and_what_was_signed_both_count() {
    let signed = sign(&metadata(), &KEY);
    assert_eq!(verify(&signed, &CODE, &[]), Err(VerifyError::Untrusted));
    assert_eq!(verify(&signed, &CODE, &[STRANGER.verifying_key()]), Err(VerifyError::Untrusted));
    assert_eq!(verify(&sign(&metadata(), &STRANGER), &CODE, &trusted()), Err(VerifyError::Untrusted));
    assert_eq!(
        verify(&signed, &CODE[1..], &trusted()),
        Err(VerifyError::CodeLength { found: 4999, signed: 5000 })
    );
    assert_eq!(verify(&signed, &vec![0; 5000], &trusted()), Err(VerifyError::CodeDigest));
    let wrong = Artefact::sign(&metadata(), b"other code", &KEY);
    assert!(matches!(wrong, Err(EnvelopeError::Refused(VerifyError::CodeLength { .. }))));
}

#[test]
fn weak_public_keys_are_no_keys() {
    assert!(VerifyingKey::from_bytes(&[0; 32]).is_err(), "small order");
    assert!(VerifyingKey::from_bytes(&[1; 31]).is_err());
    assert_eq!(VerifyingKey::from_bytes(&KEY.verifying_key().to_bytes()), Ok(KEY.verifying_key()));
}

#[test]
fn every_byte_of_signed_metadata_counts() {
    let signed = sign(&metadata(), &KEY);
    for position in 0..signed.len() {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed[position] ^= 1 << bit;
            assert!(verify(&changed, &CODE, &trusted()).is_err(), "byte {position} bit {bit}");
        }
    }
    for length in 0..signed.len() {
        assert!(verify(&signed[..length], &CODE, &trusted()).is_err(), "cut to {length}");
    }
    assert!(verify(&[&signed[..], &[0]].concat(), &CODE, &trusted()).is_err());
}

proptest! {
    /// The envelope whole: header, metadata, signature, padding and code.
    #[test]
    fn any_flipped_bit_of_an_envelope_is_refused(position in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut envelope = Artefact::sign(&metadata(), &CODE, &KEY).unwrap().envelope().to_vec();
        let position = position.index(envelope.len());
        envelope[position] ^= 1 << bit;
        prop_assert!(Artefact::open(envelope, &trusted()).is_err());
    }

    #[test]
    fn any_cut_or_longer_envelope_is_refused(length in any::<prop::sample::Index>(), more in 1..9000_usize) {
        let envelope = Artefact::sign(&metadata(), &CODE, &KEY).unwrap().envelope().to_vec();
        prop_assert!(Artefact::open(envelope[..length.index(envelope.len())].to_vec(), &trusted()).is_err());
        let mut longer = envelope;
        longer.resize(longer.len() + more, 0);
        prop_assert!(Artefact::open(longer, &trusted()).is_err());
    }

    /// Random bytes behind each right beginning neither panic nor pass.
    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&noise, &CODE, &trusted()).is_err());
        prop_assert!(verify(&[&b"WRNMETA\x01"[..], &noise].concat(), &CODE, &trusted()).is_err());
        prop_assert!(Artefact::open(noise.clone(), &trusted()).is_err());
        prop_assert!(Artefact::open([&b"WRNARTF\x01"[..], &noise].concat(), &trusted()).is_err());
        prop_assert!(CompileResult::read(&noise[..]).is_err());
        prop_assert!(CompileResult::read(&[&b"WRNCOMP\x01"[..], &noise].concat()[..]).is_err());
    }

    #[test]
    fn answers_survive_the_descriptor(code in prop::collection::vec(any::<u8>(), 0..9000), cut in any::<prop::sample::Index>()) {
        let facts = Compiled {
            world: World::Function,
            memory: MemoryDemand { initial_bytes: 65536, max_bytes: Some(1 << 20) },
            imports: vec!["warren:function/host@0.1.0".into()],
            code_len: code.len() as u64,
        };
        let bytes = [CompileResult::encode_head(&Ok(facts.clone())), code.clone()].concat();
        prop_assert_eq!((bytes.len() - code.len()) % 4096, 0);
        prop_assert_eq!(CompileResult::read(&bytes[..]).unwrap(), CompileResult::Compiled { facts, code });
        prop_assert!(CompileResult::read(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(CompileResult::read(&[&bytes[..], b"x"].concat()[..]).is_err());
    }
}

#[test]
fn refusals_survive_the_descriptor() {
    let error = CompileError::MissingImport { import: "env.system".into(), hint: "WASI preview 1".into() };
    let bytes = CompileResult::encode_head(&Err(error.clone()));
    assert_eq!(CompileResult::read(&bytes[..]).unwrap(), CompileResult::Refused(error));
}
