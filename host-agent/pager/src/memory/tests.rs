//! The memory against a model: whatever order faults, chunks and failures come in, a page is its image's, or zero once it was given
//! back, and whoever waits is answered. Long because the world that every case needs stands here.

use super::*;
use crate::journal::Figures;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use warren_chunks::{
    ChunkSize, LayerKind, Manifest, Name, Salts,
    cut::cut,
    manifest::AccessLog,
    pages::MAX_CHUNK_PAGES,
    seal::{Sealed, open},
};
use warren_vmm_protocol::pager::{Offer, PAGER_VERSION, Region};

const PAGE: u64 = PAGE_BYTES as u64;
/// Pages of the image.
const PAGES: u32 = 80;
/// Where its first page goes.
const HOST: u64 = 1 << 30;

/// A VM's memory as the kernel would have it, and the store.
#[derive(Default)]
struct World {
    memory: BTreeMap<u64, Vec<u8>>,
    asked: Vec<(BundleId, ChunkRef, u32)>,
    /// Copies stop after so many pages.
    short: usize,
    clock_us: u64,
}

impl Outside for World {
    fn copy(&mut self, to: u64, pages: &[u8]) -> Result<Put, FaultError> {
        let mut done = 0;
        for (at, page) in (0..).zip(pages.chunks(PAGE_BYTES)).take(self.short.max(1)) {
            if self.memory.contains_key(&(to + at * PAGE)) {
                break;
            }
            self.memory.insert(to + at * PAGE, page.to_vec());
            done += PAGE_BYTES;
        }
        Ok(if done == 0 { Put::Present } else { Put::Done(done) })
    }

    fn zero(&mut self, to: u64, len: usize) -> Result<Put, FaultError> {
        let zeroes = vec![0; len];
        self.copy(to, &zeroes)
    }

    fn fetch(&mut self, id: BundleId, chunk: &ChunkRef, pages: u32) {
        self.asked.push((id, chunk.clone(), pages));
    }

    fn now_us(&self) -> u64 {
        self.clock_us
    }
}

struct Store(BTreeMap<Name, Sealed>);

impl Store {
    fn read(&self, chunk: &ChunkRef, pages: u32) -> Vec<u8> {
        open(&chunk.name, &chunk.key, pages as usize * PAGE_BYTES, &self.0[&chunk.name].bytes).unwrap()
    }
}

fn page(number: u32) -> Vec<u8> {
    // Every fifth is zero.
    if number.is_multiple_of(5) {
        vec![0; PAGE_BYTES]
    } else {
        vec![u8::try_from(number + 1).unwrap(); PAGE_BYTES]
    }
}

/// An image whose loading set has these pages.
fn image(logged: &[u32]) -> (Arc<Image>, Store) {
    let bytes: Vec<u8> = (0..PAGES).flat_map(page).collect();
    let size = ChunkSize::of_pages(16).unwrap();
    let salts = Salts::new([1; 32], [0; 3]);
    let mut store = BTreeMap::new();
    let mut keep = |sealed: Sealed| {
        store.insert(sealed.name, sealed);
        Ok::<(), std::convert::Infallible>(())
    };
    let domain = salts.newest(LayerKind::Function);
    let manifest: Manifest = cut(&bytes[..], size, &domain, &mut keep).unwrap();
    let log = AccessLog::of_resume(logged.iter().copied());
    let plain = Image::whole(manifest.clone()).unwrap();
    let read = |at: u32, slot: &mut [u8]| {
        slot.copy_from_slice(&page(at));
        Ok(())
    };
    let packs = plain.pack(&log, (&domain, &domain), read, &mut keep).unwrap();
    let log = (!logged.is_empty()).then_some(log);
    let manifest = manifest.with_loading(packs, log).unwrap();
    (Arc::new(Image::whole(manifest).unwrap()), Store(store))
}

/// Two regions, the second one's addresses before the first one's; page 40 to 49 are nobody's.
fn regions() -> Regions {
    let region = |first: u64, count: u64, host| Region { image: first * PAGE, host, len: count * PAGE };
    let offer =
        Offer { version: PAGER_VERSION, regions: vec![region(0, 40, HOST), region(50, 30, HOST / 2)] };
    Regions::judge(&offer, PAGES).unwrap()
}

fn address(page: u32) -> u64 {
    if page < 40 { HOST + u64::from(page) * PAGE } else { HOST / 2 + u64::from(page - 50) * PAGE }
}

fn memory(image: &Arc<Image>, manner: Manner) -> (Memory, Journal) {
    let journal = Journal::default();
    (Memory::new(image, regions(), manner, journal.clone()), journal)
}

/// Lets everything that is asked for come, and be put in place.
fn settle(memory: &mut Memory, world: &mut World, store: &Store) {
    while let Some((id, chunk, pages)) = world.asked.pop() {
        memory.arrived(id, Ok(store.read(&chunk, pages)), world).unwrap();
        while memory.place(world).unwrap() {}
    }
}

#[test]
fn recording_brings_what_is_touched_and_nothing_else() {
    let (image, store) = image(&[]);
    let (mut memory, journal) = memory(&image, Manner::RECORD);
    let mut world = World { short: 99, ..World::default() };
    for page in [3, 5, 2, 66] {
        memory.fault(address(page) + 77, &mut world).unwrap();
        settle(&mut memory, &mut world, &store);
    }
    let there: Vec<u64> = world.memory.keys().copied().collect();
    assert_eq!(there, [address(66), address(2), address(3), address(5)]);
    let log = journal.read().log().unwrap();
    assert_eq!(warren_chunks::pages::each(log.runs()).collect::<Vec<_>>(), [3, 5, 2, 66]);
    let figures = journal.read().figures;
    assert_eq!((figures.faults, figures.copied, figures.zeroed, figures.windows), (4, 3, 1, 2));
    assert!(memory.keeps());
    memory.rest();
    assert!(!memory.keeps());
    memory.fault(address(4), &mut world).unwrap();
    assert_eq!(world.asked.len(), 1, "what was dropped comes again");
}

#[test]
fn the_loading_set_comes_unasked_and_is_enough() {
    let logged: Vec<u32> = (60..80).chain(0..30).collect();
    let (image, store) = image(&logged);
    let (mut memory, journal) = memory(&image, Manner::SERVE);
    let mut world = World { short: 3, ..World::default() };
    memory.pump(&mut world);
    // Waited for before it came: no other chunk is asked for.
    memory.fault(address(61), &mut world).unwrap();
    memory.fault(address(1), &mut world).unwrap();
    settle(&mut memory, &mut world, &store);
    for number in logged.into_iter().filter(|number| !number.is_multiple_of(5)) {
        assert_eq!(world.memory.get(&address(number)), Some(&page(number)), "{number}");
    }
    let figures = journal.read().figures;
    assert_eq!((figures.windows, figures.packs), (0, 3), "{figures:?}");
    assert_eq!(world.memory.len(), 40);
}

/// Who waits is counted until the page is there, also when its pack cannot be had and it waits once more; who finds it here waits for
/// nothing; what nobody waited for is told apart.
#[test]
fn waits_are_measured_and_told_apart() {
    let (image, store) = image(&[3, 4, 6]);
    let (mut memory, journal) = memory(&image, Manner::SERVE);
    let mut world = World { short: 99, clock_us: 1000, ..World::default() };
    memory.pump(&mut world);
    memory.fault(address(3), &mut world).unwrap();
    world.clock_us = 1700;
    // The same page once more, by another thread: one wait, as long as the first one's.
    memory.fault(address(3), &mut world).unwrap();
    memory.fault(address(6), &mut world).unwrap();
    world.clock_us = 2000;
    settle(&mut memory, &mut world, &store);
    let figures = journal.read().figures;
    let waits =
        |figures: Figures| (figures.faults, figures.waits, figures.waited_us, figures.longest_wait_us);
    assert_eq!(waits(figures), (3, 2, 1300, 1000), "{figures:?}");
    assert_eq!((figures.copied, figures.from_packs, figures.ahead), (3, 3, 1), "{figures:?}");
    // Zeroes need no chunk.
    memory.fault(address(35), &mut world).unwrap();
    assert_eq!(waits(journal.read().figures), (4, 2, 1300, 1000));

    let (mut memory, journal) = self::memory(&image, Manner::SERVE);
    let mut world = World { short: 99, clock_us: 10, ..World::default() };
    memory.pump(&mut world);
    memory.fault(address(3), &mut world).unwrap();
    let (pack, ..) = world.asked.pop().unwrap();
    world.clock_us = 500;
    memory.arrived(pack, Err(ReadError::Absent), &mut world).unwrap();
    world.clock_us = 900;
    settle(&mut memory, &mut world, &store);
    let figures = journal.read().figures;
    assert_eq!(waits(figures), (1, 1, 890, 890), "{figures:?}");
    assert_eq!((figures.from_packs, figures.windows, figures.filled), (0, 1, 0), "{figures:?}");
    assert_eq!(figures.ahead + 1, figures.copied, "one of its chunk was waited for");
}

#[test]
fn filled_to_the_last_page() {
    let (image, store) = image(&[7, 30]);
    let (mut memory, journal) = memory(&image, Manner { loading: true, bring: Bring::Chunk, fill: true });
    let mut world = World { short: 99, ..World::default() };
    memory.pump(&mut world);
    assert!(world.asked.len() <= AHEAD_MAX, "a few at once");
    settle(&mut memory, &mut world, &store);
    let figures = journal.read().figures;
    assert_eq!((figures.faults, figures.filled, figures.ahead), (0, figures.windows, figures.copied));
    assert!(figures.filled > 3 && figures.packs == 1, "{figures:?}");
    for number in (0_u32..40).chain(50..80).filter(|number| !number.is_multiple_of(5)) {
        assert_eq!(world.memory.get(&address(number)), Some(&page(number)), "{number}");
    }
}

#[test]
fn what_was_given_back_is_zero() {
    let (image, store) = image(&[]);
    let (mut memory, _) = memory(&image, Manner::SERVE);
    let mut world = World { short: 99, ..World::default() };
    memory.fault(address(3), &mut world).unwrap();
    settle(&mut memory, &mut world, &store);
    assert_eq!(world.memory.remove(&address(3)), Some(page(3)));
    memory.fault(address(3), &mut world).unwrap();
    assert_eq!(world.memory.get(&address(3)), Some(&vec![0; PAGE_BYTES]));
}

/// What is put in place for a page that is waited for lies in its aligned block, and comes again as often as it was given back.
#[test]
fn a_disks_page_comes_again_and_never_more_than_its_block() {
    let (image, store) = image(&[3]);
    let (mut memory, _) = memory(&image, Manner::RECORD_DISK);
    for _ in 0..3 {
        let mut world = World { short: 99, ..World::default() };
        for number in [3, 20, 35, 66] {
            memory.fault(address(number), &mut world).unwrap();
            settle(&mut memory, &mut world, &store);
            assert_eq!(world.memory.get(&address(number)), Some(&page(number)), "{number}");
        }
        // From each to the next page of zeroes, which is another's: 3 and 4, 20 (zero), 35 (zero), 66 to 69.
        let there: Vec<u64> = world.memory.keys().copied().collect();
        let pages = [66, 67, 68, 69, 3, 4, 20, 35];
        assert_eq!(there, pages.map(address));
        memory.rest();
    }
}

/// What first resumes read of a disk is told block by block; packed, it is all that the next one needs, and is put in place no sooner
/// than it is waited for.
#[test]
fn what_was_read_of_a_disk_comes_ahead_of_the_next_reader() {
    let read = |manner, logged: &[u32]| {
        let (image, store) = image(logged);
        let (mut memory, journal) = memory(&image, manner);
        let mut world = World { short: 99, ..World::default() };
        memory.pump(&mut world);
        settle(&mut memory, &mut world, &store);
        assert!(world.memory.is_empty(), "put in place for nobody");
        for number in [66, 35, 21, 3] {
            memory.fault(address(number), &mut world).unwrap();
            settle(&mut memory, &mut world, &store);
            assert_eq!(world.memory.get(&address(number)), Some(&page(number)), "{number}");
        }
        let there: Vec<u64> = world.memory.keys().copied().collect();
        (there, journal.read())
    };
    let (there, first) = read(Manner::RECORD_DISK, &[]);
    let log = first.log().unwrap();
    let logged: Vec<u32> = warren_chunks::pages::each(log.runs()).collect();
    assert_eq!(logged, [66, 67, 68, 69, 21, 22, 23, 24, 3, 4], "zeroes are nobody's to bring");
    assert_eq!((first.figures.windows, first.figures.packs), (3, 0), "{first:?}");
    let (again, next) = read(Manner::DISK, &logged);
    assert_eq!(there, again);
    assert_eq!((next.figures.windows, next.figures.packs), (0, 1), "{next:?}");
}

#[test]
fn what_cannot_be_had() {
    let (image, store) = image(&[3]);
    let (mut memory, journal) = memory(&image, Manner::SERVE);
    let mut world = World { short: 99, ..World::default() };
    memory.pump(&mut world);
    memory.fault(address(3), &mut world).unwrap();
    let (pack, ..) = world.asked.pop().unwrap();
    memory.arrived(pack, Err(ReadError::Absent), &mut world).unwrap();
    settle(&mut memory, &mut world, &store);
    assert_eq!(world.memory.get(&address(3)), Some(&page(3)), "from its window");
    let figures = journal.read().figures;
    assert_eq!(
        (figures.failures, figures.packs, figures.windows),
        (1, 0, 1),
        "the pack is not asked for again"
    );
    memory.fault(address(33), &mut world).unwrap();
    let (window, ..) = world.asked.pop().unwrap();
    let over = memory.arrived(window, Err(ReadError::Absent), &mut world).unwrap_err();
    assert!(over.to_string().contains("no tier has the object"), "{over}");
    assert!(matches!(memory.fault(HOST - PAGE, &mut world), Err(Over::Foreign)));
    assert!(matches!(memory.fault(address(39) + PAGE, &mut world), Err(Over::Foreign)));
}

#[test]
fn many_faults_are_few_fetches() {
    let (image, _) = image(&[]);
    let (mut memory, _) = memory(&image, Manner::SERVE);
    let mut world = World::default();
    for round in 0..3 {
        for page in (0..40).chain(50..80) {
            memory.fault(address(page), &mut world).unwrap();
        }
        assert!(world.asked.len() <= 5, "{round}: {} chunks asked for", world.asked.len());
    }
    assert!(ASKED_MAX <= MAX_CHUNK_PAGES as usize);
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Fault(u32),
    Come(prop::sample::Index),
    Fail(prop::sample::Index),
    Place,
    Rest,
    GiveBack(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![0_u32..40, 50_u32..80];
    prop_oneof![
        6 => number().prop_map(Step::Fault),
        4 => any::<prop::sample::Index>().prop_map(Step::Come),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        3 => Just(Step::Place),
        1 => Just(Step::Rest),
        1 => number().prop_map(Step::GiveBack),
    ]
}

proptest! {
    #[test]
    fn a_page_is_its_images_or_the_vm_ends(
        logged in prop::collection::vec(0_u32..80, 0..60), steps in prop::collection::vec(step(), 0..200),
        loading in any::<bool>(), fill in any::<bool>(), short in 1_usize..20,
        bring in prop_oneof![Just(Bring::Page), Just(Bring::Chunk), Just(Bring::Around)],
    ) {
        let mut unique: Vec<u32> = Vec::new();
        for page in logged {
            if !unique.contains(&page) {
                unique.push(page);
            }
        }
        let (image, store) = image(&unique);
        let manner = Manner { loading, bring, fill };
        let disk = bring == Bring::Around;
        let (mut memory, journal) = memory(&image, manner);
        let mut world = World { short, ..World::default() };
        let mut waited = BTreeSet::new();
        let mut given_back = BTreeSet::new();
        memory.pump(&mut world);
        for step in steps {
            match step {
                // A page that is there does not fault.
                Step::Fault(page) if world.memory.contains_key(&address(page)) => {}
                Step::Fault(page) => {
                    waited.insert(page);
                    memory.fault(address(page), &mut world).unwrap();
                }
                Step::Come(which) if !world.asked.is_empty() => {
                    let (id, chunk, pages) = world.asked.remove(which.index(world.asked.len()));
                    memory.arrived(id, Ok(store.read(&chunk, pages)), &mut world).unwrap();
                }
                Step::Fail(which) if !world.asked.is_empty() => {
                    let (id, ..) = world.asked.remove(which.index(world.asked.len()));
                    if memory.arrived(id, Err(ReadError::Absent), &mut world).is_err() {
                        return Ok(());
                    }
                }
                Step::Place => { memory.place(&mut world).unwrap(); }
                Step::Rest => memory.rest(),
                Step::GiveBack(page) => if world.memory.remove(&address(page)).is_some() {
                    given_back.insert(page);
                },
                Step::Come(_) | Step::Fail(_) => {}
            }
            world.clock_us += 7;
            prop_assert!(world.asked.len() <= ASKED_MAX);
        }
        settle(&mut memory, &mut world, &store);
        let counts = journal.read().figures;
        prop_assert!(counts.waits <= counts.faults && counts.filled <= counts.windows, "{counts:?}");
        prop_assert!(counts.from_packs <= counts.copied && counts.ahead <= counts.copied, "{counts:?}");
        prop_assert!(counts.longest_wait_us <= counts.waited_us && counts.waited_us <= counts.waits * world.clock_us);
        for number in (0..40).chain(50..80) {
            match world.memory.get(&address(number)) {
                Some(bytes) if given_back.contains(&number) && !disk => {
                    prop_assert_eq!(bytes, &vec![0; PAGE_BYTES]);
                }
                Some(bytes) => prop_assert_eq!(bytes, &page(number), "page {}", number),
                None => prop_assert!(!waited.contains(&number) || given_back.contains(&number), "page {} waits", number),
            }
        }
    }
}
