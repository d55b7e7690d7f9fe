//! Diffs by content against a model, and bases that are known by their chunks alone.

use super::*;
use crate::{
    cut::cut,
    manifest::sealed::{open_manifest, seal_manifest},
    name::TenantKey,
    salt::{LayerKind, Salts},
    seal::open,
};
use proptest::prelude::*;
use std::{collections::HashMap, convert::Infallible};

const SMALL: ChunkSize = match ChunkSize::of_pages(16) {
    Some(size) => size,
    None => ChunkSize::DEFAULT,
};

fn domain(kind: LayerKind) -> Domain {
    Salts::new([9; 32], [0; 3]).newest(kind)
}

type Kept = HashMap<Name, bytes::Bytes>;

fn keep(kept: &mut Kept) -> impl FnMut(Sealed) -> Result<(), Infallible> {
    |sealed| {
        kept.insert(sealed.name, sealed.bytes);
        Ok(())
    }
}

fn opened<'a>(image: &'a Image, kept: &'a Kept) -> impl Source + 'a {
    Opened::new(image, move |chunk: &ChunkRef, pages: u32| {
        let sealed = kept.get(&chunk.name).ok_or(io::ErrorKind::NotFound)?;
        open(&chunk.name, &chunk.key, pages as usize * PAGE_BYTES, sealed).map_err(io::Error::other)
    })
}

fn all(source: &impl Source) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(source.bytes()).unwrap()];
    source.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Mostly zero pages of few values, so that every row of the table comes; the last may be cut.
fn pages() -> impl Strategy<Value = Vec<u8>> {
    let page = prop_oneof![3 => Just(0u8), 2 => 1..4u8];
    (prop::collection::vec(page, 0..200), 0..PAGE_BYTES).prop_map(|(values, cut)| {
        let mut bytes: Vec<u8> = values.iter().flat_map(|&value| [value; PAGE_BYTES]).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_diff_by_content_holds_what_differs_and_no_more(first in pages(), second in pages()) {
        let mut kept = Kept::default();
        let base = cut(&first[..], SMALL, &domain(LayerKind::Runtime), keep(&mut kept)).unwrap();
        let key = TenantKey::new([5; 32]);
        let name = Name::of(&seal_manifest(&base, &key).unwrap());
        let base_image = Image::whole(base.clone()).unwrap();
        let before = kept.clone();
        // From its chunks alone, as where the base's file is not kept.
        let base_bytes = opened(&base_image, &before);
        prop_assert_eq!(&all(&base_bytes), &first);
        let (diff, counts) =
            cut_against((name, &base_image), &base_bytes, &second[..], &domain(LayerKind::Function), keep(&mut kept)).unwrap();

        let model = model(&first, &second);
        prop_assert_eq!(counts, model);
        prop_assert_eq!(diff.stored_pages(), model.filled + model.replaced);
        let zeroed: u64 = diff.parts().entries.iter().map(|entry| u64::from(entry.zeroed.len())).sum();
        prop_assert_eq!(zeroed, model.zeroed);
        prop_assert_eq!(counts.full(), second.chunks(PAGE_BYTES).filter(|page| !is_zero(page)).count() as u64);

        let diff = open_manifest(&seal_manifest(&diff, &key).unwrap(), &key).unwrap();
        let image = Image::resolve(diff, |_| Ok::<_, Infallible>(base.clone())).unwrap();
        let mut wanted = second;
        wanted.resize(wanted.len().max(first.len()), 0);
        prop_assert_eq!(all(&opened(&image, &kept)), wanted);
    }

    /// Whoever tells the same image by the same base says the same bytes, whether it has the base's file or its chunks alone.
    #[test]
    fn a_diff_follows_from_base_and_image_alone(first in pages(), second in pages()) {
        let mut kept = Kept::default();
        let base = cut(&first[..], SMALL, &domain(LayerKind::Runtime), keep(&mut kept)).unwrap();
        let (name, image) = (Name::of(b"base"), Image::whole(base).unwrap());
        let before = kept.clone();
        let mut by_chunks = Kept::default();
        let one = cut_against(
            (name, &image), &opened(&image, &before), &second[..], &domain(LayerKind::Function), keep(&mut by_chunks),
        );
        let mut by_file = Kept::default();
        let other =
            cut_against((name, &image), &first[..], &second[..], &domain(LayerKind::Function), keep(&mut by_file));
        let key = TenantKey::new([5; 32]);
        let sealed = |manifest: &Manifest| seal_manifest(manifest, &key).unwrap();
        prop_assert_eq!(sealed(&one.unwrap().0), sealed(&other.unwrap().0));
        prop_assert_eq!(by_chunks, by_file);
    }

    #[test]
    fn what_is_told_ascends_and_is_each_page_once(first in pages(), second in pages()) {
        let mut told = Vec::new();
        let counts = compare(&first[..], &second[..], |page, change| told.push((page, change))).unwrap();
        prop_assert!(told.is_sorted_by(|one, two| one.0 < two.0));
        let mut again = Counts::default();
        for (_, change) in &told {
            again.add(*change);
        }
        prop_assert_eq!(again, counts);
        // The other way round what was filled was zeroed.
        let turned = compare(&second[..], &first[..], |_, _| ()).unwrap();
        prop_assert_eq!(Counts { filled: counts.zeroed, zeroed: counts.filled, ..counts }, turned);
    }
}

fn model(first: &[u8], second: &[u8]) -> Counts {
    let page = |bytes: &[u8], number: usize| {
        let mut page = vec![0; PAGE_BYTES];
        let rest = bytes.get(number * PAGE_BYTES..).unwrap_or_default();
        let held = rest.len().min(PAGE_BYTES);
        page[..held].copy_from_slice(&rest[..held]);
        page
    };
    let (mut counts, zero) = (Counts::default(), vec![0; PAGE_BYTES]);
    for number in 0..first.len().max(second.len()).div_ceil(PAGE_BYTES) {
        let (was, is) = (page(first, number), page(second, number));
        counts.same += u64::from(was == is && was != zero);
        counts.filled += u64::from(was == zero && is != zero);
        counts.zeroed += u64::from(was != zero && is == zero);
        counts.replaced += u64::from(was != is && was != zero && is != zero);
    }
    counts
}

#[test]
fn an_image_that_is_its_base_costs_nothing() {
    let mut kept = Kept::default();
    let bytes: Vec<u8> = (0..100u8).flat_map(|value| [value; PAGE_BYTES]).collect();
    let base = cut(&bytes[..], SMALL, &domain(LayerKind::Runtime), keep(&mut kept)).unwrap();
    let image = Image::whole(base).unwrap();
    let chunks = kept.len();
    let (diff, counts) = cut_against(
        (Name::of(b"base"), &image),
        &bytes[..],
        &bytes[..],
        &domain(LayerKind::Function),
        keep(&mut kept),
    )
    .unwrap();
    assert_eq!((diff.parts().entries.len(), kept.len()), (0, chunks));
    assert_eq!(counts, Counts { same: 99, ..Counts::default() });
}

#[test]
fn what_cannot_be_read_is_said() {
    let bytes = [1; PAGE_BYTES];
    let mut kept = Kept::default();
    let base = cut(&bytes[..], SMALL, &domain(LayerKind::Runtime), keep(&mut kept)).unwrap();
    let image = Image::whole(base).unwrap();
    let gone = compare(&opened(&image, &Kept::default()), &bytes[..], |_, _| ()).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    let short = Opened::new(&image, |_: &ChunkRef, _| Ok(Vec::new()));
    assert_eq!(compare(&short, &bytes[..], |_, _| ()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    let huge = compare(&Huge, &bytes[..], |_, _| ()).unwrap_err();
    assert_eq!(huge.kind(), io::ErrorKind::InvalidInput);
}

/// Larger than any image.
struct Huge;

impl Source for Huge {
    fn bytes(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
}
