//! What a VMM and the pager that brings its memory tell each other, over one SOCK_SEQPACKET socket of which each was given an end.
//!
//! ```text
//!  VMM ── Offer, with its userfaultfd ──▶ pager      once, before the guest runs
//!  VMM ◀── Farewell, or nothing ───────── pager      the pager's last word; then, or instead, the socket hangs up
//! ```
//! One message a packet, postcard. Which image a VMM gets is not said here: whoever gave the pager its end said it. A guest's memory
//! and its disk are an image each, with a socket and a userfaultfd of its own.
//!
//! Neither side believes the other: an offer is judged as a hostile guest's, a farewell is a bounded line of text.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The version of these messages; checked in [`Offer`].
pub const PAGER_VERSION: u32 = 1;
/// Most regions of an offer.
pub const REGIONS_MAX: usize = 256;
/// Pages that a pager puts in place around one that is waited for, at most and aligned, where what was given back comes again: so who
/// gives it back knows how much there can be.
pub const AROUND_PAGES: u32 = 16;
/// Most bytes of a packet, either way.
pub const PACKET_MAX: usize = 16 << 10;
/// Most bytes of a farewell's text.
const WHY_MAX: usize = 512;

/// Memory that is to be brought: the VMM's word, which may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// [`PAGER_VERSION`].
    pub version: u32,
    /// Where pages go.
    pub regions: Vec<Region>,
}

/// A part of an image and where it goes. All three are bytes, and whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First byte in the image: a guest-physical address, or an offset on a disk.
    pub image: u64,
    /// First byte in the VMM's address space.
    pub host: u64,
    /// How many bytes.
    pub len: u64,
}

/// Why the pager goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    why: String,
}

impl Farewell {
    /// Of a text; what is too long of it is cut.
    #[must_use]
    pub fn new(why: &str) -> Self {
        Self { why: line(why) }
    }

    /// One line of printable text, whatever came.
    #[must_use]
    pub fn why(&self) -> String {
        line(&self.why)
    }
}

fn line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if line.len() + letter.len_utf8() > WHY_MAX {
            break;
        }
        line.push(letter);
    }
    line
}

/// A packet of a message; `None` if it is larger than any.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    encode_within(PACKET_MAX, message)
}

/// The message of a packet, all of it; `None` if it is none.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Option<T> {
    decode_within(PACKET_MAX, packet)
}

/// The same for a socket whose packets have another bound, in bytes.
#[must_use]
pub fn encode_within<T: Serialize>(most: usize, message: &T) -> Option<Vec<u8>> {
    postcard::to_allocvec(message).ok().filter(|packet| packet.len() <= most)
}

/// Likewise.
#[must_use]
pub fn decode_within<'a, T: Deserialize<'a>>(most: usize, packet: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) if packet.len() <= most => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_largest_offer_fits_a_packet() {
        let region = Region { image: u64::MAX, host: u64::MAX, len: u64::MAX };
        let offer = Offer { version: u32::MAX, regions: vec![region; REGIONS_MAX] };
        let packet = encode(&offer).unwrap();
        assert_eq!(decode(&packet), Some(offer));
        assert_eq!(decode::<Offer>(&[packet, vec![0]].concat()), None, "nothing may be left over");
    }

    #[test]
    fn a_farewell_is_one_bounded_line() {
        let packet = postcard::to_allocvec(&(String::from("a\nb\u{1b}[2J") + &"ö".repeat(WHY_MAX))).unwrap();
        let why = decode::<Farewell>(&packet).unwrap().why();
        assert!(why.starts_with("ab[2Jö") && why.len() <= WHY_MAX && !why.contains('\n'), "{why}");
        assert_eq!(Farewell::new("gone").why(), "gone");
    }
}
