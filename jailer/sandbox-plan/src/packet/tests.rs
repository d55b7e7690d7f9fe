use super::*;
use crate::{
    name::SandboxName,
    request::{CompileOptions, CompilePurpose, Jailed, LIST_PAGE, Limits, LinuxMachine, PagerOptions, Spawn},
};
use alloc::vec;
use proptest::prelude::*;

fn any_request() -> impl Strategy<Value = Request> {
    let name = "[a-z0-9][a-z0-9-]{0,39}".prop_map(|text| SandboxName::new(text).unwrap());
    let program =
        prop_oneof![
            Just(Program::Vmm),
            Just(Program::Restore),
            Just(Program::PagedRestore),
            (any::<u32>(), any::<u8>(), any::<u8>(), any::<u64>(), any::<bool>()).prop_map(
                |(memory_mib, cpus, disks, disk_bytes, network)| Program::Linux(LinuxMachine {
                    memory_mib,
                    cpus,
                    disks,
                    disk_bytes,
                    network
                })
            ),
            (any::<u32>(), any::<bool>()).prop_map(|(memory_mib, network)| Program::PagedLinux(
                LinuxMachine { memory_mib, cpus: 1, disks: 3, disk_bytes: 0, network }
            )),
            (any::<u32>(), any::<u32>()).prop_map(|(cache_mib, memory_mib)| {
                Program::Pager(PagerOptions { cache_mib, memory_mib })
            }),
            (any::<bool>(), any::<u64>()).prop_map(|(function, isa)| {
                let purpose = if function { CompilePurpose::Function } else { CompilePurpose::Policy };
                Program::Compile(CompileOptions { purpose, isa })
            }),
        ];
    let limits = (any::<u64>(), any::<u32>(), any::<bool>(), any::<u32>(), any::<u32>()).prop_map(
        |(memory_bytes, cpu_millis, cpu_hard, pids, cpu_seconds)| Limits {
            memory_bytes,
            cpu_millis,
            cpu_hard,
            pids,
            cpu_seconds,
        },
    );
    prop_oneof![
        any::<u32>().prop_map(|version| Request::Hello { version }),
        Just(Request::List),
        Just(Request::Network),
        name.clone().prop_map(|name| Request::ListAfter { name }),
        name.clone().prop_map(|name| Request::Kill { name }),
        name.clone().prop_map(|name| Request::Log { name }),
        (name, program, limits).prop_map(|(name, program, limits)| Request::Spawn(Spawn {
            name,
            program,
            limits
        })),
    ]
}

proptest! {
    #[test]
    fn every_request_survives_the_wire(request in any_request()) {
        let bytes = encode(&request).unwrap();
        prop_assert_eq!(decode_request(&bytes, descriptors_of(&request)), Ok(request));
    }

    #[test]
    fn every_cut_of_a_request_is_refused(request in any_request(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&request).unwrap();
        let cut = cut.index(bytes.len());
        prop_assert!(decode_request(&bytes[..cut], descriptors_of(&request)).is_err());
    }

    #[test]
    fn bytes_after_a_request_are_refused(request in any_request(), tail in prop::collection::vec(any::<u8>(), 1..9)) {
        let mut bytes = encode(&request).unwrap();
        bytes.extend(tail);
        prop_assert!(decode_request(&bytes, descriptors_of(&request)).is_err());
    }

    #[test]
    fn other_numbers_of_descriptors_are_refused(request in any_request(), got in 0_usize..12) {
        let bytes = encode(&request).unwrap();
        let answer = decode_request(&bytes, got);
        prop_assert_eq!(answer.is_ok(), got == descriptors_of(&request));
    }

    #[test]
    fn garbage_never_panics_and_what_it_yields_is_valid(bytes in prop::collection::vec(any::<u8>(), 0..200), got in 0_usize..9) {
        if let Ok(Request::Kill { name } | Request::Spawn(Spawn { name, .. })) = decode_request(&bytes, got) {
            prop_assert!(SandboxName::new(name.as_str()).is_ok());
        }
        let _ = decode_reply(&bytes);
    }

    #[test]
    fn a_changed_byte_never_yields_an_invalid_name(request in any_request(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = encode(&request).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for got in [0, 2, 3] {
            if let Ok(Request::Kill { name } | Request::Spawn(Spawn { name, .. })) = decode_request(&bytes, got) {
                prop_assert!(SandboxName::new(name.as_str()).is_ok());
            }
        }
    }
}

#[test]
fn the_longest_page_fits_a_packet() {
    let name = SandboxName::new("z".repeat(crate::name::NAME_MAX)).unwrap();
    let longest = Jailed { name, pid: i32::MIN, uid: u32::MAX, slot: u32::MAX, spawn_us: u64::MAX };
    assert!(encode(&Reply::Listed(vec![longest; LIST_PAGE])).is_some());
}

#[test]
fn table() {
    let long = vec![0_u8; MAX_PACKET + 1];
    // A Kill whose name claims 127 bytes and brings two; one whose name is no name; an unknown message.
    let cases: [(&[u8], Result<Request, PacketError>); 6] = [
        (&[0, 1], Ok(Request::Hello { version: 1 })),
        (&[], Err(PacketError::Malformed)),
        (&[2, 127, b'a', b'b'], Err(PacketError::Malformed)),
        (&[2, 2, b'.', b'.'], Err(PacketError::Malformed)),
        (&[9], Err(PacketError::Malformed)),
        (&long, Err(PacketError::TooLong)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode_request(bytes, 0), expected, "{:?}", &bytes[..bytes.len().min(8)]);
    }
}
