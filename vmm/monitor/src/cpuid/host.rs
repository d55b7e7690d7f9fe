//! Template `host`: what a stock kernel and its programs can use on this host.
//!
//! Every feature that KVM virtualises completely and whose registers the guest may touch ([`crate::linux::msr`]) stays:
//! kernels and programs choose by them. What goes, goes for one of these reasons:
//! - **nested virtualisation**: VMX, SMX, SVM and its leaf;
//! - **registers that are denied**: performance counters, debug store, thermal and power control, branch sampling, shadow
//!   stacks, AMX's permission, hardware feedback, transactional memory, resource monitoring, SGX, processor trace;
//! - **what tells hosts of one model apart**: serial number, brand string with its frequency, host's topology and cache
//!   sharing, power leaf.

use super::table::Register::{Eax, Ebx, Ecx, Edx};
use super::table::Rule::{AtMost, Fixed, Pass};
use super::table::{ALL, EACH, Row, bits, row};

const ONLY: Option<u32> = Some(0);

/// KVM's paravirtual features: clocks, asynchronous faults, steal time, end of interrupt, spin locks, TLB flushes and
/// interrupts by request, polling (Linux, Documentation/virt/kvm/x86/cpuid.rst).
pub(super) const KVM_FEATURES: u32 = bits([0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 24]);

/// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
pub const TABLE: [Row; 69] = [
    row(0, ONLY, Eax, AtMost(0xD), "the leaves of this table"),
    row(0, ONLY, Ebx, Pass(ALL), "vendor"),
    row(0, ONLY, Ecx, Pass(ALL), "vendor"),
    row(0, ONLY, Edx, Pass(ALL), "vendor"),
    row(1, ONLY, Eax, Pass(ALL), "signature: kernels choose workarounds by it"),
    row(1, ONLY, Ebx, Pass(0xFF00), "bytes that CLFLUSH flushes"),
    row(1, ONLY, Ecx, Pass(bits([0, 1, 9, 19, 20])), "SSE3, carry-less products, SSSE3, SSE4"),
    row(1, ONLY, Ecx, Pass(bits([12, 13, 22, 23, 25, 26])), "FMA, CMPXCHG16B, MOVBE, POPCNT, AES, XSAVE"),
    row(1, ONLY, Ecx, Pass(bits([28, 29, 30])), "AVX, F16C, random numbers"),
    row(1, ONLY, Ecx, Pass(bits([17, 21])), "process contexts, x2APIC"),
    row(
        1,
        ONLY,
        Edx,
        Pass(0x078B_FBFF | bits([27])),
        "what every 64-bit processor has; self-snooping caches",
    ),
    // Deterministic caches (Intel): sizes and ways are the model's, who shares them is the place's.
    row(4, EACH, Eax, Pass(0x3FFF), "kind and level of a cache"),
    row(4, EACH, Ebx, Pass(ALL), "line, partitions and ways"),
    row(4, EACH, Ecx, Pass(ALL), "sets"),
    row(4, EACH, Edx, Pass(ALL), "how it holds lower levels"),
    row(6, ONLY, Eax, Pass(bits([2])), "the APIC's timer always runs"),
    row(7, ONLY, Eax, AtMost(2), "the subleaves of this table"),
    row(7, ONLY, Ebx, Pass(bits([0, 1, 6, 10, 13])), "FS and GS base, TSC adjustment, INVPCID, x87 pointers"),
    row(
        7,
        ONLY,
        Ebx,
        Pass(bits([3, 5, 8, 9, 19, 23, 24, 29])),
        "BMI, AVX2, fast strings, ADX, cache lines, SHA",
    ),
    row(7, ONLY, Ebx, Pass(bits([7, 20])), "supervisor mode neither runs nor reads user pages"),
    row(7, ONLY, Ebx, Pass(bits([18])), "random seeds"),
    row(7, ONLY, Ebx, Pass(bits([16, 17, 21, 28, 30, 31])), "AVX-512 F, DQ, IFMA, CD, BW, VL"),
    row(7, ONLY, Ecx, Pass(bits([0, 2, 3])), "PREFETCHWT1, UMIP, protection keys"),
    row(
        7,
        ONLY,
        Ecx,
        Pass(bits([1, 6, 8, 9, 10, 11, 12, 14])),
        "AVX-512 VBMI to VPOPCNTDQ, GFNI, vector AES",
    ),
    row(7, ONLY, Ecx, Pass(bits([22, 25, 27, 28])), "RDPID, CLDEMOTE, direct stores"),
    row(7, ONLY, Edx, Pass(bits([4, 8, 14, 23])), "fast short moves, VP2INTERSECT, SERIALIZE, AVX-512 FP16"),
    row(7, ONLY, Edx, Pass(bits([10, 26, 27, 28, 29, 31])), "what keeps speculation in bounds"),
    row(
        7,
        Some(1),
        Eax,
        Pass(bits([0, 1, 2, 4, 5, 10, 11, 12, 23])),
        "SHA-512, SM3, SM4, AVX-VNNI, BF16, strings",
    ),
    row(7, Some(1), Edx, Pass(bits([4, 5, 10, 14])), "AVX-VNNI of bytes and words, conversions, prefetch"),
    row(7, Some(2), Edx, Pass(bits([0, 1, 2, 3, 4, 5])), "what keeps speculation in bounds"),
    row(0xD, ONLY, Eax, Pass(0b10_1110_0111), "x87, SSE, AVX, AVX-512 and protection key state"),
    row(0xD, Some(1), Eax, Pass(0b1111), "XSAVEOPT, XSAVEC, XGETBV of the state in use, XSAVES"),
    row(0xD, Some(2), Eax, Pass(ALL), "bytes of AVX state"),
    row(0xD, Some(2), Ebx, Pass(ALL), "where they stand"),
    row(0xD, Some(5), Eax, Pass(ALL), "bytes of AVX-512 masks"),
    row(0xD, Some(5), Ebx, Pass(ALL), "where they stand"),
    row(0xD, Some(6), Eax, Pass(ALL), "bytes of the upper halves"),
    row(0xD, Some(6), Ebx, Pass(ALL), "where they stand"),
    row(0xD, Some(7), Eax, Pass(ALL), "bytes of registers 16 to 31"),
    row(0xD, Some(7), Ebx, Pass(ALL), "where they stand"),
    row(0xD, Some(9), Eax, Pass(ALL), "bytes of protection keys"),
    row(0xD, Some(9), Ebx, Pass(ALL), "where they stand"),
    row(0x4000_0000, ONLY, Eax, Fixed(0x4000_0001), "the leaves of this table"),
    row(0x4000_0000, ONLY, Ebx, Pass(ALL), "KVM's name"),
    row(0x4000_0000, ONLY, Ecx, Pass(ALL), "KVM's name"),
    row(0x4000_0000, ONLY, Edx, Pass(ALL), "KVM's name"),
    row(0x4000_0001, ONLY, Eax, Pass(KVM_FEATURES), "KVM's paravirtual features"),
    row(0x8000_0000, ONLY, Eax, AtMost(0x8000_0021), "the leaves of this table"),
    row(0x8000_0000, ONLY, Ebx, Pass(ALL), "vendor (AMD)"),
    row(0x8000_0000, ONLY, Ecx, Pass(ALL), "vendor (AMD)"),
    row(0x8000_0000, ONLY, Edx, Pass(ALL), "vendor (AMD)"),
    row(0x8000_0001, ONLY, Eax, Pass(ALL), "signature (AMD)"),
    row(
        0x8000_0001,
        ONLY,
        Ecx,
        Pass(bits([0, 1, 4, 5, 6, 7, 8])),
        "LAHF, cores, CR8, LZCNT, SSE4a, unaligned SSE",
    ),
    row(
        0x8000_0001,
        ONLY,
        Ecx,
        Pass(bits([11, 16, 21, 22])),
        "XOP, FMA4, TBM; topology in leaves of its own",
    ),
    row(0x8000_0001, ONLY, Edx, Pass(0x2FD3_FBFF), "what every 64-bit processor has, 1 GiB pages, RDTSCP"),
    row(0x8000_0005, ONLY, Ecx, Pass(ALL), "first data cache (AMD)"),
    row(0x8000_0005, ONLY, Edx, Pass(ALL), "first instruction cache (AMD)"),
    row(0x8000_0006, ONLY, Ecx, Pass(ALL), "second cache (AMD)"),
    row(0x8000_0006, ONLY, Edx, Pass(ALL), "third cache (AMD)"),
    row(0x8000_0007, ONLY, Edx, Pass(bits([8])), "the time stamp counter is steady"),
    // Pages of five levels are not offered, so linear addresses have 48 bits.
    row(0x8000_0008, ONLY, Eax, Pass(0xFF), "bits of physical addresses"),
    row(0x8000_0008, ONLY, Eax, Fixed(48 << 8), "bits of linear addresses"),
    row(0x8000_0008, ONLY, Ebx, Pass(bits([0, 2, 9])), "CLZERO, x87 pointers, WBNOINVD"),
    row(0x8000_0008, ONLY, Ebx, Pass(SPECULATION), "what keeps speculation in bounds (AMD)"),
    row(0x8000_001D, EACH, Eax, Pass(0x3FFF), "kind and level of a cache (AMD)"),
    row(0x8000_001D, EACH, Ebx, Pass(ALL), "line, partitions and ways"),
    row(0x8000_001D, EACH, Ecx, Pass(ALL), "sets"),
    row(0x8000_001D, EACH, Edx, Pass(ALL), "how it holds lower levels"),
    row(
        0x8000_0021,
        ONLY,
        Eax,
        Pass(bits([0, 2, 5, 6, 8, 10, 11, 27, 28, 29])),
        "LFENCE, VERW, IBRS, fast strings",
    ),
];

/// IBPB, IBRS and STIBP with how to use them, SSBD in its forms, PSFD, what the processor is not open to.
const SPECULATION: u32 = bits([12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30]);
