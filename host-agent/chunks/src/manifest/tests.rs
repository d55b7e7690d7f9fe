//! Images there and back, and manifests that are not what they say.

use super::*;
use crate::{
    cut::{Source, cut, cut_diff},
    image::{Image, Loading, Place, ResolveError},
    manifest::sealed::{ManifestError, open_manifest, references, seal_manifest},
    name::TenantKey,
    pages::{PAGE_BYTES, PageRun},
    salt::{Domain, LayerKind, Salts},
    seal::{Sealed, open},
};
use proptest::prelude::*;
use std::{collections::HashMap, convert::Infallible};

const SMALL: ChunkSize = match ChunkSize::of_pages(16) {
    Some(size) => size,
    None => ChunkSize::DEFAULT,
};

type Case<'a> = (&'a dyn Fn(&mut Parts), Malformed);

#[derive(Default)]
struct Kept(HashMap<Name, bytes::Bytes>);

impl Kept {
    #[expect(clippy::unnecessary_wraps, reason = "what cutting asks for")]
    fn keep(&mut self, sealed: Sealed) -> Result<(), Infallible> {
        self.0.insert(sealed.name, sealed.bytes);
        Ok(())
    }

    fn page(&self, image: &Image, page: u32) -> [u8; PAGE_BYTES] {
        match image.place(page) {
            Place::Zero => [0; PAGE_BYTES],
            Place::In { chunk, rank, of, .. } => self.of(chunk, rank, of),
        }
    }

    fn of(&self, chunk: &ChunkRef, rank: u32, of: u32) -> [u8; PAGE_BYTES] {
        let plain = open(&chunk.name, &chunk.key, of as usize * PAGE_BYTES, &self.0[&chunk.name]).unwrap();
        plain.as_chunks::<PAGE_BYTES>().0[rank as usize]
    }

    fn image(&self, image: &Image) -> Vec<u8> {
        let mut all: Vec<u8> = (0..image.pages()).flat_map(|page| self.page(image, page)).collect();
        all.truncate(usize::try_from(image.bytes()).unwrap());
        all
    }
}

fn domain(kind: LayerKind) -> Domain {
    Salts::new([9; 32], [0; 3]).newest(kind)
}

fn key() -> TenantKey {
    TenantKey::new([5; 32])
}

fn through(manifest: &Manifest) -> Manifest {
    open_manifest(&seal_manifest(manifest, &key()).unwrap(), &key()).unwrap()
}

/// Sparse pages: mostly zero, few values, so that chunks repeat.
fn pages(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let page = prop_oneof![3 => Just(0u8), 2 => 1..4u8];
    (prop::collection::vec(page, count), 0..PAGE_BYTES).prop_map(|(values, cut)| {
        let mut bytes: Vec<u8> = values.iter().flat_map(|&value| [value; PAGE_BYTES]).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

fn whole(bytes: &[u8], kept: &mut Kept) -> Manifest {
    cut(bytes, SMALL, &domain(LayerKind::Runtime), |sealed| kept.keep(sealed)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_comes_back_and_no_zero_page_is_stored(bytes in pages(0..70)) {
        let mut kept = Kept::default();
        let manifest = through(&whole(&bytes, &mut kept));
        let full = bytes.chunks(PAGE_BYTES).filter(|page| !crate::pages::is_zero(page)).count();
        prop_assert_eq!(manifest.stored_pages(), full as u64);
        prop_assert_eq!(kept.0.len(), manifest.names().len());
        let image = Image::whole(manifest).unwrap();
        prop_assert_eq!(kept.image(&image), bytes);
    }

    #[test]
    fn a_chain_of_diffs_comes_back_and_so_does_what_was_packed(
        first in pages(30..40), changes in prop::collection::vec(prop::collection::vec((0..45u32, 0..4u8), 0..20), 1..4),
        touched in prop::collection::vec(0..45u32, 0..40),
    ) {
        let mut kept = Kept::default();
        let mut bytes = first;
        bytes.resize(40 * PAGE_BYTES, 0);
        let base = whole(&bytes, &mut kept);
        let log = AccessLog::of_resume(touched.iter().copied().filter(|&page| page < 40));
        let domains = (&domain(LayerKind::Runtime), &domain(LayerKind::Function));
        let read = |bytes: &[u8], page: u32, out: &mut [u8]| bytes.read_at(u64::from(page) * PAGE_BYTES as u64, out);
        let packs = Image::whole(base.clone()).unwrap()
            .pack(&log, domains, |page, out| read(&bytes, page, out), |sealed| kept.keep(sealed)).unwrap();
        let base = base.with_loading(packs, Some(log.clone())).unwrap();
        let mut stored = HashMap::from([(Name::of(&seal_manifest(&base, &key()).unwrap()), base.clone())]);
        let mut image = Image::whole(base).unwrap();
        let mut name = *stored.keys().next().unwrap();
        for change in changes {
            for &(page, value) in &change {
                if page < 40 {
                    bytes[page as usize * PAGE_BYTES..][..PAGE_BYTES].fill(value);
                }
            }
            let dirty = change.iter().map(|(page, _)| *page);
            let diff = cut_diff((name, &image), &bytes[..], dirty, domains.1, |sealed| kept.keep(sealed)).unwrap();
            let find = |name: Name| stored.get(&name).cloned().ok_or(std::fmt::Error);
            let plain = Image::resolve(diff.clone(), find).unwrap();
            let packs = plain
                .pack(&log, domains, |page, out| read(&bytes, page, out), |sealed| kept.keep(sealed)).unwrap();
            let diff = through(&diff.with_loading(packs, Some(log.clone())).unwrap());
            image = Image::resolve(diff.clone(), find).unwrap();
            name = Name::of(&seal_manifest(&diff, &key()).unwrap());
            stored.insert(name, diff);
            prop_assert_eq!(&kept.image(&image), &bytes);
        }
        // The loading set brings every touched page that is not zero, and each as it is.
        let mut brought = HashMap::new();
        for Loading { chunk, of, pages } in image.loading() {
            for (rank, page) in pages {
                brought.insert(page, kept.of(&chunk, rank, of));
            }
        }
        for page in touched.into_iter().filter(|&page| page < 40) {
            let wanted = kept.page(&image, page);
            prop_assert_eq!(brought.get(&page).copied().unwrap_or([0; PAGE_BYTES]), wanted);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_manifest_is_refused(bytes in pages(1..40), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let manifest = whole(&bytes, &mut Kept::default());
        let mut sealed = seal_manifest(&manifest, &key()).unwrap().to_vec();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(open_manifest(&sealed, &key()).is_err());
    }

    #[test]
    fn every_truncation_and_any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), end in 0..400usize) {
        prop_assert!(open_manifest(&bytes, &key()).is_err());
        let sealed = seal_manifest(&whole(&[1; 9000], &mut Kept::default()), &key()).unwrap();
        let end = end.min(sealed.len() - 1);
        prop_assert!(open_manifest(&sealed[..end], &key()).is_err());
    }

    #[test]
    fn merged_logs_are_a_union_that_keeps_its_order(one in prop::collection::vec(0..50u32, 0..40), two in prop::collection::vec(0..50u32, 0..40)) {
        let (first, second) = (AccessLog::of_resume(one.clone()), AccessLog::of_resume(two.clone()));
        let both = first.merged(&second);
        prop_assert_eq!(both.resumes(), 2);
        let all: std::collections::HashSet<u32> = one.into_iter().chain(two).collect();
        prop_assert_eq!(both.pages(), all.len() as u64);
        let prefix: Vec<u32> = crate::pages::each(both.runs()).take(usize::try_from(first.pages()).unwrap()).collect();
        prop_assert_eq!(prefix, crate::pages::each(first.runs()).collect::<Vec<_>>());
        prop_assert_eq!(both.merged(&second).pages(), both.pages());
    }
}

#[test]
fn windows_of_zeros_and_equal_windows_cost_nothing() {
    let mut kept = Kept::default();
    let mut bytes = vec![0; 64 * PAGE_BYTES];
    bytes[..16 * PAGE_BYTES].fill(7);
    bytes[32 * PAGE_BYTES..48 * PAGE_BYTES].fill(7);
    let manifest = whole(&bytes, &mut kept);
    assert_eq!((manifest.parts().entries.len(), kept.0.len(), manifest.names().len()), (2, 1, 1));
    // Another tenant: the same chunk, another manifest that the first cannot read.
    let theirs = TenantKey::new([6; 32]);
    let sealed = seal_manifest(&manifest, &theirs).unwrap();
    assert_eq!(open_manifest(&sealed, &key()), Err(ManifestError::OtherKey));
    assert_eq!(references(&sealed).unwrap().chunks, manifest.names());
    assert_eq!(seal_manifest(&manifest, &theirs).unwrap(), sealed);
}

#[test]
fn holes_of_a_file_are_not_read_and_the_file_comes_back() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"far out", 900 << 20).unwrap();
    let source = crate::cut::FileSource::new(file).unwrap();
    let mut kept = Kept::default();
    let manifest =
        cut(&source, ChunkSize::DEFAULT, &domain(LayerKind::Os), |sealed| kept.keep(sealed)).unwrap();
    assert_eq!((manifest.stored_pages(), manifest.parts().bytes), (1, 1 << 30));
    let image = Image::whole(manifest).unwrap();
    assert_eq!(kept.page(&image, (900 << 20) / 4096)[..7], *b"far out");
}

#[test]
fn manifests_out_of_rule_are_refused_by_name() {
    let chunk = || {
        let sealed = crate::seal::seal(&domain(LayerKind::Os).salt, &[1; 4096]).unwrap();
        ChunkRef { name: sealed.name, key: sealed.key, salt: domain(LayerKind::Os).id }
    };
    let entry = |window, present: &[u32], zeroed: &[u32]| Entry {
        window,
        chunk: (!present.is_empty()).then(chunk),
        present: present.iter().copied().collect(),
        zeroed: zeroed.iter().copied().collect(),
    };
    let pack = |pages: &[(u32, u32)]| Pack {
        chunk: chunk(),
        pages: pages.iter().map(|&(first, count)| PageRun { first, count }).collect(),
    };
    let base = |depth| Some(Base { name: Name::of(b"base"), depth });
    let sound =
        Parts { bytes: 20 * 4096, size: SMALL, entries: vec![entry(0, &[0], &[])], ..Parts::default() };
    let with = |change: &dyn Fn(&mut Parts)| {
        let mut parts = sound.clone();
        change(&mut parts);
        Manifest::judge(parts).map(drop)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    let log = |pages: &[u32]| Some(AccessLog::of_resume(pages.iter().copied()));
    let cases: [Case<'_>; 16] = [
        (&|parts| parts.bytes = MAX_IMAGE_BYTES + 1, Malformed::ImageTooLarge),
        (&|parts| parts.base = base(MAX_DEPTH), Malformed::TooDeep),
        (&|parts| parts.entries.push(entry(0, &[1], &[])), Malformed::Windows),
        (&|parts| parts.entries.push(entry(2, &[1], &[])), Malformed::Windows),
        (&|parts| parts.entries.push(entry(u32::MAX, &[1], &[])), Malformed::Windows),
        (&|parts| parts.entries.push(entry(1, &[4], &[])), Malformed::Pages),
        (&|parts| parts.entries[0].present.insert(16), Malformed::Pages),
        (&|parts| parts.entries[0].chunk = None, Malformed::ChunkWithoutPages),
        (&|parts| parts.entries[0].present = PageSet::empty(), Malformed::ChunkWithoutPages),
        (&|parts| parts.entries[0] = entry(0, &[], &[]), Malformed::Contradiction),
        (&|parts| (parts.base, parts.entries[0]) = (base(0), entry(0, &[1], &[1])), Malformed::Contradiction),
        (&|parts| parts.entries[0] = entry(0, &[1], &[2]), Malformed::ZeroedWithoutBase),
        (&|parts| parts.loading = vec![pack(&[(0, 17)])], Malformed::Loading),
        (&|parts| parts.loading = vec![pack(&[(0, 2)]), pack(&[(1, 1)])], Malformed::Loading),
        (&|parts| parts.loading = vec![pack(&[(19, 2)])], Malformed::Loading),
        (&|parts| parts.log = log(&[3, 20]), Malformed::Log),
    ];
    for (number, (change, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(with(change), Err(wanted), "case {number}");
    }
}

#[test]
fn what_is_no_manifest_is_refused_by_name() {
    let sealed = seal_manifest(&whole(&[1; 5000], &mut Kept::default()), &key()).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = sealed.to_vec();
        bytes[at] = byte;
        open_manifest(&bytes, &key()).map(drop)
    };
    assert_eq!(with(0, b'X'), Err(ManifestError::NotOne));
    assert_eq!(with(8, 2), Err(ManifestError::Newer { found: 2 }));
    assert_eq!(with(8, 0), Err(ManifestError::NotOne));
    assert_eq!(with(10, !sealed[10]), Err(ManifestError::OtherKey));
    assert_eq!(with(20, !sealed[20]), Err(ManifestError::Altered));
    assert_eq!(with(30, 2), Err(ManifestError::NotOne));
    assert_eq!(with(sealed.len() - 1, !sealed[sealed.len() - 1]), Err(ManifestError::Altered));
    assert_eq!(open_manifest(&vec![0; sealed::MAX_MANIFEST_BYTES + 1], &key()), Err(ManifestError::TooLarge));
}

#[test]
fn bases_that_are_not_those_that_were_named_are_refused() {
    let mut kept = Kept::default();
    let base = whole(&vec![1; 20_000], &mut kept);
    let name = Name::of(b"the base");
    let image = Image::whole(base.clone()).unwrap();
    let keep = |sealed| kept.keep(sealed);
    let diff =
        cut_diff((name, &image), &vec![2; 20_000][..], [0, 1], &domain(LayerKind::Function), keep).unwrap();
    let gone = Image::resolve(diff.clone(), |_| Err(std::fmt::Error)).map(drop);
    assert!(matches!(gone, Err(ResolveError::Fetch { .. })));
    // A base that is a diff itself has another depth than was written down: so no chain meets itself.
    let itself = Image::resolve(diff.clone(), |_| Ok::<_, Infallible>(diff.clone())).map(drop);
    assert!(matches!(itself, Err(ResolveError::OtherBase { .. })));
    let large = whole(&vec![1; 30_000], &mut Kept::default());
    let larger = Image::resolve(diff.clone(), |_| Ok::<_, Infallible>(large.clone())).map(drop);
    assert!(matches!(larger, Err(ResolveError::LargerBase { .. })));
    assert!(Image::whole(diff).is_none());
}
