//! Memory of a Linux guest that a pager brings, and the thread that listens to that pager.
//!
//! ```text
//!  Waiting --memory was offered--> Listening --farewell, or the pager hangs up--> the process ends, by name
//!     | the machine ends                | the machine ends
//!     '---> over                        '---> over
//! ```
//! Every other thread touches guest memory: vCPUs run the guest, disks and sockets read and write its buffers, the main thread
//! brings devices back and says to the guest what generation it is. Whoever touches a page that is not there waits for it, also in
//! the middle of a system call, and a lost pager never brings it. So this thread touches none and ends the process by itself, without
//! the main thread's last words: what waits in the kernel is killed there.

use crate::end::End;
use crate::log;
use crate::paging::{PagerError, Paging};
use crate::ram::Ram;
use crate::sys::userfault::Userfault;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender};
use warren_state::wasm::Run;

/// What a machine has whose memory may be paged.
#[derive(Debug)]
pub struct Pages {
    userfault: Userfault,
    listener: Sender<Paging>,
}

impl Pages {
    /// Of a userfaultfd and the queue of the thread that [listens](listen).
    #[must_use]
    pub fn new(userfault: Userfault, listener: Sender<Paging>) -> Self {
        Self { userfault, listener }
    }

    /// Hands a snapshot's runs to the pager behind a socket. To be called before anybody touches memory.
    pub fn begin(&self, ram: &Ram, runs: &[Run], socket: OwnedFd) -> Result<(), PagerError> {
        let paging = Paging::begin(ram, runs, &[], (&self.userfault, socket))?;
        // The thread lives as long as this sender.
        let _ = self.listener.send(paging);
        Ok(())
    }
}

/// The body of that thread: it comes back when there is nobody to listen to any more, and never once there was.
pub fn listen(begun: &Receiver<Paging>) {
    let Ok(paging) = begun.recv() else { return };
    loop {
        // Interrupted or not, what there is to hear is asked of the socket.
        let _ = poll(&mut [PollFd::new(&paging.as_fd(), PollFlags::IN)], None);
        if let Some(why) = paging.hear() {
            let end = End::Pager(why);
            log!("end: {end}");
            std::process::exit(end.code().into());
        }
    }
}
