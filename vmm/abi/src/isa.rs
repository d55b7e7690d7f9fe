//! Instruction-set extensions that compiled code may use, as one small set.
//!
//! The host decides (from its own CPUID, never from the guest's `xgetbv`), the compiler compiles for exactly this
//! set, and the guest answers Wasmtime's feature detection from it. AVX2 is the most that is ever used.

use serde::{Deserialize, Serialize};

/// One extension: its bit and the name Cranelift's detection uses for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The bit in [`IsaSet`].
    pub bit: u32,
    /// The name passed to Wasmtime's host-feature detection, e.g. `sse4.1`.
    pub detect_name: &'static str,
    /// The name of Cranelift's setting, e.g. `has_sse41`.
    pub cranelift_flag: &'static str,
}

/// Every extension Warren knows, in bit order.
pub const EXTENSIONS: [Extension; 11] = [
    Extension { bit: 0, detect_name: "sse3", cranelift_flag: "has_sse3" },
    Extension { bit: 1, detect_name: "ssse3", cranelift_flag: "has_ssse3" },
    Extension { bit: 2, detect_name: "sse4.1", cranelift_flag: "has_sse41" },
    Extension { bit: 3, detect_name: "sse4.2", cranelift_flag: "has_sse42" },
    Extension { bit: 4, detect_name: "popcnt", cranelift_flag: "has_popcnt" },
    Extension { bit: 5, detect_name: "lzcnt", cranelift_flag: "has_lzcnt" },
    Extension { bit: 6, detect_name: "bmi1", cranelift_flag: "has_bmi1" },
    Extension { bit: 7, detect_name: "bmi2", cranelift_flag: "has_bmi2" },
    Extension { bit: 8, detect_name: "avx", cranelift_flag: "has_avx" },
    Extension { bit: 9, detect_name: "avx2", cranelift_flag: "has_avx2" },
    Extension { bit: 10, detect_name: "fma", cranelift_flag: "has_fma" },
];

/// A set of [`EXTENSIONS`], one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IsaSet(pub u64);

impl IsaSet {
    /// What every host must have: the soft-float guest target passes floats in SSE registers only with these.
    pub const BASELINE: Self = Self(0b100_0000_1111);

    /// The set of those extensions for which `has` answers true.
    #[must_use]
    pub fn detect(has: impl Fn(&str) -> bool) -> Self {
        let mut bits = 0;
        for extension in EXTENSIONS {
            if has(extension.detect_name) {
                bits |= 1 << extension.bit;
            }
        }
        Self(bits)
    }

    /// Whether the extension with this detection name is in the set; unknown names are not.
    #[must_use]
    pub fn contains_name(self, detect_name: &str) -> bool {
        EXTENSIONS.iter().any(|e| e.detect_name == detect_name && self.0 & (1 << e.bit) != 0)
    }

    /// Whether every extension of `needed` is in this set.
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// The members, in bit order.
    pub fn extensions(self) -> impl Iterator<Item = Extension> {
        EXTENSIONS.into_iter().filter(move |e| self.0 & (1 << e.bit) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_names() {
        let names: alloc::vec::Vec<_> = IsaSet::BASELINE.extensions().map(|e| e.detect_name).collect();
        assert_eq!(names, ["sse3", "ssse3", "sse4.1", "sse4.2", "fma"]);
        assert!(IsaSet::detect(|_| true).covers(IsaSet::BASELINE));
        assert!(!IsaSet::BASELINE.contains_name("avx512f"));
    }
}
