//! What the vCPU thread waits for while no guest runs.

use crate::end::End;
use crate::link::Link;
use crate::orders::Orders;
use crate::progress::Progress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Duration;

/// What a wait found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// There may be orders.
    pub orders: bool,
    /// The connection is readable, or at its end.
    pub link: bool,
}

/// Waits for an order, for `link`, or for the word to stop.
pub fn wait(orders: &Orders, link: Option<&Link>, progress: &Progress) -> Result<Ready, End> {
    loop {
        // The word comes with a ring of the orders' bell, so it is seen here at the latest then.
        if progress.stop_cause().is_some() {
            return Err(End::Shutdown);
        }
        let bell = PollFd::new(orders.bell(), PollFlags::IN);
        let nothing = || PollFd::new(orders.bell(), PollFlags::empty());
        let mut places = [bell, link.map_or_else(nothing, |link| PollFd::new(link.stream(), PollFlags::IN))];
        match poll(&mut places, None) {
            Ok(_) => {
                let [orders, link] = places.map(|place| !place.revents().is_empty());
                return Ok(Ready { orders, link });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(End::Host(error.into())),
        }
    }
}

/// Lets others work for a while (or less, if a signal comes).
pub fn pause(time: Duration) {
    let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    let _ = poll(&mut [], Some(&time));
}
