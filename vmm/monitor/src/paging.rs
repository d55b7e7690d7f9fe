//! Guest memory that a pager brings: what it is offered, and the socket by which it is heard of.
//!
//! ```text
//!  Offering --offer sent--> Served --farewell--> Over(why)
//!     | refused               '------hang-up---> Over("the pager is gone")
//!     '--> no guest
//! ```
//! A page that is missing is waited for by the thread that touched it, and by that one alone. So a thread that touches none listens
//! here, and ends the process when the pager is no more: a Wasm machine's main thread, which touches none once a guest is restored;
//! one of its own in a Linux machine ([`crate::linux::paged`]).
//!
//! Only runs of a snapshot are offered, and small gaps between them: the rest is zero, which the kernel gives without asking.

use crate::ram::{Ram, RamError};
use crate::sys::userfault::Userfault;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use warren_boot::plan::HIGH_BASE;
use warren_state::wasm::{Area, Run};
use warren_vmm_protocol::pager::{
    Farewell, Offer, PACKET_MAX, PAGER_VERSION, REGIONS_MAX, Region, decode, encode,
};

/// Zero pages between two runs that are brought all the same, in bytes: a region more costs as much as a few pages.
const GAP: u64 = 64 << 10;
/// How the end is called of a pager that says nothing.
const GONE: &str = "the pager is gone";

/// Why memory could not be handed to a pager.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The process was not started for it.
    #[error("this VMM was started without a userfaultfd")]
    NotStartedForIt,
    /// There is no room for a disk's base: the host's fault.
    #[error("cannot map a disk's base")]
    Disk(#[source] RamError),
    /// Memory cannot be registered: the host's fault.
    #[error("cannot register memory with the userfaultfd")]
    Register(#[source] io::Error),
    /// The pager cannot be told: its socket is none of a pager.
    #[error("cannot reach the pager")]
    Tell(#[source] io::Error),
    /// The pager went before it was told: neither the caller's fault nor the snapshot's.
    #[error("{GONE}")]
    Gone(#[source] io::Error),
}

impl PagerError {
    fn untold(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone(error),
            _ => Self::Tell(error),
        }
    }
}

/// A pager that serves this guest.
#[derive(Debug)]
pub struct Paging {
    socket: OwnedFd,
}

impl Paging {
    /// Hands the runs of a snapshot to the pager behind a socket. What is `apart` lies between runs and is not memory of theirs.
    pub fn begin(
        ram: &Ram,
        runs: &[Run],
        apart: &[Area],
        (userfault, socket): (&Userfault, OwnedFd),
    ) -> Result<Self, PagerError> {
        let mut regions = Vec::new();
        for area in areas(runs, apart) {
            let host = ram.page(userfault, area.gpa, area.len).map_err(PagerError::Register)?;
            regions.push(Region { image: area.gpa, host, len: area.len });
        }
        tell(&socket, &Offer { version: PAGER_VERSION, regions }, userfault).map_err(PagerError::untold)?;
        Ok(Self { socket })
    }

    /// What to listen to.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// To be called when there is something to hear: why the pager serves no more, if that is it.
    #[must_use]
    pub fn hear(&self) -> Option<String> {
        let mut packet = [0; PACKET_MAX];
        let mut read = || rustix::io::read(&self.socket, &mut packet);
        // A pager that went before it had read the offer resets the connection; its last word lies behind that.
        let got = read();
        match if got == Err(rustix::io::Errno::CONNRESET) { read() } else { got } {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Ok(0) | Err(_) => Some(GONE.to_owned()),
            Ok(len) => {
                let farewell = packet.get(..len).and_then(decode::<Farewell>);
                Some(farewell.map_or_else(|| "the pager breaks the protocol".to_owned(), |word| word.why()))
            }
        }
    }
}

impl AsFd for Paging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn tell(socket: &OwnedFd, offer: &Offer, userfault: &Userfault) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    let packet = encode(offer).ok_or(io::ErrorKind::InvalidInput)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: [BorrowedFd<'_>; 1] = [userfault.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    match sendmsg(socket, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)? {
        sent if sent == packet.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The runs with small gaps closed: at most [`REGIONS_MAX`] areas, none over what is apart or over two banks.
fn areas(runs: &[Run], apart: &[Area]) -> Vec<Area> {
    let mut gap = GAP;
    loop {
        let areas = closed(runs, apart, gap);
        // What cannot be closed parts runs in six at most: three areas apart, two banks.
        if areas.len() <= REGIONS_MAX || gap == u64::MAX {
            return areas;
        }
        gap = gap.saturating_mul(4);
    }
}

fn closed(runs: &[Run], apart: &[Area], gap: u64) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for run in runs {
        let follows = |last: &Area| {
            let between = last.range().end..run.gpa;
            run.gpa.saturating_sub(between.start) <= gap
                && !apart.iter().any(|area| area.gpa < between.end && between.start < area.range().end)
                && !(between.start <= HIGH_BASE && run.gpa >= HIGH_BASE && last.gpa < HIGH_BASE)
        };
        match areas.last_mut() {
            Some(last) if follows(last) => last.len = run.range().end - last.gpa,
            _ => areas.push(*run),
        }
    }
    areas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    fn page(first: u64, count: u64) -> Area {
        Area { gpa: first * PAGE, len: count * PAGE }
    }

    #[test]
    fn small_gaps_are_closed_and_nothing_else() {
        let runs = [page(0, 1), page(17, 1), page(40, 2), page(60, 1), page(100, 1)];
        assert_eq!(closed(&runs, &[], GAP), [page(0, 18), page(40, 2), page(60, 1), page(100, 1)]);
        assert_eq!(closed(&runs, &[page(3, 4)], u64::MAX), [page(0, 1), page(17, 84)]);
        let (low, high) = (page(HIGH_BASE / PAGE - 1, 1), page(HIGH_BASE / PAGE, 1));
        assert_eq!(closed(&[low, high], &[], u64::MAX), [low, high], "two banks");
    }

    proptest! {
        #[test]
        fn every_run_is_in_one_of_few_areas(steps in prop::collection::vec((1_u64..200, 1_u64..9), 0..2000)) {
            let mut at = 0;
            let runs: Vec<Run> = steps.iter().map(|(gap, count)| {
                let run = page(at + gap, *count);
                at += gap + count;
                run
            }).collect();
            let areas = areas(&runs, &[]);
            prop_assert!(areas.len() <= REGIONS_MAX);
            prop_assert!(areas.is_sorted_by(|one, two| one.range().end < two.gpa));
            for run in runs {
                let around = |area: &&Area| area.gpa <= run.gpa && run.range().end <= area.range().end;
                prop_assert_eq!(areas.iter().filter(around).count(), 1);
            }
        }
    }

    #[test]
    fn a_pager_that_goes_is_heard() {
        use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
        let pair =
            || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let (socket, pager) = pair();
        let paging = Paging { socket };
        assert_eq!(paging.hear(), None);
        send(&pager, &encode(&Farewell::new("no such image")).unwrap(), SendFlags::empty()).unwrap();
        assert_eq!(paging.hear().as_deref(), Some("no such image"));
        send(&pager, &[0xFF; 9], SendFlags::empty()).unwrap();
        assert!(paging.hear().unwrap().contains("breaks the protocol"));
        drop(pager);
        assert_eq!(paging.hear().as_deref(), Some(GONE));
        let (socket, pager) = pair();
        send(&socket, b"an offer that nobody reads", SendFlags::empty()).unwrap();
        send(&pager, &encode(&Farewell::new("no such image")).unwrap(), SendFlags::empty()).unwrap();
        drop(pager);
        assert_eq!(Paging { socket }.hear().as_deref(), Some("no such image"));
    }
}
