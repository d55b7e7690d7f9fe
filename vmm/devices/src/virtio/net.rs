//! The network device (virtio 1.2, 5.1): what may stand in the header of a frame.
//!
//! A guest's header asks the host's kernel for work on the frame (a checksum, segmentation). It is copied out of guest
//! memory once, judged here, and only the copy goes on.

use alloc::vec::Vec;

/// Device id (5).
pub const ID: u32 = 1;
/// Its queues' largest sizes: to the guest, from the guest.
pub const QUEUES: [u16; 2] = [256, 256];
/// The queue of frames to the guest.
pub const RX: usize = 0;
/// The queue of frames from the guest.
pub const TX: usize = 1;
/// Bytes of the header before each frame (5.1.6, with `num_buffers`).
pub const HEADER_LEN: u32 = 12;
/// Where a header says how many buffers a frame took.
pub const NUM_BUFFERS_AT: u32 = 10;
/// Shortest frame: two addresses and a type.
pub const FRAME_MIN: u32 = 14;
/// What buffers must hold for one frame, with its header (5.1.6.3.1): without and with segmentation by the driver.
pub const PLAIN_MAX: u32 = 1526;
/// See [`PLAIN_MAX`].
pub const SEGMENTED_MAX: u32 = 65_562;

/// The device takes frames with partial checksums.
pub const F_CSUM: u64 = 1 << 0;
/// The driver takes frames with partial checksums.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The configuration has an address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes TCP segments that are too large for the wire, over IPv4.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The same over IPv6.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// The device takes TCP segments that are too large for the wire, over IPv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// The same over IPv6.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// A frame may take several of the driver's buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// Features of the device, without those of the transport.
pub const FEATURES: u64 =
    F_CSUM | F_GUEST_CSUM | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Beside a TCP type: the segment has congestion marks.
const GSO_ECN: u8 = 0x80;
/// A checksum's bytes.
const CSUM_LEN: u32 = 2;

/// The configuration space: the address (5.1.4).
#[must_use]
pub fn config(mac: [u8; 6]) -> Vec<u8> {
    mac.to_vec()
}

/// Whether an address can be a guest's: not nobody's, not a group's.
#[must_use]
pub fn is_station(mac: [u8; 6]) -> bool {
    mac != [0; 6] && mac.first().is_some_and(|first| first & 1 == 0)
}

/// How much of the driver's buffers a frame may need.
#[must_use]
pub fn buffers_for(features: u64) -> u32 {
    if features & (F_GUEST_TSO4 | F_GUEST_TSO6) != 0 { SEGMENTED_MAX } else { PLAIN_MAX }
}

/// What the driver can take, as far as one implies the other (5.1.3.1): checksums, TCP over IPv4, TCP over IPv6.
#[must_use]
pub fn takes(features: u64) -> (bool, bool, bool) {
    let checksums = features & F_GUEST_CSUM != 0;
    let both = |feature| checksums && features & feature != 0;
    (checksums, both(F_GUEST_TSO4), both(F_GUEST_TSO6))
}

/// A frame that is not sent: the driver's fault, and nobody else's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame whose header asks for what was not agreed or cannot be")]
pub struct BadFrame;

/// Judges the header of a frame of `len` bytes from a driver that agreed to `features`: the header for the host's kernel.
pub fn judge(
    header: [u8; HEADER_LEN as usize],
    len: u32,
    features: u64,
) -> Result<[u8; HEADER_LEN as usize], BadFrame> {
    let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, ..] = header;
    if !(FRAME_MIN..=SEGMENTED_MAX - HEADER_LEN).contains(&len) {
        return Err(BadFrame);
    }
    let checksum = flags & NEEDS_CSUM != 0;
    if checksum {
        let start = u32::from(u16::from_le_bytes([c0, c1]));
        let at = u32::from(u16::from_le_bytes([o0, o1]));
        // Behind the frame's own header, and inside of the frame.
        if features & F_CSUM == 0 || start < FRAME_MIN || start + at + CSUM_LEN > len {
            return Err(BadFrame);
        }
    }
    let segments = match gso & !GSO_ECN {
        GSO_NONE if gso == GSO_NONE => false,
        GSO_TCPV4 if features & F_HOST_TSO4 != 0 => true,
        GSO_TCPV6 if features & F_HOST_TSO6 != 0 => true,
        _ => return Err(BadFrame),
    };
    let headers = u16::from_le_bytes([h0, h1]);
    let size = u16::from_le_bytes([s0, s1]);
    if segments && (!checksum || size == 0 || u32::from(headers) > len) {
        return Err(BadFrame);
    }
    // Nothing but what was judged goes on.
    let mut out = [0; HEADER_LEN as usize];
    if checksum {
        [out[0], out[6], out[7], out[8], out[9]] = [NEEDS_CSUM, c0, c1, o0, o1];
    }
    if segments {
        [out[1], out[2], out[3], out[4], out[5]] = [gso, h0, h1, s0, s1];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
    fn header(flags: u8, gso: u8, words: [u16; 4]) -> [u8; 12] {
        let mut header = [0; 12];
        (header[0], header[1]) = (flags, gso);
        for (at, word) in words.into_iter().enumerate() {
            header[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    #[test]
    fn table() {
        let all = FEATURES;
        let plain = header(0, 0, [0; 4]);
        let sum = header(1, 0, [0, 0, 34, 16]);
        let tcp = header(1, 1, [54, 1448, 34, 16]);
        for (header, len, features, good) in [
            (plain, 60, 0, true),
            (plain, 13, all, false),
            (plain, 65_551, all, false),
            (sum, 60, all, true),
            (sum, 60, all & !F_CSUM, false),
            (sum, 51, all, false),
            (sum, 52, all, true),
            (header(1, 0, [0, 0, 13, 16]), 60, all, false),
            (header(1, 0, [0, 0, u16::MAX, u16::MAX]), 60, all, false),
            (tcp, 9000, all, true),
            (tcp, 9000, all & !F_HOST_TSO4, false),
            (header(1, 4, [74, 1428, 54, 16]), 9000, all, true),
            (header(1, 4, [74, 1428, 54, 16]), 9000, all & !F_HOST_TSO6, false),
            (header(1, 0x81, [54, 1448, 34, 16]), 9000, all, true),
            (header(0, 1, [54, 1448, 34, 16]), 9000, all, false),
            (header(1, 1, [54, 0, 34, 16]), 9000, all, false),
            (header(1, 1, [9001, 1448, 34, 16]), 9000, all, false),
            (header(1, 3, [42, 1448, 34, 6]), 9000, all, false),
            (header(1, 0x80, [0, 0, 34, 16]), 60, all, false),
            (header(1, 5, [54, 1448, 34, 6]), 9000, all, false),
        ] {
            assert_eq!(judge(header, len, features).is_ok(), good, "{header:?} {len} {features:#x}");
        }
        // What means nothing does not go on: flags of the other direction, a count of buffers, fields that are unused.
        let mut odd = header(6, 0, [9, 9, 9, 9]);
        odd[10] = 7;
        assert_eq!(judge(odd, 60, all), Ok([0; 12]));
        assert_eq!(judge(tcp, 9000, all), Ok(tcp));
    }

    #[test]
    fn features_that_need_another_count_only_with_it() {
        assert_eq!(takes(FEATURES), (true, true, true));
        assert_eq!(takes(FEATURES & !F_GUEST_CSUM), (false, false, false));
        assert_eq!(takes(F_GUEST_CSUM | F_GUEST_TSO6), (true, false, true));
        assert!(is_station([2, 0, 0, 0, 0, 1]) && !is_station([0; 6]) && !is_station([1, 0, 0, 0, 0, 1]));
    }

    proptest! {
        /// What passes is inside of the frame and was agreed, whatever came.
        #[test]
        fn what_passes_is_sound(flags in 0_u8..8, gso in prop_oneof![0_u8..6, any::<u8>()], words: [u16; 4], len in 0_u32..70_000, features: u64) {
            if let Ok(out) = judge(header(flags, gso, words), len, features) {
                let word = |at: usize| u32::from(u16::from_le_bytes([out[at], out[at + 1]]));
                prop_assert!(out[0] <= 1 && [0, 1, 4, 0x81, 0x84].contains(&out[1]));
                if out[0] == 1 {
                    prop_assert!(features & F_CSUM != 0 && word(6) + word(8) + 2 <= len);
                }
                if out[1] != 0 {
                    prop_assert!(out[0] == 1 && word(4) > 0 && word(2) <= len);
                }
                prop_assert_eq!(judge(out, len, features), Ok(out));
            }
        }
    }
}
