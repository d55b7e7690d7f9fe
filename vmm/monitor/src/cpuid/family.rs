//! Templates that are the same on every host of a family: each bit is needed or fixed, none is the host's.
//!
//! A guest snapshotted under one of them can go on on another host of the family. Signature and caches are those of the
//! family's first member, so that kernels take precautions for the oldest. `amd-v3` is the psABI's level x86-64-v3 and
//! nothing else; it runs on emulated processors too, and because those lack them it does not offer the controls of
//! speculation: not for hosts whose guests distrust each other.

use super::host::KVM_FEATURES;
use super::table::Register::{Eax, Ebx, Ecx, Edx};
use super::table::Rule::{Fixed, Need, NeedByte, Same};
use super::table::{Row, bits, row};

const ONLY: Option<u32> = Some(0);

/// What both vendors share: x86-64-v3, and what KVM adds everywhere.
pub const V3: [Row; 20] = [
    row(0, ONLY, Eax, Fixed(0xD), "the leaves of this table"),
    row(1, ONLY, Ebx, Fixed(8 << 8), "64 bytes that CLFLUSH flushes"),
    row(1, ONLY, Ecx, Need(bits([0, 9, 12, 13, 19, 20, 22, 23, 26, 28, 29])), "x86-64-v3"),
    row(1, ONLY, Ecx, Need(bits([1, 21, 25, 30])), "carry-less products, x2APIC, AES, random numbers"),
    row(1, ONLY, Edx, Need(0x078B_FBFD), "what every 64-bit processor has"),
    row(6, ONLY, Eax, Need(bits([2])), "the APIC's timer always runs"),
    row(7, ONLY, Eax, Fixed(0), "no further subleaf"),
    row(7, ONLY, Ebx, Need(bits([3, 5, 8])), "x86-64-v3: BMI, AVX2"),
    row(7, ONLY, Ebx, Need(bits([0, 1, 19, 23])), "FS and GS base, TSC adjustment, ADX, CLFLUSHOPT"),
    row(7, ONLY, Ebx, Need(bits([7, 20])), "supervisor mode neither runs nor reads user pages"),
    row(0xD, Some(2), Eax, Same(256), "bytes of AVX state"),
    row(0xD, Some(2), Ebx, Same(576), "where they stand"),
    row(0x4000_0000, ONLY, Eax, Fixed(0x4000_0001), "the leaves of this table"),
    row(0x4000_0000, ONLY, Ebx, Same(0x4B4D_564B), "KVM's name"),
    row(0x4000_0000, ONLY, Ecx, Same(0x564B_4D56), "KVM's name"),
    row(0x4000_0000, ONLY, Edx, Same(0x4D), "KVM's name"),
    row(0x4000_0001, ONLY, Eax, Need(KVM_FEATURES), "KVM's paravirtual features, as since Linux 5.13"),
    row(0x8000_0001, ONLY, Ecx, Need(bits([0, 5])), "LAHF, LZCNT"),
    row(
        0x8000_0001,
        ONLY,
        Edx,
        Need(bits([11, 20, 26, 27, 29])),
        "SYSCALL, NX, 1 GiB pages, RDTSCP, 64 bits",
    ),
    row(0x8000_0008, ONLY, Eax, Fixed(48 << 8), "bits of linear addresses"),
];

/// AMD: vendor, signature and caches of the first Zen.
pub const AMD: [Row; 25] = [
    row(0, ONLY, Ebx, Same(0x6874_7541), "vendor"),
    row(0, ONLY, Ecx, Same(0x444D_4163), "vendor"),
    row(0, ONLY, Edx, Same(0x6974_6E65), "vendor"),
    row(1, ONLY, Eax, Fixed(0x0080_0F12), "signature"),
    row(0x8000_0000, ONLY, Eax, Fixed(0x8000_0021), "the leaves of this table"),
    row(0x8000_0000, ONLY, Ebx, Same(0x6874_7541), "vendor"),
    row(0x8000_0000, ONLY, Ecx, Same(0x444D_4163), "vendor"),
    row(0x8000_0000, ONLY, Edx, Same(0x6974_6E65), "vendor"),
    row(0x8000_0001, ONLY, Eax, Fixed(0x0080_0F12), "signature"),
    row(0x8000_0001, ONLY, Edx, Need(0x0183_F3FD), "what leaf 1 says, again"),
    row(0x8000_0005, ONLY, Ecx, Fixed(0x2008_0140), "first data cache"),
    row(0x8000_0005, ONLY, Edx, Fixed(0x4004_0140), "first instruction cache"),
    row(0x8000_0006, ONLY, Ecx, Fixed(0x0200_6140), "second cache"),
    row(0x8000_0006, ONLY, Edx, Fixed(0x0040_8140), "third cache"),
    row(0x8000_001D, Some(0), Eax, Fixed(0x121), "first data cache"),
    row(0x8000_001D, Some(0), Ebx, Fixed(0x01C0_003F), "line and ways"),
    row(0x8000_001D, Some(0), Ecx, Fixed(0x3F), "sets"),
    row(0x8000_001D, Some(1), Eax, Fixed(0x122), "first instruction cache"),
    row(0x8000_001D, Some(1), Ebx, Fixed(0x00C0_003F), "line and ways"),
    row(0x8000_001D, Some(1), Ecx, Fixed(0xFF), "sets"),
    row(0x8000_001D, Some(2), Eax, Fixed(0x143), "second cache"),
    row(0x8000_001D, Some(2), Ebx, Fixed(0x01C0_003F), "line and ways"),
    row(0x8000_001D, Some(2), Ecx, Fixed(0x3FF), "sets"),
    row(0x8000_0021, ONLY, Eax, Need(bits([2])), "LFENCE waits for what is before it"),
    row(0xD, ONLY, Eax, Need(0b111), "x87, SSE and AVX state"),
];

/// `amd-v3` beyond both: emulated processors have no more.
pub const EMULATED: [Row; 2] = [
    row(0xD, Some(1), Eax, Need(0b101), "XSAVEOPT, XGETBV of the state in use"),
    row(0x8000_0008, ONLY, Eax, NeedByte(40), "bits of physical addresses"),
];

/// Zen 1 to 5.
pub const ZEN: [Row; 9] = [
    row(1, ONLY, Edx, Need(bits([1])), "virtual 8086 mode extensions"),
    row(7, ONLY, Ebx, Need(bits([18, 29])), "random seeds, SHA"),
    row(0xD, Some(1), Eax, Need(0b111), "XSAVEOPT, XSAVEC, XGETBV of the state in use"),
    row(
        0x8000_0001,
        ONLY,
        Ecx,
        Need(bits([4, 6, 7, 8, 22])),
        "CR8, SSE4a, unaligned SSE, prefetch, topology",
    ),
    row(0x8000_0001, ONLY, Edx, Need(bits([1, 22, 25])), "virtual 8086 mode, MMX extensions, fast FXSAVE"),
    row(0x8000_0007, ONLY, Edx, Need(bits([8])), "the time stamp counter is steady"),
    row(0x8000_0008, ONLY, Eax, NeedByte(48), "bits of physical addresses"),
    row(0x8000_0008, ONLY, Ebx, Need(bits([0, 2])), "CLZERO, x87 pointers"),
    row(0x8000_0008, ONLY, Ebx, Need(bits([12, 25])), "branch prediction barrier, stores not bypassed"),
];

/// Intel's server processors since Skylake: Cascade Lake, Ice Lake, Sapphire Rapids and on.
pub const SKYLAKE: [Row; 38] = [
    row(0, ONLY, Ebx, Same(0x756E_6547), "vendor"),
    row(0, ONLY, Ecx, Same(0x6C65_746E), "vendor"),
    row(0, ONLY, Edx, Same(0x4965_6E69), "vendor"),
    row(1, ONLY, Eax, Fixed(0x0005_0654), "signature"),
    row(1, ONLY, Ecx, Need(bits([17])), "process contexts"),
    row(1, ONLY, Edx, Need(bits([1])), "virtual 8086 mode extensions"),
    row(4, Some(0), Eax, Fixed(0x121), "first data cache"),
    row(4, Some(0), Ebx, Fixed(0x01C0_003F), "line and ways"),
    row(4, Some(0), Ecx, Fixed(0x3F), "sets"),
    row(4, Some(1), Eax, Fixed(0x122), "first instruction cache"),
    row(4, Some(1), Ebx, Fixed(0x01C0_003F), "line and ways"),
    row(4, Some(1), Ecx, Fixed(0x3F), "sets"),
    row(4, Some(2), Eax, Fixed(0x143), "second cache"),
    row(4, Some(2), Ebx, Fixed(0x03C0_003F), "line and ways"),
    row(4, Some(2), Ecx, Fixed(0x3FF), "sets"),
    row(4, Some(3), Eax, Fixed(0x163), "third cache, one core's slice of it"),
    row(4, Some(3), Ebx, Fixed(0x0280_003F), "line and ways"),
    row(4, Some(3), Ecx, Fixed(0x7FF), "sets"),
    row(7, ONLY, Ebx, Need(bits([9, 10, 18, 24])), "fast strings, INVPCID, random seeds, CLWB"),
    row(7, ONLY, Ebx, Need(bits([16, 17, 28, 30, 31])), "AVX-512 F, DQ, CD, BW, VL"),
    row(7, ONLY, Edx, Need(bits([10, 26, 27, 31])), "what keeps speculation in bounds"),
    row(0xD, ONLY, Eax, Need(0xE7), "x87, SSE, AVX and AVX-512 state"),
    row(0xD, Some(1), Eax, Need(0b1111), "XSAVEOPT, XSAVEC, XGETBV of the state in use, XSAVES"),
    row(0xD, Some(5), Eax, Same(64), "bytes of AVX-512 masks"),
    row(0xD, Some(5), Ebx, Same(1088), "where they stand"),
    row(0xD, Some(6), Eax, Same(512), "bytes of the upper halves"),
    row(0xD, Some(6), Ebx, Same(1152), "where they stand"),
    row(0xD, Some(7), Eax, Same(1024), "bytes of registers 16 to 31"),
    row(0xD, Some(7), Ebx, Same(1664), "where they stand"),
    row(0x8000_0000, ONLY, Eax, Fixed(0x8000_0008), "the leaves of this table"),
    row(0x8000_0001, ONLY, Ecx, Need(bits([8])), "prefetch for writing"),
    row(0x8000_0006, ONLY, Ecx, Fixed(0x0400_8040), "second cache"),
    row(0x8000_0007, ONLY, Edx, Need(bits([8])), "the time stamp counter is steady"),
    row(0x8000_0008, ONLY, Eax, NeedByte(46), "bits of physical addresses"),
    row(4, Some(0), Edx, Fixed(0), "it holds no lower level"),
    row(4, Some(1), Edx, Fixed(0), "it holds no lower level"),
    row(4, Some(2), Edx, Fixed(0), "it need not hold lower levels"),
    row(4, Some(3), Edx, Fixed(4), "its place is found by a hash"),
];
