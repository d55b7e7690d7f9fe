use super::super::chain::tests::{Flat, chain};
use super::*;
use proptest::prelude::*;

const DISK: Disk = Disk { sectors: 100, read_only: false };

/// A request with its header at 0, data at 0x100, status at 0x80.
fn parse(disk: Disk, kind: u32, sector: u64, out: u32, back: u32) -> Result<Request, Status> {
    let memory = Flat::new(0x1_0000);
    memory.write(0, &kind.to_le_bytes()).unwrap();
    memory.write(8, &sector.to_le_bytes()).unwrap();
    let one = chain(&memory, &[(0, 16), (0x100, out)], &[(0x1000, back), (0x80, 1)]);
    let parsed = disk.parse(&one, &memory).unwrap();
    assert_eq!((parsed.status_at, parsed.data_len), (0x80, back));
    parsed.request
}

#[test]
fn requests_are_read() {
    let range = |gpa, len| alloc::vec![Range { gpa, len }];
    let read = Request::Read { offset: 1024, into: range(0x1000, 512) };
    assert_eq!(parse(DISK, T_IN, 2, 0, 512), Ok(read));
    let write = Request::Write { offset: 99 * 512, from: range(0x100, 512) };
    assert_eq!(parse(DISK, T_OUT, 99, 512, 0), Ok(write));
    assert_eq!(parse(DISK, T_FLUSH, 0, 0, 0), Ok(Request::Flush));
    assert_eq!(parse(DISK, T_GET_ID, 0, 0, 20), Ok(Request::Id(range(0x1000, 20))));
}

#[test]
fn what_is_not_on_the_disk_is_refused() {
    let read_only = Disk { read_only: true, ..DISK };
    for (disk, kind, sector, out, back, status) in [
        (DISK, T_IN, 100, 0, 512, Status::IoError),
        (DISK, T_IN, 99, 0, 1024, Status::IoError),
        (DISK, T_IN, u64::MAX, 0, 512, Status::IoError),
        (DISK, T_IN, u64::MAX / 512, 0, 512, Status::IoError),
        (DISK, T_IN, 0, 0, 511, Status::IoError),
        (DISK, T_IN, 0, 0, 0, Status::IoError),
        (DISK, T_OUT, 100, 512, 0, Status::IoError),
        (DISK, T_OUT, 0, 100, 0, Status::IoError),
        (read_only, T_OUT, 0, 512, 0, Status::IoError),
        (read_only, T_DISCARD, 0, 16, 0, Status::IoError),
        (DISK, T_DISCARD, 0, 15, 0, Status::IoError),
        (DISK, T_DISCARD, 0, 32, 0, Status::IoError),
        (DISK, T_GET_ID, 0, 0, 19, Status::IoError),
        (DISK, 2, 0, 0, 512, Status::Unsupported),
        (DISK, u32::MAX, 0, 0, 512, Status::Unsupported),
    ] {
        assert_eq!(parse(disk, kind, sector, out, back), Err(status), "{kind} {sector} {out} {back}");
    }
}

fn extent(kind: u32, sector: u64, sectors: u32, flags: u32) -> Result<Request, Status> {
    let memory = Flat::new(0x1000);
    memory.write(0, &kind.to_le_bytes()).unwrap();
    memory.write(0x100, &sector.to_le_bytes()).unwrap();
    memory.write(0x108, &sectors.to_le_bytes()).unwrap();
    memory.write(0x10C, &flags.to_le_bytes()).unwrap();
    DISK.parse(&chain(&memory, &[(0, 16), (0x100, 16)], &[(0x80, 1)]), &memory).unwrap().request
}

#[test]
fn extents() {
    let at = |offset, len| Extent { offset, len };
    assert_eq!(extent(T_DISCARD, 8, 8, 0), Ok(Request::Discard(at(4096, 4096))));
    let zeroes = Request::WriteZeroes { extent: at(0, 512), unmap: true };
    assert_eq!(extent(T_WRITE_ZEROES, 0, 1, 1), Ok(zeroes));
    assert_eq!(extent(T_DISCARD, 0, 1, 1), Err(Status::Unsupported));
    assert_eq!(extent(T_WRITE_ZEROES, 0, 1, 2), Err(Status::Unsupported));
    assert_eq!(extent(T_DISCARD, 100, 1, 0), Err(Status::IoError));
    assert_eq!(extent(T_DISCARD, u64::MAX, u32::MAX, 0), Err(Status::IoError));
}

#[test]
fn without_header_or_status_nothing_can_be_said() {
    let memory = Flat::new(0x1000);
    for (readable, writable) in [(&[(0, 16)][..], &[][..]), (&[(0, 15)], &[(0x80, 1)]), (&[], &[(0x80, 1)])] {
        assert_eq!(DISK.parse(&chain(&memory, readable, writable), &memory), Err(Malformed));
    }
}

#[test]
fn the_status_byte_may_share_its_descriptor() {
    let memory = Flat::new(0x2000);
    let one = chain(&memory, &[(0, 16)], &[(0x1000, 513)]);
    let parsed = DISK.parse(&one, &memory).unwrap();
    assert_eq!((parsed.status_at, parsed.data_len), (0x1200, 512));
    let into = alloc::vec![Range { gpa: 0x1000, len: 512 }];
    assert_eq!(parsed.request, Ok(Request::Read { offset: 0, into }));
}

proptest! {
    /// Whatever the driver writes: what is to be done lies on the disk and in the chain, and never covers the status.
    #[test]
    fn requests_stay_on_the_disk(
        kind in prop_oneof![Just(0_u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()],
        header in any::<[u8; 12]>(),
        small in any::<bool>(),
        body in any::<[u8; 16]>(),
        readable in prop::collection::vec(1_u32..1500, 1..5),
        writable in prop::collection::vec(1_u32..1500, 1..5),
        sectors in 0_u64..200,
        read_only: bool,
    ) {
        let memory = Flat::new(0x1_0000);
        memory.write(0, &kind.to_le_bytes()).unwrap();
        memory.write(4, &header).unwrap();
        if small {
            memory.write(9, &[0; 7]).unwrap();
        }
        memory.write(16, &body).unwrap();
        let place = |lens: &[u32], mut at: u64| -> Vec<(u64, u32)> {
            lens.iter().map(|len| { let from = at; at += u64::from(*len); (from, *len) }).collect()
        };
        let one = chain(&memory, &place(&readable, 0), &place(&writable, 0x8000));
        let disk = Disk { sectors, read_only };
        if let Ok(parsed) = disk.parse(&one, &memory) {
            prop_assert_eq!(parsed.status_at, 0x8000 + u64::from(writable.iter().sum::<u32>()) - 1);
            let len = |ranges: &[Range]| ranges.iter().map(|r| u64::from(r.len)).sum::<u64>();
            let (offset, bytes, changes) = match &parsed.request {
                Ok(Request::Read { offset, into }) => {
                    prop_assert!(into.iter().all(|r| r.gpa + u64::from(r.len) <= parsed.status_at));
                    (*offset, len(into), false)
                }
                Ok(Request::Write { offset, from }) => (*offset, len(from), true),
                Ok(Request::Discard(e) | Request::WriteZeroes { extent: e, .. }) => (e.offset, e.len, true),
                Ok(Request::Id(into)) => (0, { prop_assert_eq!(len(into), 20); 0 }, false),
                Ok(Request::Flush) | Err(_) => (0, 0, false),
            };
            prop_assert!(offset + bytes <= sectors * SECTOR);
            prop_assert!(!changes || !read_only);
        }
    }
}
