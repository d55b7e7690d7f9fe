//! The thread that serves one VM.
//!
//! ```text
//!  Opening ──manifest and bases──▶ Waiting ──offer──▶ Serving ──the VMM hangs up──▶ over
//!     │ cannot be had                 │ refused          │ Over (memory.rs)
//!     ╰───────────────────────────────┴──────────────────┴──▶ farewell, over
//! ```
//! A thread each, because what the kernel does for one VM (copying into its memory, making room in its cgroup) takes as long as
//! that VM makes it take. Reads from the store are the runtime's: a slow chunk holds up who waits for it and nobody else.

use crate::bundles::BundleId;
use crate::fetch::{Arrival, Fetches, Source};
use crate::journal::Journal;
use crate::memory::{Manner, Memory, Outside, Over, chain};
use crate::packet::{self, Packet};
use crate::regions::{OfferError, Regions};
use crate::uffd::{FaultError, Put, Userfault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::{sync::Arc, time::Instant};
use warren_chunks::{Image, Name, TenantKey, image::ResolveError, manifest::ChunkRef, store::ReadError};
use warren_vmm_protocol::pager::{Farewell, Offer, PACKET_MAX, decode, encode};

/// After this long without a fault, what is kept is dropped.
const REST: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Why a VM is served no more that ended by itself.
pub const HUNG_UP: &str = "the VMM hung up";

/// What one VM gets.
#[derive(Debug)]
pub struct Order {
    /// Its image.
    pub manifest: Name,
    /// What opens that.
    pub key: TenantKey,
    /// How it is served.
    pub manner: Manner,
    /// The socket whose other end the VMM has.
    pub socket: OwnedFd,
}

/// How serving a VM ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// Its image cannot be had.
    #[error("the image cannot be had: {}", chain(.0))]
    Image(#[source] ReadError),
    /// Its image is none.
    #[error("the image cannot be had: {}", chain(.0))]
    Resolve(#[source] ResolveError<ReadError>),
    /// The VMM hung up: its end, most often.
    #[error("{HUNG_UP}")]
    HungUp,
    /// The VMM said something else than an offer, or something more.
    #[error("the VMM breaks the protocol")]
    Protocol,
    /// Its offer is refused.
    #[error("the offer is refused: {0}")]
    Offer(#[from] OfferError),
    /// It cannot be served any more.
    #[error(transparent)]
    Over(#[from] Over),
    /// The host failed.
    #[error("the host failed the pager: {0}")]
    Host(#[from] std::io::Error),
}

/// Serves a VM to its end, on the calling thread.
pub fn serve(order: &Order, source: &Source, journal: &Journal) {
    let Err(end) = live(order, source, journal);
    let why = end.to_string();
    tracing::info!(why, "served no more");
    journal.end(why.clone());
    if !matches!(end, End::HungUp)
        && let Some(packet) = encode(&Farewell::new(&why))
    {
        // Who does not read it sees the socket close.
        let _ = rustix::io::ioctl_fionbio(&order.socket, true);
        let _ = packet::send(&order.socket, &packet, &[]);
    }
}

fn live(order: &Order, source: &Source, journal: &Journal) -> Result<std::convert::Infallible, End> {
    let manifest = source.manifest(order.manifest, &order.key).map_err(End::Image)?;
    let image = Image::resolve(manifest, |base| source.manifest(base, &order.key)).map_err(End::Resolve)?;
    let Packet { bytes, descriptors } = packet::receive(&order.socket, PACKET_MAX)?.ok_or(End::HungUp)?;
    let (offer, [fd]) = decode::<Offer>(&bytes).zip(descriptors.try_into().ok()).ok_or(End::Protocol)?;
    let regions = Regions::judge(&offer, image.pages())?;
    let userfault = Userfault::judge(fd, regions.first()).map_err(Over::from)?;
    let fetches = source.fetches()?;
    let memory = Memory::new(&Arc::new(image), regions, order.manner, journal.clone());
    Serving { socket: &order.socket, outside: Kernel { userfault, fetches, begun: Instant::now() }, memory }
        .run()
}

struct Serving<'a> {
    socket: &'a OwnedFd,
    outside: Kernel,
    memory: Memory,
}

/// The world as it is.
struct Kernel {
    userfault: Userfault,
    fetches: Fetches,
    begun: Instant,
}

impl Serving<'_> {
    fn run(mut self) -> Result<std::convert::Infallible, End> {
        self.memory.pump(&mut self.outside);
        let mut more = false;
        let mut faults = Vec::new();
        loop {
            if !self.wait(more)? {
                self.memory.rest();
            }
            self.outside.userfault.faults(&mut faults).map_err(Over::from)?;
            for address in faults.drain(..) {
                self.memory.fault(address, &mut self.outside)?;
            }
            while let Some(Arrival { id, pages }) = self.outside.fetches.next() {
                self.memory.arrived(id, pages, &mut self.outside)?;
            }
            more = self.memory.place(&mut self.outside)?;
        }
    }

    /// Waits until there is something to do; `false` if nothing came for a while.
    fn wait(&self, more: bool) -> Result<bool, End> {
        let timeout = match (more, self.memory.keeps()) {
            (true, _) => Some(&NOW),
            (false, true) => Some(&REST),
            (false, false) => None,
        };
        let mut places = [
            PollFd::new(self.socket, PollFlags::IN),
            PollFd::new(&self.outside.userfault, PollFlags::IN),
            PollFd::from_borrowed_fd(self.outside.fetches.bell(), PollFlags::IN),
        ];
        let ready = match poll(&mut places, timeout) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(End::Host(error.into())),
        };
        let [socket, ..] = places.map(|place| place.revents());
        if socket.is_empty() {
            return Ok(more || ready > 0);
        }
        match packet::receive(self.socket, PACKET_MAX) {
            Ok(None) => Err(End::HungUp),
            _ => Err(End::Protocol),
        }
    }
}

impl Outside for Kernel {
    fn copy(&mut self, to: u64, pages: &[u8]) -> Result<Put, FaultError> {
        self.userfault.copy(to, pages)
    }

    fn zero(&mut self, to: u64, len: usize) -> Result<Put, FaultError> {
        self.userfault.zero(to, len)
    }

    fn fetch(&mut self, id: BundleId, chunk: &ChunkRef, pages: u32) {
        self.fetches.begin(id, chunk, pages);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
