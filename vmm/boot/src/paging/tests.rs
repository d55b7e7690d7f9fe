use super::*;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

const AREA: core::ops::Range<u64> = 0x5000..0x10_0000;

fn empty() -> (Vec<u8>, PageTables) {
    (vec![0; 1 << 20], PageTables::new(AREA))
}

fn map_all(mappings: &[Mapping]) -> Result<(Vec<u8>, PageTables), PagingError> {
    let (mut memory, mut tables) = empty();
    mappings.iter().try_for_each(|m| tables.map(&mut memory, *m))?;
    Ok((memory, tables))
}

fn user(va: u64, gpa: u64, len: u64) -> Mapping {
    Mapping { va, gpa, len, access: Access::UserWrite }
}

#[test]
fn refusals() {
    for bad in [
        user(1, 0, 0x1000),
        user(0, 1, 0x1000),
        user(0, 0, 0x1001),
        user(VA_END, 0, 0x1000),
        user(!0xFFF, 0, 0x2000),
        user(0x1000, !0xFFF, 0x2000),
    ] {
        assert_eq!(map_all(&[bad]).map(|_| ()), Err(PagingError::Shape(bad)), "{bad:x?}");
    }
    let twice = [user(0x20_0000, 0, 0x20_0000), user(0x21_0000, 0x100_0000, 0x1000)];
    assert_eq!(map_all(&twice).map(|_| ()), Err(PagingError::Overlap { va: 0x21_0000 }));
    let small_first = [user(0x21_0000, 0, 0x1000), user(0x20_0000, 0, 0x20_0000)];
    assert_eq!(map_all(&small_first).map(|_| ()), Err(PagingError::Overlap { va: 0x20_0000 }));
}

#[test]
fn runs_out_of_tables_without_harm() {
    let mut memory = vec![0; 0x8000];
    let mut tables = PageTables::new(0x5000..0x7000);
    assert_eq!(tables.map(&mut memory, user(0x1000, 0x1000, 0x1000)), Err(PagingError::Full));
}

#[test]
fn nothing_is_writable_and_executable() {
    for access in ACCESS {
        let bits = access.bits();
        assert!(bits & WRITABLE == 0 || bits & NO_EXECUTE != 0, "{access:?}");
        assert_eq!(Access::from_bits(bits), access);
    }
}

const ACCESS: [Access; 6] = [
    Access::SupervisorRead,
    Access::SupervisorExecute,
    Access::SupervisorWrite,
    Access::UserRead,
    Access::UserExecute,
    Access::UserWrite,
];

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(ACCESS.to_vec())
}

#[test]
fn noted_writes_start_clear_and_fine_where_asked() {
    let (mut memory, mut tables) = empty();
    let heap = user(0x4000_0000, 0x60_0000, 6 << 20);
    tables.map_noting_writes(&mut memory, heap, heap.va + (4 << 20)).unwrap();
    let entry = |va, level| {
        let table = tables.table_of(&memory, va, level).unwrap()?;
        Some(Entry(read_entry(&memory, table, index(va, level)).unwrap()))
    };
    for (va, large) in [(heap.va, false), (heap.va + (4 << 20) - 1, false), (heap.va + (4 << 20), true)] {
        assert_eq!(entry(va, 2).map(Entry::is_large), Some(large), "{va:x}");
        let leaf = entry(va, if large { 2 } else { 1 });
        assert_eq!(leaf.map(Entry::is_written), Some(false), "{va:x}");
        assert_eq!(entry(va, 1).is_none(), large, "{va:x}");
    }
    assert_eq!(tables.table_of(&memory, 0, 1).unwrap(), None);
    // Everything else is set in advance.
    let (memory, tables) = map_all(&[user(0x1000, 0x1000, 0x1000)]).unwrap();
    let table = tables.table_of(&memory, 0x1000, 1).unwrap().unwrap();
    assert!(Entry(read_entry(&memory, table, 1).unwrap()).is_written());
}

proptest! {
    /// Every page of a mapping translates to where it should with exactly its permission, and the page before and the
    /// page after it to nothing; whatever the mixture of small and large pages.
    #[test]
    fn maps_exactly(va in 1_u64..0x8_0000, gpa in 0_u64..0x8_0000, pages in 1_u64..3000, access in access(), aligned: bool) {
        let gpa = if aligned { gpa / 512 * 512 + va % 512 } else { gpa };
        let mapping = Mapping { va: va << 12, gpa: gpa << 12, len: pages << 12, access };
        let (memory, tables) = map_all(&[mapping]).unwrap();
        for page in 0..pages {
            let at = (page << 12) + page % 4096;
            prop_assert_eq!(tables.translate(&memory, mapping.va + at).unwrap(), Some((mapping.gpa + at, access)));
        }
        for outside in [mapping.va - 1, mapping.va + mapping.len] {
            prop_assert_eq!(tables.translate(&memory, outside).unwrap(), None);
        }
    }
}
