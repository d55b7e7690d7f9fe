//! What a descriptor is: its attributes and rights, closing and moving it, preopens, directory listings.

use crate::{
    Answer, Errno, Host, Memory, Wasi,
    abi::{FdStat, FileStat, fdflags, fstflags, rights},
    fs::NodeId,
    table::Target,
};

/// Bytes of a `dirent` before its name.
const DIRENT_SIZE: usize = 24;

impl<H: Host> Wasi<H> {
    /// `fd_close`.
    pub fn fd_close(&mut self, _memory: &mut Memory<'_>, fd: u32) -> Answer {
        Ok(self.table.close(fd, &mut self.fs)?)
    }

    /// `fd_renumber`.
    pub fn fd_renumber(&mut self, _memory: &mut Memory<'_>, from: u32, to: u32) -> Answer {
        Ok(self.table.renumber(from, to, &mut self.fs)?)
    }

    /// `fd_fdstat_get`.
    pub fn fd_fdstat_get(&mut self, memory: &mut Memory<'_>, fd: u32, stat: u32) -> Answer {
        let descriptor = self.table.get(fd)?;
        let value = FdStat {
            filetype: descriptor.filetype(),
            flags: descriptor.flags,
            rights_base: descriptor.rights,
            rights_inheriting: descriptor.inheriting,
        };
        Ok(memory.write(stat, &value.to_bytes())?)
    }

    /// `fd_fdstat_set_flags`: appending can be switched; synchronous modes are always true in memory.
    pub fn fd_fdstat_set_flags(&mut self, _memory: &mut Memory<'_>, fd: u32, flags: u32) -> Answer {
        let flags = flags_from(flags)?;
        let descriptor = self.table.get_mut(fd)?;
        descriptor.require(rights::FD_FDSTAT_SET_FLAGS)?;
        descriptor.flags = flags;
        Ok(())
    }

    /// `fd_fdstat_set_rights`: rights can only be given up.
    pub fn fd_fdstat_set_rights(
        &mut self,
        _memory: &mut Memory<'_>,
        fd: u32,
        base: u64,
        inheriting: u64,
    ) -> Answer {
        let descriptor = self.table.get_mut(fd)?;
        if base & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
            return Err(Errno::NotCapable.into());
        }
        descriptor.rights = base;
        descriptor.inheriting = inheriting;
        Ok(())
    }

    /// `fd_filestat_get`.
    pub fn fd_filestat_get(&mut self, memory: &mut Memory<'_>, fd: u32, stat: u32) -> Answer {
        let descriptor = self.table.get(fd)?;
        descriptor.require(rights::FD_FILESTAT_GET)?;
        let value = match descriptor.target {
            Target::File(node, _) | Target::Directory(node) | Target::Preopen(node, _) => {
                self.fs.stat(node)?
            }
            Target::Stdin(_) | Target::Stdout | Target::Stderr => FileStat {
                dev: 0,
                ino: fd.into(),
                filetype: descriptor.filetype(),
                nlink: 1,
                size: 0,
                atim: 0,
                mtim: 0,
                ctim: 0,
            },
        };
        Ok(memory.write(stat, &value.to_bytes())?)
    }

    /// `fd_filestat_set_times`.
    pub fn fd_filestat_set_times(
        &mut self,
        _memory: &mut Memory<'_>,
        fd: u32,
        atim: u64,
        mtim: u64,
        flags: u32,
    ) -> Answer {
        let descriptor = self.table.get(fd)?;
        let (Target::File(node, _) | Target::Directory(node) | Target::Preopen(node, _)) = descriptor.target
        else {
            return Err(Errno::BadF.into());
        };
        descriptor.require(rights::FD_FILESTAT_SET_TIMES)?;
        self.set_times(node, atim, mtim, flags)
    }

    /// `fd_prestat_get`.
    pub fn fd_prestat_get(&mut self, memory: &mut Memory<'_>, fd: u32, prestat: u32) -> Answer {
        let Target::Preopen(_, name) = self.table.get(fd)?.target else { return Err(Errno::BadF.into()) };
        memory.write_u32(prestat, 0)?;
        Ok(memory
            .write_u32(prestat.wrapping_add(4), u32::try_from(name.len()).map_err(|_| Errno::Overflow)?)?)
    }

    /// `fd_prestat_dir_name`.
    pub fn fd_prestat_dir_name(&mut self, memory: &mut Memory<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let Target::Preopen(_, name) = self.table.get(fd)?.target else { return Err(Errno::BadF.into()) };
        if name.len() > len as usize {
            return Err(Errno::NameTooLong.into());
        }
        Ok(memory.write(path, name.as_bytes())?)
    }

    /// `fd_readdir`: whole entries, and a part of the last when the buffer ends in it.
    pub fn fd_readdir(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        buffer: u32,
        len: u32,
        mut cookie: u64,
        used: u32,
    ) -> Answer {
        let directory = self.table.directory(fd, rights::FD_READDIR)?;
        let out = memory.slice_mut(buffer, len)?;
        let mut filled = 0;
        while filled < out.len() {
            let Some(entry) = self.fs.list(directory, cookie)? else { break };
            let mut head = [0; DIRENT_SIZE];
            let name_len = u32::try_from(entry.name.len()).map_err(|_| Errno::Overflow)?;
            let words = [entry.cookie, entry.inode, u64::from(name_len) | (entry.filetype as u64) << 32];
            for (field, word) in head.chunks_exact_mut(8).zip(words) {
                field.copy_from_slice(&word.to_le_bytes());
            }
            filled += copy_part(out.get_mut(filled..).unwrap_or_default(), &head);
            filled += copy_part(out.get_mut(filled..).unwrap_or_default(), entry.name.as_bytes());
            cookie = entry.cookie;
        }
        Ok(memory.write_u32(used, u32::try_from(filled).map_err(|_| Errno::Overflow)?)?)
    }

    /// Sets times as `fstflags` say; both a value and "now" for one time is EINVAL.
    pub(super) fn set_times(&mut self, node: NodeId, atim: u64, mtim: u64, flags: u32) -> Answer {
        let now = self.host.wall_ns();
        let pick = |value_bit, now_bit, value| match (flags & value_bit != 0, flags & now_bit != 0) {
            (true, true) => Err(Errno::Inval),
            (true, false) => Ok(Some(value)),
            (false, true) => Ok(Some(now)),
            (false, false) => Ok(None),
        };
        if flags & !fstflags::ALL != 0 {
            return Err(Errno::Inval.into());
        }
        let accessed = pick(fstflags::ATIM, fstflags::ATIM_NOW, atim)?;
        let modified = pick(fstflags::MTIM, fstflags::MTIM_NOW, mtim)?;
        Ok(self.fs.set_times(node, accessed, modified, now)?)
    }
}

/// Known `fdflags`.
pub(super) fn flags_from(raw: u32) -> Result<u16, Errno> {
    u16::try_from(raw).ok().filter(|flags| flags & !fdflags::ALL == 0).ok_or(Errno::Inval)
}

/// Copies as much as fits; how much.
fn copy_part(out: &mut [u8], bytes: &[u8]) -> usize {
    let len = out.len().min(bytes.len());
    if let (Some(target), Some(source)) = (out.get_mut(..len), bytes.get(..len)) {
        target.copy_from_slice(source);
    }
    len
}
