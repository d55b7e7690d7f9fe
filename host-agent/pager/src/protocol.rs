//! What the agent asks of `warren-pager`, over SOCK_SEQPACKET: one message a packet, postcard. The socket that the agent
//! connects to is its own; who can connect is trusted with every image whose key it has.

use crate::journal::{Entry, Figures, RUNS_MAX, TOUCHED_MAX};
use crate::memory::Manner;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use warren_chunks::{metrics::TierFigures, pages::PageRun};
use warren_vmm_protocol::pager::{decode_within, encode_within};
use zeroize::{Zeroize as _, Zeroizing};

/// The version of these messages; checked in [`Request::Hello`].
pub const PROTOCOL_VERSION: u32 = 6;
/// Most bytes of a packet.
pub const PACKET_MAX: usize = 160 << 10;
/// Most retired objects named at once.
pub const RETIRED_MAX: usize = 64;

/// Agent to pager; each is answered by one [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// Serve a VMM. Its end of a SOCK_SEQPACKET pair rides along; the other is the VMM's.
    Serve(Serve),
    /// Say what was done for a VM so far. One that ended is forgotten by this.
    Report {
        /// Which.
        id: u64,
    },
    /// Say what was done for all of them. Who asks for nothing else asks for a sign of life.
    Figures,
    /// These retired objects are in service again; answered as `Figures` is.
    Rescued {
        /// Which, [`RETIRED_MAX`] at most.
        names: Vec<[u8; 32]>,
    },
    /// From now on, what the pager cannot reach is asked of the agent by a SOCK_SEQPACKET pair, one end of which rides along; what is
    /// said there is [`crate::upstream::messages`]. Answered as `Figures` is.
    Upstream,
}

/// What a VM gets.
#[derive(Serialize, Deserialize)]
pub struct Serve {
    /// The manifest of an image: its memory's, addressed as the guest addresses it, or a disk's, by offset.
    pub manifest: [u8; 32],
    /// The tenant's key, by which that manifest and its bases open.
    pub key: [u8; 32],
    /// How.
    pub manner: Manner,
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").field("manner", &self.manner).finish_non_exhaustive()
    }
}

/// Pager to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// It is waited for the VMM's offer.
    Serving {
        /// What it is called from now on, in this pager.
        id: u64,
    },
    /// To `Report`.
    Report {
        /// Counts.
        figures: Figures,
        /// Pages in the order in which they were waited for: first page and how many.
        touched: Vec<(u32, u32)>,
        /// Why it is served no more.
        ended: Option<String>,
    },
    /// To `Figures`.
    Figures {
        /// Counts.
        figures: Box<HostFigures>,
        /// Objects that garbage collection took out of service and that were read: who may change the origin puts them back, and
        /// says so. [`RETIRED_MAX`] at most.
        retired: Vec<[u8; 32]>,
    },
    /// Not done.
    Refused {
        /// Why.
        why: String,
    },
}

/// Counts of a whole pager since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFigures {
    /// VMs that are served now.
    pub serving: u32,
    /// VMs that were, these included.
    pub served: u64,
    /// What all of them together waited for and got.
    pub pages: Figures,
    /// Reads of chunks that were in memory.
    pub memory: Tier,
    /// Those that were on this host's disk.
    pub disk: Tier,
    /// Those that the agent was asked for and had itself.
    pub agent: Tier,
    /// Those that other workers had.
    pub peers: Tier,
    /// Those that the origin had.
    pub origin: Tier,
}

/// Reads of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// It had the chunk.
    pub hits: u64,
    /// It had nothing.
    pub misses: u64,
    /// It had other bytes than were asked for, or failed.
    pub failures: u64,
    /// Bytes of its hits, sealed.
    pub bytes: u64,
    /// Microseconds that half of its hits took at most.
    pub p50_us: u64,
    /// The same of 99 of a hundred.
    pub p99_us: u64,
}

impl From<TierFigures> for Tier {
    fn from(tier: TierFigures) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            hits: tier.hits,
            misses: tier.misses,
            failures: tier.damaged.saturating_add(tier.failures),
            bytes: tier.bytes,
            p50_us: us(tier.p50),
            p99_us: us(tier.p99),
        }
    }
}

impl From<Entry> for Reply {
    fn from(entry: Entry) -> Self {
        let touched = entry.touched.iter().map(|run| (run.first, run.count)).collect();
        Self::Report { figures: entry.figures, touched, ended: entry.ended }
    }
}

impl Reply {
    /// The journal's entry again, of a report: no more pages than there may be, and each once, as whoever reads it goes through all.
    #[must_use]
    pub fn entry(self) -> Option<Entry> {
        let Self::Report { figures, touched, ended } = self else { return None };
        let touched: Vec<_> = touched.into_iter().map(|(first, count)| PageRun { first, count }).collect();
        if !is_a_log(&touched) {
            return None;
        }
        Some(Entry { figures, touched, ended })
    }
}

fn is_a_log(touched: &[PageRun]) -> bool {
    let pages: u64 = touched.iter().map(|run| u64::from(run.count)).sum();
    let mut sorted = touched.to_vec();
    sorted.sort_unstable_by_key(|run| run.first);
    let mut free = 0;
    touched.len() <= RUNS_MAX
        && pages <= TOUCHED_MAX.into()
        && sorted.iter().all(|run| {
            let end = run.first.checked_add(run.count);
            let sound = run.count > 0 && run.first >= free && end.is_some();
            free = end.unwrap_or(u32::MAX);
            sound
        })
}

/// A packet of a message; `None` if it is larger than any. There may be a key in it.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Option<Zeroizing<Vec<u8>>> {
    encode_within(PACKET_MAX, message).map(Zeroizing::new)
}

/// The message of a packet, all of it; `None` if it is none.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Option<T> {
    decode_within(PACKET_MAX, packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes is a message, or none; what is one survives being sent on.
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(request) = decode::<Request>(&bytes) {
                prop_assert!(decode::<Request>(&encode(&request).unwrap()).is_some());
            }
            if let Some(reply) = decode::<Reply>(&bytes) {
                prop_assert_eq!(decode::<Reply>(&encode(&reply).unwrap()), Some(reply));
            }
        }

        #[test]
        fn a_cut_request_is_none(manifest: [u8; 32], key: [u8; 32], cut in any::<prop::sample::Index>()) {
            let packet = encode(&Request::Serve(Serve { manifest, key, manner: Manner::RECORD })).unwrap();
            let request = decode::<Request>(&packet);
            prop_assert!(matches!(&request, Some(Request::Serve(serve)) if serve.key == key));
            prop_assert!(decode::<Request>(&packet[..cut.index(packet.len())]).is_none());
        }
    }

    /// As many as may be named at once.
    #[test]
    fn the_longest_list_of_retired_ones_fits_a_packet() {
        let retired = vec![[0xff; 32]; RETIRED_MAX];
        assert!(encode(&Reply::Figures { figures: Box::default(), retired }).is_some());
    }

    #[test]
    fn the_longest_report_fits_a_packet() {
        let run = |at: u32| PageRun { first: (1 << 24) - at * 300, count: 130 };
        let touched = (1..=u32::try_from(RUNS_MAX).unwrap()).map(run).collect();
        let entry = Entry { touched, ended: Some("x".repeat(600)), ..Entry::default() };
        let packet = encode(&Reply::from(entry.clone())).unwrap();
        assert_eq!(decode::<Reply>(&packet).unwrap().entry(), Some(entry));
    }

    /// A pager that was taken over names four thousand million pages in eight bytes.
    #[test]
    fn a_report_costs_no_more_to_read_than_it_may() {
        let check = |touched: &[(u32, u32)], good: bool| {
            let touched = touched.to_vec();
            let reply = Reply::Report { figures: Figures::default(), touched, ended: None };
            assert_eq!(reply.clone().entry().is_some(), good, "{reply:?}");
        };
        check(&[], true);
        check(&[(7, 2), (0, 7), (u32::MAX - 1, 1)], true);
        check(&[(5, TOUCHED_MAX)], true);
        check(&[(5, TOUCHED_MAX + 1)], false);
        check(&[(5, TOUCHED_MAX), (0, 1)], false);
        check(&[(0, u32::MAX)], false);
        check(&[(u32::MAX, 1)], false);
        check(&[(3, 0)], false);
        check(&[(3, 2), (4, 2)], false);
        check(&vec![(0, 1); RUNS_MAX + 1], false);
    }

    #[test]
    fn a_key_is_not_printed() {
        let serve = Serve { manifest: [1; 32], key: [7; 32], manner: Manner::SERVE };
        assert!(!format!("{serve:?}").contains('7'));
    }
}
