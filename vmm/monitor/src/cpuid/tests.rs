//! On recorded hosts and on hosts that never were.

use super::place::Place;
use super::table::{REGISTERS, Register, Row, Rule, Table, empty};
use super::template::TEMPLATES;
use super::{Leaves, Template, UnknownTemplate, family, host, wasm};
use kvm_bindings::kvm_cpuid_entry2;
use proptest::prelude::*;

const ZEN1: &str = include_str!("recorded/zen1-emulated.txt");
const ZEN3: &str = include_str!("recorded/zen3-emulated.txt");
const ZEN4: &str = include_str!("recorded/zen4-nested.txt");

/// What `KVM_GET_SUPPORTED_CPUID` said: leaf, subleaf, EAX, EBX, ECX, EDX.
fn recorded(text: &str) -> Vec<kvm_cpuid_entry2> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let words: Vec<u32> =
            line.split_whitespace().map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
        let [leaf, index, eax, ebx, ecx, edx] = *words else { panic!("{line}") };
        kvm_cpuid_entry2 { eax, ebx, ecx, edx, ..empty(leaf, index) }
    };
    lines.map(entry).collect()
}

fn place(id: u8, count: u8) -> Place {
    Place { id, count, tsc_deadline: true }
}

fn seen(template: &str, host: &str, id: u8, count: u8) -> Leaves {
    Template::named(template).unwrap().seat(&recorded(host), place(id, count)).unwrap()
}

/// Bits that a guest under a template may see in a register at most.
fn most(tables: &[Table], leaf: u32, index: u32, register: Register) -> u32 {
    let of =
        |row: &&Row| (row.leaf, row.register) == (leaf, register) && row.index.is_none_or(|at| at == index);
    tables.iter().flat_map(|table| table.iter()).filter(of).fold(0, |bits, row| {
        bits | match row.rule {
            Rule::Pass(mask) | Rule::Need(mask) => mask,
            Rule::Fixed(value) | Rule::Same(value) => value,
            Rule::AtMost(most) => u32::MAX >> most.leading_zeros(),
            Rule::NeedByte(value) => value.into(),
        }
    })
}

/// A host that has every bit a template needs, and whatever else.
fn hosts_that_fit(tables: &'static [Table]) -> impl Strategy<Value = Vec<kvm_cpuid_entry2>> {
    let rows = move || tables.iter().flat_map(|table| table.iter());
    let mut leaves: Vec<(u32, u32)> = rows()
        .map(|row| (row.leaf, row.index.unwrap_or(0)))
        .chain([(0xD, 9), (0x12, 0), (0x24, 1)])
        .collect();
    leaves.sort_unstable();
    leaves.dedup();
    proptest::collection::vec(any::<[u32; 4]>(), leaves.len()).prop_map(move |words| {
        let entry = |((leaf, index), words): (&(u32, u32), [u32; 4])| {
            let mut entry = empty(*leaf, *index);
            for (register, mut word) in REGISTERS.into_iter().zip(words) {
                for row in rows().filter(|row| {
                    (row.leaf, row.register) == (*leaf, register) && row.index.is_none_or(|at| at == *index)
                }) {
                    match row.rule {
                        Rule::Need(mask) => word |= mask,
                        Rule::Same(value) => word = value,
                        Rule::NeedByte(least) => word = word & !0xFF | u32::from(least.max(52)),
                        Rule::Pass(_) | Rule::Fixed(_) | Rule::AtMost(_) => {}
                    }
                }
                *register.of(&mut entry) = word;
            }
            entry
        };
        leaves.iter().zip(words).map(entry).collect()
    })
}

fn any_host() -> impl Strategy<Value = Vec<kvm_cpuid_entry2>> {
    let leaf = prop_oneof![0_u32..0x30, 0x4000_0000_u32..0x4000_0010, 0x8000_0000_u32..0x8000_0030];
    let entry = (leaf, 0_u32..12, any::<[u32; 4]>()).prop_map(|(leaf, index, [eax, ebx, ecx, edx])| {
        kvm_cpuid_entry2 { eax, ebx, ecx, edx, ..empty(leaf, index) }
    });
    proptest::collection::vec(entry, 0..120)
}

/// Leaves that are made here, whatever tables say: brand, topology, sizes of states.
fn made(leaf: u32, index: u32, register: Register) -> bool {
    matches!(leaf, 0x8000_0002..=0x8000_0004)
        || (leaf, index) == (0xD, 0) && matches!(register, Register::Ebx | Register::Ecx)
}

fn nothing_else(tables: &[Table], leaves: &Leaves) {
    for mut entry in leaves.entries().to_vec() {
        for register in REGISTERS {
            let allowed = most(tables, entry.function, entry.index, register);
            let value = *register.of(&mut entry);
            assert!(
                value & !allowed == 0 || made(entry.function, entry.index, register),
                "{:#x}.{} {register:?} {value:#x}, at most {allowed:#x}",
                entry.function,
                entry.index
            );
        }
    }
}

proptest! {
    #[test]
    fn nothing_outside_the_tables_is_seen(host in any_host()) {
        nothing_else(&[&wasm::TABLE], &Leaves::new(&[&wasm::TABLE], &host).unwrap());
        nothing_else(&[&host::TABLE], &Template::named("host").unwrap().leaves(&host).unwrap());
    }

    #[test]
    fn hosts_of_the_zen_family_are_equal(
        one in hosts_that_fit(&[&family::V3, &family::AMD, &family::ZEN]),
        other in hosts_that_fit(&[&family::V3, &family::AMD, &family::ZEN]),
    ) {
        let zen = Template::named("amd-zen").unwrap();
        prop_assert_eq!(zen.seat(&one, place(1, 4)).unwrap(), zen.seat(&other, place(1, 4)).unwrap());
    }

    #[test]
    fn hosts_of_the_skylake_family_are_equal(
        one in hosts_that_fit(&[&family::V3, &family::SKYLAKE]),
        other in hosts_that_fit(&[&family::V3, &family::SKYLAKE]),
    ) {
        let skylake = Template::named("intel-skylake").unwrap();
        prop_assert_eq!(skylake.seat(&one, place(1, 4)).unwrap(), skylake.seat(&other, place(1, 4)).unwrap());
    }

    #[test]
    fn every_vcpu_has_a_seat_of_its_own(count in 1_u8..=32) {
        let mut numbers: Vec<_> = (0..count).map(|id| seen("host", ZEN1, id, count).get(0xB, 0).edx).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..u32::from(count)).collect::<Vec<_>>());
        let cores = seen("host", ZEN1, 0, count).get(0xB, 1);
        prop_assert!(1_u32 << cores.eax >= u32::from(count) && cores.ebx == u32::from(count));
    }
}

#[test]
fn nested_virtualisation_and_what_is_denied_are_hidden() {
    for (text, count) in [(ZEN1, 1), (ZEN3, 4), (ZEN4, 32)] {
        let leaves = seen("host", text, 0, count);
        assert_eq!(leaves.get(1, 0).ecx & (1 << 5 | 1 << 6 | 1 << 15), 0, "VMX, SMX, performance registers");
        assert_eq!(leaves.get(0x8000_0001, 0).ecx & (1 << 2 | 1 << 9 | 1 << 10), 0, "SVM, OSVW, sampling");
        for leaf in [0xA, 0x12, 0x14, 0x8000_000A, 0x8000_001F, 0x8000_0022] {
            let entry = leaves.get(leaf, 0);
            assert_eq!([entry.eax, entry.ebx, entry.ecx, entry.edx], [0; 4], "{leaf:#x}");
        }
        assert_eq!(leaves.get(0x4000_0000, 0).ebx.to_le_bytes(), *b"KVMK");
        assert_eq!(leaves.get(0x8000_0002, 0).eax.to_le_bytes(), *b"AMD ");
    }
}

#[test]
fn every_vcpu_is_a_core_of_one_package() {
    let leaves = seen("host", ZEN3, 3, 5);
    let one = leaves.get(1, 0);
    assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xFF, one.edx >> 28 & 1), (3, 8, 1));
    assert_eq!(one.ecx & (1 << 31 | 1 << 24), 1 << 31 | 1 << 24, "hypervisor, deadline timer");
    let [threads, cores] = [0, 1].map(|level| leaves.get(0xB, level));
    assert_eq!((threads.eax, threads.ebx, threads.ecx, threads.edx), (0, 1, 0x100, 3));
    assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (3, 5, 0x201, 3));
    assert_eq!(leaves.get(0x8000_0008, 0).ecx, 3 << 12 | 4);
    let shared = |index| leaves.get(0x8000_001D, index).eax >> 14;
    assert_eq!([0, 1, 2, 3].map(shared), [0, 0, 0, 4]);
    assert_eq!(seen("host", ZEN3, 0, 1).get(1, 0).edx >> 28 & 1, 0);
}

#[test]
fn recorded_hosts_of_one_vendor_are_equal_under_a_family() {
    assert_eq!(seen("amd-v3", ZEN1, 2, 4), seen("amd-v3", ZEN3, 2, 4));
    assert_ne!(seen("host", ZEN1, 2, 4), seen("host", ZEN3, 2, 4));
}

/// What a fleet's hosts share by: a snapshot's name says what its guest saw, and only that.
#[test]
fn hosts_have_one_name_for_what_guests_see_alike() {
    let name = |template: &str, host: &str| {
        let leaves = Template::named(template).unwrap().leaves(&recorded(host)).unwrap();
        warren_state::linux::processor::seen(template, &leaves.written())
    };
    assert_eq!(name("amd-v3", ZEN1), name("amd-v3", ZEN3));
    let all = [name("amd-v3", ZEN1), name("host", ZEN1), name("host", ZEN3), name("host", ZEN4)];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    // A bit that no guest sees is in no name.
    let mut other = recorded(ZEN1);
    other.iter_mut().filter(|entry| entry.function == 0x8000_000A).for_each(|entry| entry.edx ^= 1);
    assert_ne!(other, recorded(ZEN1));
    let leaves = Template::named("host").unwrap().leaves(&other).unwrap();
    assert_eq!(warren_state::linux::processor::seen("host", &leaves.written()), name("host", ZEN1));
}

#[test]
fn a_host_that_lacks_something_is_told_what() {
    let lacks =
        |template, host| Template::named(template).unwrap().leaves(&recorded(host)).unwrap_err().to_string();
    assert!(lacks("amd-zen", ZEN1).contains("virtual 8086"), "{}", lacks("amd-zen", ZEN1));
    assert!(lacks("amd-v3", ZEN4).contains("x86-64-v3"), "{}", lacks("amd-v3", ZEN4));
    assert!(lacks("intel-skylake", ZEN1).contains("vendor"), "{}", lacks("intel-skylake", ZEN1));
    let unknown = Template::named("amd-zon").unwrap_err();
    assert_eq!(unknown, UnknownTemplate("amd-zon".into()));
    assert!(unknown.to_string().contains("host, amd-zen, amd-v3, intel-skylake"));
}

#[test]
fn states_that_are_cut_take_no_room() {
    // AVX-512 and protection keys of a host whose Wasm guests see neither.
    let leaves = Leaves::new(&[&wasm::TABLE], &recorded(ZEN4)).unwrap();
    let state = leaves.get(0xD, 0);
    assert_eq!((state.eax, state.ebx, state.ecx, state.edx), (7, 832, 832, 0));
    assert!(leaves.entries().iter().all(|entry| entry.function != 0xD || entry.index < 3));
    assert_eq!(seen("host", ZEN4, 0, 1).get(0xD, 0).ecx, 0x980);
    assert_eq!(seen("host", ZEN3, 0, 1).get(0xD, 0).ecx, 0xA88);
}

#[test]
fn the_tables_fit_what_kvm_takes() {
    for template in TEMPLATES {
        let host = recorded(ZEN1);
        if let Ok(leaves) = template.seat(&host, place(31, 32)) {
            assert!(leaves.to_kvm().is_ok_and(|cpuid| cpuid.as_slice().len() < 80), "{}", template.name);
        }
    }
}
