use super::*;
use crate::{open, seal};
use alloc::vec;
use proptest::prelude::*;

fn good() -> WasmState {
    WasmState {
        abi_version: warren_abi::ABI_VERSION,
        processor: Processor { isa: IsaSet::BASELINE, features: 0b111, tsc_hz: 2_000_000_000 },
        low_len: 160 << 20,
        high_len: 0,
        memory_bytes: 64 << 20,
        program: Area { gpa: 0x20_0000, len: 0x13_4000 },
        mailbox: 0x60_0000,
        code: Area { gpa: 0x200_0000, len: 0x3000 },
        task: Some(Area { gpa: 0x240_0000, len: 0x1000 }),
        root: 0x5000,
        cpu: CpuState {
            general: [7; 16],
            rip: 0x20_1000,
            rflags: FIXED_FLAGS | 0x40,
            x87_control: 0x37F,
            mxcsr: 0x1F80,
        },
        runs: vec![Area { gpa: 0x1000, len: 0x4000 }, Area { gpa: 0x40_0000, len: 0x1000 }],
        generation: 1,
    }
}

const LEN: u64 = 0x5000;

#[test]
fn large_parts_are_large_pages_of_guest_and_file() {
    let mib = |at: u64, len: u64| Area { gpa: at << 20, len: len << 20 };
    let cases = [
        (vec![mib(0, 5)], vec![(0, 4)]),
        // The last is not in place.
        (vec![mib(1, 1), mib(15, 6), mib(32, 9)], vec![(2, 4)]),
        (vec![mib(1, 2), mib(1000, 1)], vec![]),
        (vec![Area { gpa: u64::MAX - 0xFFF, len: 0x1000 }], vec![]),
    ];
    for (runs, parts) in cases {
        assert!(large_parts(&runs).map(|(at, len)| (at >> 20, len >> 20)).eq(parts), "{runs:?}");
    }
}

/// A change that breaks one rule, and the word by which it is refused.
fn refused(change: impl FnOnce(&mut WasmState), word: &str) {
    let mut state = good();
    change(&mut state);
    let error = state.check(LEN).unwrap_err();
    assert!(alloc::format!("{error}").contains(word), "{error} lacks {word:?}");
}

#[test]
fn every_rule_is_looked_at() {
    assert_eq!(good().check(LEN), Ok(()));
    assert!(good().check(LEN + 0x1000).is_err());
    refused(|s| s.abi_version += 1, "contract");
    refused(|s| s.low_len += 4096, "low bank");
    refused(|s| s.low_len = 4 << 30, "low bank");
    refused(|s| s.high_len = 4096, "high bank");
    refused(|s| s.high_len = 64 << 30, "high bank");
    refused(|s| s.program.gpa = 160 << 20, "program");
    refused(|s| s.program.len = 0, "program");
    refused(|s| s.program = s.code, "code over the program");
    refused(|s| s.task = Some(s.program), "files over code");
    refused(|s| s.code.gpa = 160 << 20, "code");
    refused(|s| s.code.len = 0, "code");
    refused(|s| s.code = Area { gpa: u64::MAX - 0xFFF, len: 0x2000 }, "code");
    refused(|s| s.task = Some(Area { gpa: 0x200_2000, len: 0x1000 }), "files over code");
    refused(|s| s.runs[0].gpa = 0x800, "pages outside");
    refused(|s| s.runs.swap(0, 1), "order");
    refused(|s| s.runs[1].gpa = 0x4000, "order");
    refused(|s| s.runs[1].gpa = 0x20_0000, "over files");
    refused(|s| s.runs[1].gpa = 0x200_0000, "over files");
    refused(|s| s.runs[1].gpa = 0x240_0000, "over files");
    refused(|s| s.runs[1].len = u64::MAX - 0xFFF, "pages outside");
    refused(|s| s.runs = vec![Area { gpa: 0, len: 0x1000 }; RUNS_MAX + 1], "too many");
    refused(|s| s.mailbox = 159 << 20, "mailbox");
    refused(|s| s.root = 0x5008, "page tables");
    for bit in [8, 9, 14, 16, 17, 18, 19, 20, 21] {
        refused(|s| s.cpu.rflags |= 1 << bit, "flags");
    }
    refused(|s| s.cpu.rflags &= !(3 << 12), "flags");
    refused(|s| s.cpu.mxcsr |= 1 << 16, "MXCSR");
}

/// A snapshot of an earlier build is read by this one; when this test fails, the format has changed and needs a new version.
#[test]
fn the_golden_snapshot() {
    let golden = include_bytes!("../../tests/golden/wasm-2.state");
    let state = WasmState { abi_version: 2, ..good() };
    assert_eq!(open::<WasmState>(golden), Ok(state.clone()));
    assert_eq!(seal(&state).unwrap(), golden);
    let older = include_bytes!("../../tests/golden/wasm-1.state");
    assert_eq!(open::<WasmState>(older), Err(StateError::Version { found: 1, reads: 2 }));
}

proptest! {
    #[test]
    fn an_altered_byte_is_refused(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let mut bytes = seal(&good()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(open::<WasmState>(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_a_tail_is_refused(cut in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 1..9)) {
        let bytes = seal(&good()).unwrap();
        prop_assert!(open::<WasmState>(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(open::<WasmState>(&[&bytes[..], &tail].concat()).is_err());
    }
}
