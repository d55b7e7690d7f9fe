//! Layers there and back, and what a changed one leaves alone.

use super::*;
use crate::{
    diff::Opened,
    image::Image,
    manifest::{ChunkRef, sealed::seal_manifest},
    name::{Name, TenantKey},
    pages::PAGE_BYTES,
    seal::open,
};
use proptest::prelude::*;
use std::{collections::HashMap, convert::Infallible};

const SMALL: ChunkSize = match ChunkSize::of_pages(16) {
    Some(size) => size,
    None => ChunkSize::DEFAULT,
};
const KINDS: [LayerKind; 3] = [LayerKind::Os, LayerKind::Runtime, LayerKind::Function];

fn salts() -> Salts {
    Salts::new([9; 32], [0; 3])
}

type Kept = HashMap<Name, bytes::Bytes>;

fn flat(layers: &[(LayerKind, &Vec<u8>)], kept: &mut Kept) -> Flat {
    let layers: Vec<_> = layers.iter().map(|&(kind, source)| Layer { kind, source }).collect();
    let keep = |sealed: Sealed| {
        kept.insert(sealed.name, sealed.bytes);
        Ok::<(), Infallible>(())
    };
    flatten(&layers, SMALL, &salts(), keep).unwrap()
}

/// Pages of few values, so that layers have chunks in common; the last may be cut.
fn layer() -> impl Strategy<Value = Vec<u8>> {
    let page = prop_oneof![2 => Just(0u8), 3 => 1..4u8];
    (prop::collection::vec(page, 0..70), 0..PAGE_BYTES).prop_map(|(values, cut)| {
        let mut bytes: Vec<u8> = values.iter().flat_map(|&value| [value; PAGE_BYTES]).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn layers_come_back_each_from_its_place(layers in [layer(), layer(), layer()], turn in 0..3usize) {
        let mut kept = Kept::default();
        let mut given: Vec<_> = KINDS.into_iter().zip(&layers).collect();
        let made = flat(&given, &mut kept);
        // In another order: the same.
        given.rotate_left(turn);
        let key = TenantKey::new([5; 32]);
        let again = flat(&given, &mut Kept::default());
        prop_assert_eq!(&again, &made);
        prop_assert_eq!(
            seal_manifest(&again.manifest, &key).unwrap(), seal_manifest(&made.manifest, &key).unwrap()
        );
        let image = Image::whole(made.manifest).unwrap();
        for (extent, (kind, wanted)) in made.extents.iter().zip(KINDS.iter().zip(&layers)) {
            prop_assert_eq!(extent.kind, *kind);
            prop_assert!(extent.at.is_multiple_of(SMALL.bytes() as u64));
            let bytes = Opened::new(&image, |chunk: &ChunkRef, pages: u32| {
                open(&chunk.name, &chunk.key, pages as usize * PAGE_BYTES, &kept[&chunk.name]).map_err(io::Error::other)
            });
            let disk = Within::new(bytes, extent.at, extent.bytes).unwrap();
            let mut found = vec![0xEE; wanted.len() + 5 * PAGE_BYTES];
            disk.read_at(0, &mut found).unwrap();
            prop_assert_eq!(&found[..wanted.len()], &wanted[..]);
            prop_assert!(found[wanted.len()..].iter().all(|byte| *byte == 0), "a neighbour is seen");
            let mut data = Vec::new();
            let mut at = 0;
            while let Some(next) = disk.next_data(at).unwrap() {
                data.push(next);
                at = next + PAGE_BYTES as u64;
            }
            prop_assert!(data.iter().all(|at| *at < extent.bytes.max(1)));
            for (page, _) in wanted.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| !crate::pages::is_zero(page)) {
                prop_assert!(data.contains(&((page * PAGE_BYTES) as u64)), "page {page} is left out");
            }
        }
    }

    #[test]
    fn a_changed_layer_brings_no_chunk_but_its_own(below in layer(), one in layer(), other in layer()) {
        let mut kept = Kept::default();
        let first = flat(&[(LayerKind::Runtime, &below), (LayerKind::Function, &one)], &mut kept);
        let before = kept.len();
        flat(&[(LayerKind::Runtime, &below), (LayerKind::Function, &other)], &mut kept);
        let mut alone = Kept::default();
        let theirs = flat(&[(LayerKind::Function, &other)], &mut alone);
        prop_assert!(kept.len() - before <= alone.len());
        prop_assert!(theirs.manifest.names().iter().all(|name| kept.contains_key(name)));
        // The layer below is what it is alone, under its own salt.
        let runtime = flat(&[(LayerKind::Runtime, &below)], &mut Kept::default());
        let windows = runtime.manifest.parts().entries.len();
        prop_assert_eq!(&first.manifest.parts().entries[..windows], &runtime.manifest.parts().entries[..]);
    }
}

#[test]
fn layers_that_no_image_holds_are_refused() {
    assert!(place(&[(LayerKind::Os, u64::MAX), (LayerKind::Function, 1)], SMALL).is_none());
    let layers = [Layer { kind: LayerKind::Os, source: &Huge }];
    let refused = flatten(&layers, SMALL, &salts(), |_| Ok::<(), Infallible>(())).unwrap_err();
    assert!(matches!(refused, CutError::Malformed(Malformed::ImageTooLarge)), "{refused}");
    assert!(Within::new(vec![1; 10], 5, 6).is_none());
    assert!(Within::new(vec![1; 10], u64::MAX, 1).is_none());
}

/// Larger than any image.
struct Huge;

impl Source for Huge {
    fn bytes(&self) -> u64 {
        1 << 50
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, _: u64) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
