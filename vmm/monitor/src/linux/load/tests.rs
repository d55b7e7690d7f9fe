use super::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

fn file() -> OwnedFd {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 4096).unwrap();
    file
}

/// What a disk that was asked for with these limits was given, or why there is none.
fn admitted(disk: impl Fn(Limits) -> DeviceSpec, limits: Limits) -> Result<rate::Limits, String> {
    let spec = disk(limits);
    let files: Vec<_> = (0..spec.descriptors()).map(|_| file()).collect();
    let room =
        Room { memory_bytes: 0, cpus: 1, disks: 1, pluggable_bytes: 0, small_pages: true, devices: None };
    let made = devices(&[spec], files.into_iter(), &room)?;
    match made.as_slice() {
        [DeviceFile::Block { limits, .. }] => Ok(*limits),
        other => panic!("{other:?}"),
    }
}

/// Of a disk of its own, as a guest that boots has it, and of those over a base, as one has that is brought back.
#[test]
fn every_kind_of_disk_has_the_limits_it_was_given() {
    let rate = |per_second| Some(Rate { burst: 7, per_second });
    let kept = |per_second| Some(rate::Rate { burst: 7, per_second });
    let alone = |limits| DeviceSpec::LimitedBlock { read_only: false, limits };
    let over = |limits| DeviceSpec::OverlaidBlock { base: linux::Base::File, limits };
    let paged = |limits| DeviceSpec::OverlaidBlock { base: linux::Base::Pager, limits };
    for disk in [&alone as &dyn Fn(Limits) -> DeviceSpec, &over, &paged] {
        let given = Limits { bytes: rate(5), operations: rate(6) };
        assert_eq!(admitted(disk, given), Ok(rate::Limits { bytes: kept(5), operations: kept(6) }));
        assert_eq!(admitted(disk, Limits::default()), Ok(rate::Limits::default()));
        for nothing in [Limits { bytes: rate(0), ..given }, Limits { operations: rate(0), ..given }] {
            assert_eq!(admitted(disk, nothing).unwrap_err(), "disk 0: a limit that lets nothing through");
        }
    }
}
