//! What a policy may do to its host before it answers.
#![cfg_attr(
    not(any(feature = "packing", feature = "placement", feature = "routing")),
    allow(dead_code, reason = "tests name the constants alone")
)]

use alloc::vec::Vec;
use core::hint::black_box;

/// Loops for ever.
pub const SPIN: u64 = 0xbad_0001;
/// Allocates without end.
pub const GROW: u64 = 0xbad_0002;
/// Traps.
pub const TRAP: u64 = 0xbad_0003;
/// Recurses without end.
pub const RECURSE: u64 = 0xbad_0004;
/// Answers with a host or sandbox that does not exist.
pub const UNKNOWN: u64 = 0xbad_0005;
/// Answers with the host of the seed, whatever its state.
pub const BY_SEED: u64 = 0xbad_0006;
/// Lists the first host twice.
pub const TWICE: u64 = 0xbad_0007;
/// Lists one host more than was asked for.
pub const TOO_LONG: u64 = 0xbad_0008;
/// Lists a million hosts.
pub const HUGE: u64 = 0xbad_0009;
/// Scores above the range.
pub const SCORE: u64 = 0xbad_000a;
/// Grants itself all the memory there is.
pub const OVERCOMMIT: u64 = 0xbad_000b;
/// Windows of weeks.
pub const WEEKS: u64 = 0xbad_000c;
/// Computes with NaNs and answers by the bits of one.
pub const NAN: u64 = 0xbad_000d;
/// Takes long, and answers well.
pub const SLOW: u64 = 0xbad_000e;

/// Does what needs no answer.
pub(crate) fn commit(deed: u64) {
    match deed {
        SPIN => loop {
            black_box(());
        },
        GROW => grow(),
        TRAP => trap(),
        RECURSE => {
            black_box(recurse(deed));
        }
        SLOW => {
            for step in 0..20_000u32 {
                black_box(step);
            }
        }
        _ => {}
    }
}

fn grow() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(Vec::with_capacity(1 << 20)));
    }
}

#[expect(clippy::panic, reason = "that is the misdeed")]
fn trap() {
    panic!("trapped on purpose");
}

/// Small frames: the stack is used up long before the fuel.
#[expect(unconditional_recursion, reason = "that is the misdeed")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

/// The bits of a NaN that went through arithmetic: the same on every host, or replay is a lie.
#[cfg(any(feature = "packing", feature = "placement"))]
pub(crate) fn nan_bits(seed: u64) -> u32 {
    let payload = f32::from_bits(0x7fa0_0000 | u32::try_from(seed & 0xffff).unwrap_or(0));
    let mixed = black_box(payload) * black_box(-0.0);
    (mixed / black_box(3.0)).to_bits()
}
