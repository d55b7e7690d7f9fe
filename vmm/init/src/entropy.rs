//! The kernel's random numbers become another machine's: the two requests to `/dev/urandom` that no safe call makes.
#![allow(unsafe_code, reason = "two ioctls that cannot be made safely; this module holds nothing else")]

use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};
use std::fs::OpenOptions;
use std::io::Result as IoResult;

/// Bytes of a seed, also as the kernel counts them.
const SEED: usize = 32;
const SEED_BYTES: i32 = 32;
// linux/random.h
const RNDADDENTROPY: Opcode = opcode::write::<[i32; 2]>(b'R', 0x03);
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 0x07);

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct PoolInfo {
    /// How much of it nobody can guess.
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; SEED],
}

/// Mixes a seed in, counted as all the entropy it has, and draws every key of the kernel's generators anew: nothing that was
/// drawn before, here or in another copy of this guest, says anything about what is drawn from here on.
///
/// # Errors
/// The device is not there, or this is not the first process of a guest, or (`ENODATA`) the pool was never ready.
pub(crate) fn renew(seed: [u8; SEED]) -> IoResult<()> {
    let device = OpenOptions::new().write(true).open("/dev/urandom")?;
    let info = PoolInfo { entropy_bits: 8 * SEED_BYTES, bytes: SEED_BYTES, buffer: seed };
    // SAFETY: (1) the request reads two ints and as many bytes behind them as the second says, which is what PoolInfo
    // is: its fields are C's, in C's order, without padding; (2) it writes nothing back; (3) the setter keeps the value alive
    // and in place for the call.
    unsafe { ioctl(&device, Setter::<RNDADDENTROPY, PoolInfo>::new(info)) }?;
    // SAFETY: (1) the request takes no argument and touches no memory of ours.
    unsafe { ioctl(&device, NoArg::<RNDRESEEDCRNG>::new()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kernels() {
        assert_eq!((RNDADDENTROPY, RNDRESEEDCRNG), (0x4008_5203, 0x5207));
        assert_eq!((size_of::<PoolInfo>(), SEED_BYTES.try_into()), (8 + SEED, Ok(SEED)));
    }
}
