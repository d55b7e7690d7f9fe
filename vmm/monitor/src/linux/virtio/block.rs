//! What is done with a disk's requests: positioned reads and writes on its file, on the disk's own thread.

use super::overlay::Under;
use super::{Backend, BadRequest};
use crate::log;
use crate::log::Seldom;
use crate::progress::monotonic_ns;
use crate::ram::Ram;
use crate::sys::vectored::{Direction, Hole, make_hole};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use warren_devices::rate::{Limiter, Limits};
use warren_devices::virtio::block::{Disk, Extent, ID_LEN, Request, SECTOR, Status};
use warren_devices::virtio::{Chain, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity, Memory, Range};

/// Zeroes written at a time where the file system cannot make holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A disk over a file or block device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    file: OwnedFd,
    under: Option<Under>,
    id: [u8; ID_LEN as usize],
    name: String,
    limiter: Limiter,
    failed: Seldom,
}

impl Block {
    /// A disk of `len` bytes; what is left over behind the last whole sector is not part of it.
    #[must_use]
    pub fn new(name: String, file: OwnedFd, len: u64, read_only: bool, limits: Limits) -> Self {
        let mut id = [0; ID_LEN as usize];
        for (byte, value) in id.iter_mut().zip(name.bytes()) {
            *byte = value;
        }
        let limiter = Limiter::new(limits, monotonic_ns());
        Self {
            disk: Disk { sectors: len / SECTOR, read_only },
            file,
            under: None,
            id,
            name,
            limiter,
            failed: Seldom::default(),
        }
    }

    /// The same over a base: nothing of the file counts that was not written through it.
    #[must_use]
    pub fn over(self, under: Option<Under>) -> Self {
        Self { under, ..self }
    }

    /// What the driver is told.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            id: warren_devices::virtio::block::ID,
            features: F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | self.disk.features(),
            queues: warren_devices::virtio::block::QUEUES.to_vec(),
            config: self.disk.config().into(),
        }
    }

    fn perform(&mut self, request: Request, ram: &Ram) -> io::Result<()> {
        let file = self.file.as_fd();
        match request {
            Request::Read { offset, into } => match &mut self.under {
                Some(under) => under.read(file, offset, &into, ram),
                None => ram.transfer(file, offset, &into, Direction::Read),
            },
            Request::Write { offset, from } => {
                ram.transfer(file, offset, &from, Direction::Write)?;
                self.written(offset, from.iter().map(|range| u64::from(range.len)).sum());
                Ok(())
            }
            Request::Flush => Ok(rustix::fs::fdatasync(file)?),
            // A hint: a file system that cannot forget keeps.
            Request::Discard(Extent { offset, len }) => match make_hole(file, offset, len, Hole::Punch) {
                Err(error) if cannot(&error) => Ok(()),
                result => result.map(|()| self.written(offset, len)),
            },
            Request::WriteZeroes { extent: Extent { offset, len }, unmap } => {
                let hole = if unmap { Hole::Punch } else { Hole::Zero };
                match make_hole(file, offset, len, hole) {
                    Err(error) if cannot(&error) => self.write_zeroes(offset, len)?,
                    result => result?,
                }
                self.written(offset, len);
                Ok(())
            }
            Request::Id(into) => {
                let mut rest = &self.id[..];
                for Range { gpa, len } in into {
                    let (now, later) = rest.split_at(rest.len().min(len as usize));
                    Memory::write(ram, gpa, now).map_err(io::Error::other)?;
                    rest = later;
                }
                Ok(())
            }
        }
    }

    fn written(&mut self, offset: u64, len: u64) {
        if let Some(under) = &mut self.under {
            under.written(offset, len);
        }
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let now = ZEROES.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let piece = ZEROES.get(..now).unwrap_or_default();
            let done = rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, piece, offset))? as u64;
            if done == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += done;
            len = len.saturating_sub(done);
        }
        Ok(())
    }
}

fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

impl Backend for Block {
    fn begin_again(&mut self) -> io::Result<()> {
        let Some(under) = &mut self.under else { return Ok(()) };
        under.begin_again();
        // What it wrote is not read any more; a file system that cannot make holes keeps the room.
        match make_hole(self.file.as_fd(), 0, self.disk.sectors * SECTOR, Hole::Punch) {
            Err(error) if cannot(&error) => Ok(()),
            result => result,
        }
    }

    fn ready(&mut self, now_ns: u64) -> Result<(), u64> {
        self.limiter.ready(now_ns)
    }

    fn work(&mut self, _queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest> {
        let parsed =
            self.disk.parse(chain, ram).map_err(|_| BadRequest("no header or no place for a status"))?;
        self.limiter.charge(parsed.request.as_ref().map_or(0, Request::bytes_moved));
        let reads = matches!(parsed.request, Ok(Request::Read { .. } | Request::Id(_)));
        let status = match parsed.request.map(|request| self.perform(request, ram)) {
            Ok(Ok(())) => Status::Ok,
            Ok(Err(error)) => {
                if let Some(times) = self.failed.count() {
                    log!("{}: {error} (time {times})", self.name);
                }
                Status::IoError
            }
            Err(status) => status,
        };
        Memory::write(ram, parsed.status_at, &[status as u8])
            .map_err(|_| BadRequest("status is not memory"))?;
        Ok(1 + if reads { parsed.data_len } else { 0 })
    }
}
