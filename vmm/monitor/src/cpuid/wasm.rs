//! What a Wasm guest sees: what code compiled by Warren may use, and what its entry state asks for.
//!
//! No interface of the hypervisor, no number or topology of the host; the guest has no business with them.

use super::Leaves;
use super::table::Register::{Eax, Ebx, Ecx, Edx};
use super::table::Rule::{AtMost, Pass};
use super::table::{ALL, Lacks, Row, bits, row};
use kvm_bindings::kvm_cpuid_entry2;

const ONLY: Option<u32> = Some(0);

/// What such a guest sees on a host whose KVM supports this.
pub fn leaves(supported: &[kvm_cpuid_entry2]) -> Result<Leaves, Lacks> {
    Leaves::new(&[&TABLE], supported)
}

/// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
pub const TABLE: [Row; 26] = [
    row(0, ONLY, Eax, AtMost(0xD), "the leaves of this table"),
    row(0, ONLY, Ebx, Pass(ALL), "vendor"),
    row(0, ONLY, Ecx, Pass(ALL), "vendor"),
    row(0, ONLY, Edx, Pass(ALL), "vendor"),
    row(1, ONLY, Eax, Pass(ALL), "signature"),
    row(1, ONLY, Ebx, Pass(0xFF00), "bytes that CLFLUSH flushes"),
    row(1, ONLY, Ecx, Pass(bits([0, 9, 19, 20])), "SSE3, SSSE3, SSE4"),
    row(1, ONLY, Ecx, Pass(bits([1, 25, 30])), "carry-less products, AES, random numbers"),
    row(
        1,
        ONLY,
        Ecx,
        Pass(bits([12, 13, 22, 23, 26, 28, 29])),
        "FMA, CMPXCHG16B, MOVBE, POPCNT, XSAVE, AVX, F16C",
    ),
    row(1, ONLY, Ecx, Pass(bits([17])), "process contexts, for the page tables"),
    row(1, ONLY, Ecx, Pass(bits([31])), "there is a hypervisor"),
    row(1, ONLY, Edx, Pass(0x078B_FBFF), "what every 64-bit processor has"),
    row(
        7,
        ONLY,
        Ebx,
        Pass(bits([0, 3, 5, 8, 9, 18, 19, 23, 24, 29])),
        "user-mode instructions up to AVX2 and SHA",
    ),
    row(7, ONLY, Ebx, Pass(bits([7, 20])), "supervisor mode neither runs nor reads user pages"),
    row(7, ONLY, Ecx, Pass(bits([2, 8, 9, 10, 22])), "UMIP; Galois fields, vector AES and products, RDPID"),
    row(7, ONLY, Edx, Pass(bits([4])), "short moves are fast"),
    row(0xD, ONLY, Eax, Pass(0b111), "x87, SSE and AVX state"),
    row(0xD, Some(1), Eax, Pass(0b111), "XSAVEOPT, XSAVEC, XGETBV of the state in use"),
    row(0xD, Some(2), Eax, Pass(ALL), "bytes of AVX state"),
    row(0xD, Some(2), Ebx, Pass(ALL), "where they stand"),
    row(0x8000_0000, ONLY, Eax, AtMost(0x8000_0008), "the leaves of this table"),
    row(0x8000_0001, ONLY, Eax, Pass(ALL), "signature"),
    row(0x8000_0001, ONLY, Ecx, Pass(bits([0, 5, 6, 7, 8])), "LAHF, LZCNT, SSE4a, unaligned SSE, prefetch"),
    row(0x8000_0001, ONLY, Edx, Pass(0x2FD3_FBFF), "what every 64-bit processor has, large pages"),
    row(0x8000_0007, ONLY, Edx, Pass(bits([8])), "the time stamp counter is steady"),
    row(0x8000_0008, ONLY, Eax, Pass(0xFFFF), "bits of addresses"),
];
