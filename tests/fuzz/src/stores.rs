//! Chunks and their manifests, and what a compiler that may have been taken over answers.

use crate::Input;
use warren_artefact::{CompileResult, result::ResultError};
use warren_chunks::{
    ChunkKey, ChunkSize, LayerKind, Manifest, Name, Salts, TenantKey,
    manifest::{
        AccessLog, Base, ChunkRef, Entry, Pack, Parts,
        sealed::{ManifestError, open_manifest, references, seal_manifest},
    },
    pages::{PageRun, PageSet},
    salt::SaltId,
    seal::{OpenError, Sealed, open, seal},
};

/// A manifest's body as it may come out of its seal: base, bytes, pages of a chunk, entries, loading set, access log. A chunk is
/// named by a byte.
type Body = (
    Option<(u8, u8)>,
    u64,
    u32,
    Vec<(u32, Option<u8>, PageSet, PageSet)>,
    Vec<(u8, Vec<PageRun>)>,
    Option<AccessLog>,
);

fn sealed(bytes: &[u8]) -> (Sealed, SaltId) {
    let salts = Salts::new([1; 32], [0; 3]);
    let id = salts.newest(LayerKind::Function).id;
    (seal(&salts.salt(id), bytes).expect("no longer than a chunk"), id)
}

fn chunk(byte: u8) -> ChunkRef {
    let (Sealed { name, key, .. }, salt) = sealed(&[byte]);
    ChunkRef { name, key, salt }
}

fn parts(body: Body) -> Option<Parts> {
    let (base, bytes, pages, entries, loading, log) = body;
    let entry = |(window, held, present, zeroed): (u32, Option<u8>, PageSet, PageSet)| Entry {
        window,
        chunk: held.map(chunk),
        present,
        zeroed,
    };
    Some(Parts {
        base: base.map(|(name, depth)| Base { name: Name([name; 32]), depth }),
        bytes,
        size: ChunkSize::of_pages(pages)?,
        entries: entries.into_iter().map(entry).collect(),
        loading: loading.into_iter().map(|(of, pages)| Pack { chunk: chunk(of), pages }).collect(),
        log,
    })
}

/// A manifest of anybody's: what a store reads of it without a key, and what its rules let through when it was sealed with the right
/// one. What is let through is sealed, and is the same again; one altered byte of that is refused.
pub(crate) fn manifest(bytes: &[u8]) {
    let key = TenantKey::new([7; 32]);
    if let Ok(found) = references(bytes) {
        assert!(found.chunks.len() * 32 <= bytes.len() && found.chunks.is_sorted_by(|one, two| one < two));
    }
    assert!(open_manifest(bytes, &key).is_err(), "nobody can guess a seal");

    let mut input = Input(bytes);
    let (at, flip) = (usize::from(input.half()), input.byte());
    let Ok(body) = postcard::from_bytes::<Body>(input.rest()) else { return };
    let Some(parts) = parts(body) else { return };
    let Ok(manifest) = Manifest::judge(parts) else { return };
    assert!(manifest.stored_pages() <= manifest.parts().bytes.div_ceil(4096));
    let sealed = match seal_manifest(&manifest, &key) {
        Ok(sealed) => sealed,
        Err(ManifestError::TooLarge) => return,
        Err(error) => panic!("its rules let it through: {error}"),
    };
    assert_eq!(references(&sealed).expect("our own").chunks, manifest.names());
    assert_eq!(open_manifest(&sealed, &key), Ok(manifest));
    assert!(open_manifest(&sealed, &TenantKey::new([8; 32])).is_err(), "another tenant's key");
    let mut other = sealed.to_vec();
    let at = at % other.len();
    other[at] ^= flip | 1;
    assert!(open_manifest(&other, &key).is_err(), "byte {at}");
}

/// A chunk that lies: about its name, its key, its length, one of its bytes. What is opened is what was sealed.
pub(crate) fn chunk_bytes(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (at, flip, length) = (usize::from(input.half()), input.byte(), usize::from(input.half()));
    let plain = input.rest();
    let (Sealed { name, key, bytes: good }, _) = sealed(plain);
    assert_eq!(open(&name, &key, plain.len(), &good).as_deref(), Ok(plain));
    if length != plain.len() {
        assert_eq!(open(&name, &key, length, &good), Err(OpenError::NotItsLength));
    }
    let mut lie = good.to_vec();
    let at = at % lie.len();
    lie[at] ^= flip | 1;
    assert_eq!(open(&name, &key, plain.len(), &lie), Err(OpenError::NotItsName));
    assert_eq!(open(&Name::of(&lie), &key, plain.len(), &lie), Err(OpenError::NotItsKey));
    // The input itself as a chunk, under a name that is its own.
    let other: &ChunkKey = &key;
    assert_eq!(open(&Name::of(plain), other, length, plain), Err(OpenError::NotItsKey));
}

/// What `warren-compile` answers: a module's facts and its code, or why not. What is read is written the same way again, and is no
/// longer than what came.
pub(crate) fn compile_answer(bytes: &[u8]) {
    let head = match CompileResult::read(bytes) {
        Ok(CompileResult::Compiled { facts, code }) => {
            assert!(code.len() as u64 == facts.code_len && code.len() < bytes.len());
            assert!(facts.imports.iter().map(String::len).sum::<usize>() < bytes.len());
            let mut again = CompileResult::encode_head(&Ok(facts.clone()));
            again.extend_from_slice(&code);
            let expected = CompileResult::Compiled { facts, code };
            assert_eq!(CompileResult::read(&again[..]).expect("our own"), expected);
            return;
        }
        Ok(CompileResult::Refused(error)) => error,
        Err(ResultError::Io(error)) => panic!("bytes in memory: {error}"),
        Err(ResultError::Empty | ResultError::Malformed(_)) => return,
    };
    assert!(!head.name().is_empty());
    let again = CompileResult::encode_head(&Err(head.clone()));
    assert_eq!(CompileResult::read(&again[..]).expect("our own"), CompileResult::Refused(head));
}
