//! Bytes through a descriptor: read, write, seek, and what belongs to a file's length.

use crate::{
    Answer, Errno, Halt, Host, Memory, Stop, Wasi,
    abi::{fdflags, rights},
    table::Target,
};

impl<H: Host> Wasi<H> {
    /// `fd_read`.
    pub fn fd_read(&mut self, memory: &mut Memory<'_>, fd: u32, iovs: u32, count: u32, nread: u32) -> Answer {
        let descriptor = self.table.get(fd)?;
        if descriptor.rights & rights::FD_READ == 0 {
            return Err(Errno::BadF.into());
        }
        let (total, advanced) = match descriptor.target {
            Target::Stdin(place) => {
                let total = self.read_stdin(memory, place, iovs, count)?;
                (total, Target::Stdin(place + total as usize))
            }
            Target::File(node, place) => {
                let total = self.read_file(memory, node, place, iovs, count)?;
                (total, Target::File(node, place + u64::from(total)))
            }
            _ => return Err(Errno::BadF.into()),
        };
        self.table.get_mut(fd)?.target = advanced;
        Ok(memory.write_u32(nread, total)?)
    }

    /// `fd_pread`.
    pub fn fd_pread(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        iovs: u32,
        count: u32,
        offset: u64,
        nread: u32,
    ) -> Answer {
        let (node, _) = self.seekable(fd, rights::FD_READ)?;
        let total = self.read_file(memory, node, offset, iovs, count)?;
        Ok(memory.write_u32(nread, total)?)
    }

    /// `fd_write`.
    pub fn fd_write(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        iovs: u32,
        count: u32,
        nwritten: u32,
    ) -> Answer {
        let descriptor = *self.table.get(fd)?;
        if descriptor.rights & rights::FD_WRITE == 0 {
            return Err(Errno::BadF.into());
        }
        let total = match descriptor.target {
            Target::Stdout | Target::Stderr => self.write_stdio(memory, descriptor.target, iovs, count)?,
            Target::File(node, place) => {
                let append = descriptor.flags & fdflags::APPEND != 0;
                let start = if append { self.fs.stat(node)?.size } else { place };
                let total = self.write_file(memory, node, start, iovs, count)?;
                self.table.get_mut(fd)?.target = Target::File(node, start + u64::from(total));
                total
            }
            _ => return Err(Errno::BadF.into()),
        };
        Ok(memory.write_u32(nwritten, total)?)
    }

    /// `fd_pwrite`.
    pub fn fd_pwrite(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        iovs: u32,
        count: u32,
        offset: u64,
        nwritten: u32,
    ) -> Answer {
        let (node, _) = self.seekable(fd, rights::FD_WRITE)?;
        // As on Linux, an appending descriptor appends whatever the offset.
        let append = self.table.get(fd)?.flags & fdflags::APPEND != 0;
        let start = if append { self.fs.stat(node)?.size } else { offset };
        let total = self.write_file(memory, node, start, iovs, count)?;
        Ok(memory.write_u32(nwritten, total)?)
    }

    /// `fd_seek`.
    pub fn fd_seek(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        delta: u64,
        whence: u32,
        position: u32,
    ) -> Answer {
        let (node, place) = self.seekable(fd, 0)?;
        let telling = delta == 0 && whence == 1;
        self.table.get(fd)?.require(if telling { rights::FD_TELL } else { rights::FD_SEEK })?;
        let base = match whence {
            0 => 0,
            1 => place,
            2 => self.fs.stat(node)?.size,
            _ => return Err(Errno::Inval.into()),
        };
        let target = base.checked_add_signed(delta.cast_signed()).filter(|to| i64::try_from(*to).is_ok());
        let target = target.ok_or(Errno::Inval)?;
        memory.write_u64(position, target)?;
        self.table.get_mut(fd)?.target = Target::File(node, target);
        Ok(())
    }

    /// `fd_tell`.
    pub fn fd_tell(&mut self, memory: &mut Memory<'_>, fd: u32, position: u32) -> Answer {
        let (_, place) = self.seekable(fd, 0)?;
        self.table.get(fd)?.require(rights::FD_TELL)?;
        Ok(memory.write_u64(position, place)?)
    }

    /// `fd_sync`: memory is always in step.
    pub fn fd_sync(&mut self, _memory: &mut Memory<'_>, fd: u32) -> Answer {
        Ok(self.table.get(fd)?.require(rights::FD_SYNC)?)
    }

    /// `fd_datasync`: memory is always in step.
    pub fn fd_datasync(&mut self, _memory: &mut Memory<'_>, fd: u32) -> Answer {
        Ok(self.table.get(fd)?.require(rights::FD_DATASYNC)?)
    }

    /// `fd_advise`: checked, then ignored.
    pub fn fd_advise(
        &mut self,
        _memory: &mut Memory<'_>,
        fd: u32,
        _offset: u64,
        _len: u64,
        advice: u32,
    ) -> Answer {
        self.table.file(fd)?;
        self.table.get(fd)?.require(rights::FD_ADVISE)?;
        if advice > 5 { Err(Errno::Inval.into()) } else { Ok(()) }
    }

    /// `fd_allocate`.
    pub fn fd_allocate(&mut self, _memory: &mut Memory<'_>, fd: u32, offset: u64, len: u64) -> Answer {
        let (node, _) = self.table.file(fd)?;
        self.table.get(fd)?.require(rights::FD_ALLOCATE)?;
        if len == 0 {
            return Err(Errno::Inval.into());
        }
        let now = self.host.wall_ns();
        Ok(self.fs.allocate(node, offset, len, now)?)
    }

    /// `fd_filestat_set_size`.
    pub fn fd_filestat_set_size(&mut self, _memory: &mut Memory<'_>, fd: u32, size: u64) -> Answer {
        let (node, _) = self.table.file(fd)?;
        self.table.get(fd)?.require(rights::FD_FILESTAT_SET_SIZE)?;
        if i64::try_from(size).is_err() {
            return Err(Errno::Inval.into());
        }
        let now = self.host.wall_ns();
        Ok(self.fs.set_len(node, size, now)?)
    }

    /// A regular file with a right: ESPIPE for stdio, EBADF for directories and without the right.
    fn seekable(&self, fd: u32, right: u64) -> Result<(crate::fs::NodeId, u64), Errno> {
        let descriptor = self.table.get(fd)?;
        match descriptor.target {
            Target::File(node, place) if descriptor.rights & right == right => Ok((node, place)),
            Target::Stdin(_) | Target::Stdout | Target::Stderr => Err(Errno::SPipe),
            _ => Err(Errno::BadF),
        }
    }

    fn read_stdin(&self, memory: &mut Memory<'_>, place: usize, iovs: u32, count: u32) -> Result<u32, Errno> {
        let mut rest = self.host.stdin().get(place..).unwrap_or_default();
        let mut buffers = memory.buffers(iovs, count)?;
        let mut total = 0_u32;
        while let Some(buffer) = memory.next_buffer(&mut buffers)? {
            let target = memory.slice_mut(buffer.address, buffer.len)?;
            let (now, later) = rest.split_at(rest.len().min(target.len()));
            if let Some(target) = target.get_mut(..now.len()) {
                target.copy_from_slice(now);
            }
            rest = later;
            total = total.saturating_add(u32::try_from(now.len()).map_err(|_| Errno::Overflow)?);
            if rest.is_empty() {
                break;
            }
        }
        Ok(total)
    }

    fn read_file(
        &self,
        memory: &mut Memory<'_>,
        node: crate::fs::NodeId,
        start: u64,
        iovs: u32,
        count: u32,
    ) -> Result<u32, Errno> {
        let mut buffers = memory.buffers(iovs, count)?;
        let mut total = 0_u32;
        while let Some(buffer) = memory.next_buffer(&mut buffers)? {
            let target = memory.slice_mut(buffer.address, buffer.len)?;
            let done = self.fs.read_at(node, start.saturating_add(total.into()), target)?;
            let Some(sum) = u32::try_from(done).ok().and_then(|done| total.checked_add(done)) else { break };
            total = sum;
            if done < buffer.len as usize {
                break;
            }
        }
        Ok(total)
    }

    fn write_file(
        &mut self,
        memory: &Memory<'_>,
        node: crate::fs::NodeId,
        start: u64,
        iovs: u32,
        count: u32,
    ) -> Result<u32, Errno> {
        let now = self.host.wall_ns();
        let mut buffers = memory.buffers(iovs, count)?;
        let mut total = 0_u32;
        while let Some(buffer) = memory.next_buffer(&mut buffers)? {
            let bytes = memory.slice(buffer.address, buffer.len)?;
            if total.checked_add(buffer.len).is_none() {
                break;
            }
            let place = start.checked_add(total.into()).ok_or(Errno::FBig)?;
            let done = match self.fs.write_at(node, place, bytes, now) {
                Ok(done) => done,
                // What was written before stays written; the next call gives the reason.
                Err(_) if total > 0 => break,
                Err(errno) => return Err(errno),
            };
            total += u32::try_from(done).map_err(|_| Errno::Overflow)?;
            if done < buffer.len as usize {
                break;
            }
        }
        Ok(total)
    }

    fn write_stdio(
        &mut self,
        memory: &Memory<'_>,
        target: Target,
        iovs: u32,
        count: u32,
    ) -> Result<u32, Stop> {
        let mut buffers = memory.buffers(iovs, count)?;
        let mut total = 0_u32;
        while let Some(buffer) = memory.next_buffer(&mut buffers)? {
            let bytes = memory.slice(buffer.address, buffer.len)?;
            let Some(sum) = total.checked_add(buffer.len) else { break };
            if target == Target::Stdout {
                self.host.write_response(bytes).map_err(|_| Stop::Halt(Halt::ResponseTooLarge))?;
            } else {
                self.host.write_log(bytes);
            }
            total = sum;
        }
        Ok(total)
    }
}
