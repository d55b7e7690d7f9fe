//! Which chunk brings which page: the loading set's packs, which hold pages in the order they are needed, and the chunks of the
//! image's windows, which hold them by address.

use crate::regions::{Regions, Slot};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use warren_chunks::{
    Image,
    image::Place,
    manifest::{AccessLog, ChunkRef},
    pages::each,
};

/// A chunk that brings pages to this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId(usize);

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the loading set. Its pages can also be had from windows.
    Pack,
    /// Pages by address.
    Window,
}

/// A chunk and where its pages go.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What it is for.
    pub kind: Kind,
    /// The chunk.
    pub chunk: ChunkRef,
    /// How many pages it holds, also such as go nowhere.
    pub of: u32,
    /// Place in the chunk and where it goes, in the chunk's order.
    pub pages: Vec<(u32, Slot)>,
}

/// All that were thought of so far.
#[derive(Debug)]
pub struct Bundles {
    image: Arc<Image>,
    list: Vec<Bundle>,
    /// Packs come first.
    packs: usize,
    packed: HashMap<Slot, (BundleId, u32)>,
    /// Packs that cannot be had.
    lost: HashSet<BundleId>,
    windows: HashMap<(usize, u32), BundleId>,
}

impl Bundles {
    /// Of an image, with its loading set or without.
    #[must_use]
    pub fn new(image: Arc<Image>, regions: &Regions, loading: bool) -> Self {
        let mut list = Vec::new();
        let mut packed = HashMap::new();
        for pack in if loading { image.loading() } else { Vec::new() } {
            let id = BundleId(list.len());
            let goes = |(rank, page): &(u32, u32)| regions.of_page(*page).map(|slot| (*rank, slot));
            let pages: Vec<_> = pack.pages.iter().filter_map(goes).collect();
            if pages.is_empty() {
                continue;
            }
            // A page that two loading sets of a chain bring is the first one's.
            for (rank, slot) in &pages {
                packed.entry(*slot).or_insert((id, *rank));
            }
            list.push(Bundle { kind: Kind::Pack, chunk: pack.chunk, of: pack.of, pages });
        }
        let packs = list.len();
        Self { image, list, packs, packed, lost: HashSet::new(), windows: HashMap::new() }
    }

    /// The loading set, in order.
    pub fn packs(&self) -> impl Iterator<Item = BundleId> + use<> {
        (0..self.packs).map(BundleId)
    }

    /// A bundle.
    #[must_use]
    pub fn get(&self, id: BundleId) -> Option<&Bundle> {
        self.list.get(id.0)
    }

    /// A pack cannot be had: its pages come from windows from now on.
    pub fn lose(&mut self, id: BundleId) {
        self.lost.insert(id);
    }

    /// What brings a page, and the page's place in it; `None` if it is zero.
    pub fn of(&mut self, slot: Slot, regions: &Regions) -> Option<(BundleId, u32)> {
        if let Some(found) = self.packed.get(&slot).filter(|(id, _)| !self.lost.contains(id)) {
            return Some(*found);
        }
        let page = regions.page(slot)?;
        match self.image.place(page) {
            Place::Zero => None,
            Place::In { rank, layer, .. } => Some((self.window(layer, page, regions)?, rank)),
        }
    }

    /// Every window that has pages for this VM: those that a log names first, in its order, then by address.
    #[must_use]
    pub fn in_order(&mut self, log: Option<&AccessLog>, regions: &Regions) -> Vec<BundleId> {
        let logged = log.map(AccessLog::runs).unwrap_or_default();
        let mut seen = HashSet::new();
        let pages = each(logged).filter(|page| regions.of_page(*page).is_some()).chain(regions.pages());
        let mut order = Vec::new();
        for page in pages {
            if let Place::In { layer, .. } = self.image.place(page)
                && let Some(id) = self.window(layer, page, regions)
                && seen.insert(id)
            {
                order.push(id);
            }
        }
        order
    }

    /// The window of a page in the layer that has it.
    fn window(&mut self, layer: usize, page: u32, regions: &Regions) -> Option<BundleId> {
        let manifest = Arc::clone(self.image.layers().get(layer)?);
        let size = manifest.parts().size;
        let (window, _) = size.window_of(page);
        if let Some(known) = self.windows.get(&(layer, window)) {
            return Some(*known);
        }
        let entry = manifest.entry(window)?;
        let chunk = entry.chunk.clone()?;
        let mut pages = Vec::new();
        for (rank, place) in (0..).zip(entry.present.iter()) {
            let page = window.saturating_mul(size.pages()).saturating_add(place);
            // What a newer layer has is not this chunk's to bring.
            let own = matches!(self.image.place(page), Place::In { layer: at, .. } if at == layer);
            if let Some(slot) = regions.of_page(page).filter(|_| own) {
                pages.push((rank, slot));
            }
        }
        let id = BundleId(self.list.len());
        self.list.push(Bundle { kind: Kind::Window, chunk, of: entry.present.len(), pages });
        self.windows.insert((layer, window), id);
        Some(id)
    }
}
