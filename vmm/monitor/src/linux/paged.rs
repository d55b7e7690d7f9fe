//! Memory and disk of a Linux guest that a pager brings, each by a userfaultfd and a socket of its own, and the thread that listens to that pager.
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

use super::load::{Base, DeviceFile};
use super::virtio::overlay::PagedDisk;
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
    memory: Userfault,
    disk: Userfault,
    listener: Sender<Vec<Paging>>,
}

impl Pages {
    /// Of a userfaultfd for memory, one for a disk, and the queue of the thread that [listens](listen).
    #[must_use]
    pub fn new([memory, disk]: [Userfault; 2], listener: Sender<Vec<Paging>>) -> Self {
        Self { memory, disk, listener }
    }

    /// Hands a snapshot's runs to the pager behind a socket, and a disk's base to that behind its own. To be called before anybody
    /// touches either. The devices, as they are then.
    pub fn begin(
        &self,
        (ram, runs): (&Ram, &[Run]),
        socket: OwnedFd,
        devices: Vec<DeviceFile>,
    ) -> Result<Vec<DeviceFile>, PagerError> {
        let mut begun = vec![Paging::begin(ram, runs, &[], (&self.memory, socket))?];
        let mut hand = |device| match device {
            DeviceFile::Block { file, base: Some(Base::Pager(socket)), len, read_only, limits } => {
                let (disk, paging) = PagedDisk::begin(len, &self.disk, socket)?;
                begun.push(paging);
                Ok(DeviceFile::Block { file, base: Some(Base::Paged(disk)), len, read_only, limits })
            }
            other => Ok(other),
        };
        let devices = devices.into_iter().map(&mut hand).collect::<Result<_, PagerError>>()?;
        // The thread lives as long as this sender.
        let _ = self.listener.send(begun);
        Ok(devices)
    }
}

/// The body of that thread: it comes back when there is nobody to listen to any more, and never once there was.
pub fn listen(begun: &Receiver<Vec<Paging>>) {
    let Ok(pagings) = begun.recv() else { return };
    let sockets: Vec<_> = pagings.iter().map(AsFd::as_fd).collect();
    let mut places: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    loop {
        // Interrupted or not, what there is to hear is asked of the sockets.
        let _ = poll(&mut places, None);
        if let Some(why) = pagings.iter().find_map(Paging::hear) {
            let end = End::Pager(why);
            log!("end: {end}");
            std::process::exit(end.code().into());
        }
    }
}
