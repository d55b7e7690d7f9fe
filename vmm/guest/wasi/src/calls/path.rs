//! Paths below a directory descriptor.

use super::descriptor::flags_from;
use crate::{
    Answer, Errno, Host, Memory, Wasi,
    abi::{FileType, LOOKUP_SYMLINK_FOLLOW, oflags, rights},
    fs::NodeId,
    table::{Descriptor, Target},
};

/// The parameters of `path_open` after the path.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// `oflags`.
    pub oflags: u32,
    /// Rights asked for; those the directory cannot pass on are left out.
    pub rights: u64,
    /// Rights to pass on.
    pub inheriting: u64,
    /// `fdflags`.
    pub flags: u32,
}

impl<H: Host> Wasi<H> {
    /// `path_open`.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature, in part")]
    pub fn path_open(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        how: Open,
        opened: u32,
    ) -> Answer {
        let base = self.table.directory(fd, rights::PATH_OPEN)?;
        let offered = self.table.get(fd)?.inheriting;
        let path = memory.text(path, len)?;
        let flags = flags_from(how.flags)?;
        let (node, filetype) = self.open_node(base, path, lookup, how, fd)?;
        let able = if filetype == FileType::Directory { rights::DIRECTORY } else { rights::FILE };
        let target =
            if filetype == FileType::Directory { Target::Directory(node) } else { Target::File(node, 0) };
        let descriptor = Descriptor {
            target,
            flags,
            rights: how.rights & offered & able,
            inheriting: how.inheriting & offered,
        };
        // Where the number goes is checked first, so that a bad pointer leaves no descriptor behind.
        memory.slice(opened, 4)?;
        let number = self.table.open(descriptor, &mut self.fs)?;
        Ok(memory.write_u32(opened, number)?)
    }

    /// `path_create_directory`.
    pub fn path_create_directory(&mut self, memory: &mut Memory<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let base = self.table.directory(fd, rights::PATH_CREATE_DIRECTORY)?;
        let now = self.host.wall_ns();
        Ok(self.fs.create_directory(base, memory.text(path, len)?, now)?)
    }

    /// `path_remove_directory`.
    pub fn path_remove_directory(&mut self, memory: &mut Memory<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let base = self.table.directory(fd, rights::PATH_REMOVE_DIRECTORY)?;
        let now = self.host.wall_ns();
        Ok(self.fs.remove_directory(base, memory.text(path, len)?, now)?)
    }

    /// `path_unlink_file`.
    pub fn path_unlink_file(&mut self, memory: &mut Memory<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let base = self.table.directory(fd, rights::PATH_UNLINK_FILE)?;
        let now = self.host.wall_ns();
        Ok(self.fs.unlink(base, memory.text(path, len)?, now)?)
    }

    /// `path_rename`.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature")]
    pub fn path_rename(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Answer {
        let from = self.table.directory(fd, rights::PATH_RENAME_SOURCE)?;
        let to = self.table.directory(new_fd, rights::PATH_RENAME_TARGET)?;
        let now = self.host.wall_ns();
        Ok(self.fs.rename((from, memory.text(path, len)?), (to, memory.text(new_path, new_len)?), now)?)
    }

    /// `path_link`. A link in the last place is linked itself: following it is not offered.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature")]
    pub fn path_link(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Answer {
        let from = self.table.directory(fd, rights::PATH_LINK_SOURCE)?;
        let to = self.table.directory(new_fd, rights::PATH_LINK_TARGET)?;
        if lookup & LOOKUP_SYMLINK_FOLLOW != 0 {
            return Err(Errno::Inval.into());
        }
        let now = self.host.wall_ns();
        Ok(self.fs.link((from, memory.text(path, len)?), (to, memory.text(new_path, new_len)?), now)?)
    }

    /// `path_symlink`.
    pub fn path_symlink(
        &mut self,
        memory: &mut Memory<'_>,
        target: u32,
        target_len: u32,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Answer {
        let base = self.table.directory(fd, rights::PATH_SYMLINK)?;
        let now = self.host.wall_ns();
        Ok(self.fs.create_link(memory.text(target, target_len)?, base, memory.text(path, len)?, now)?)
    }

    /// `path_readlink`: as much of the target as fits.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature")]
    pub fn path_readlink(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        path: u32,
        len: u32,
        buffer: u32,
        buffer_len: u32,
        used: u32,
    ) -> Answer {
        let base = self.table.directory(fd, rights::PATH_READLINK)?;
        let target = self.fs.link_target(base, memory.text(path, len)?)?.as_bytes();
        let fits = target.len().min(buffer_len as usize);
        memory.slice(buffer, buffer_len)?;
        memory.write(buffer, target.get(..fits).unwrap_or_default())?;
        Ok(memory.write_u32(used, u32::try_from(fits).map_err(|_| Errno::Overflow)?)?)
    }

    /// `path_filestat_get`.
    pub fn path_filestat_get(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        stat: u32,
    ) -> Answer {
        let base = self.table.directory(fd, rights::PATH_FILESTAT_GET)?;
        let node = self.fs.find(base, memory.text(path, len)?, lookup & LOOKUP_SYMLINK_FOLLOW != 0)?;
        let value = self.fs.stat(node)?;
        Ok(memory.write(stat, &value.to_bytes())?)
    }

    /// `path_filestat_set_times`.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature")]
    pub fn path_filestat_set_times(
        &mut self,
        memory: &mut Memory<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        atim: u64,
        mtim: u64,
        flags: u32,
    ) -> Answer {
        let base = self.table.directory(fd, rights::PATH_FILESTAT_SET_TIMES)?;
        let node = self.fs.find(base, memory.text(path, len)?, lookup & LOOKUP_SYMLINK_FOLLOW != 0)?;
        self.set_times(node, atim, mtim, flags)
    }

    /// Finds or makes what `path_open` opens.
    fn open_node(
        &mut self,
        base: NodeId,
        path: &str,
        lookup: u32,
        how: Open,
        fd: u32,
    ) -> Result<(NodeId, FileType), Errno> {
        let asked = |bit| how.oflags & bit != 0;
        if how.oflags & !0xf != 0 || (asked(oflags::CREAT) && asked(oflags::DIRECTORY)) {
            return Err(Errno::Inval);
        }
        let exclusive = asked(oflags::CREAT) && asked(oflags::EXCL);
        let follow = lookup & LOOKUP_SYMLINK_FOLLOW != 0 && !exclusive;
        let place = self.fs.lookup(base, path, follow)?;
        let Some(node) = place.node else {
            if !asked(oflags::CREAT) {
                return Err(Errno::NoEnt);
            }
            self.table.get(fd)?.require(rights::PATH_CREATE_FILE)?;
            let now = self.host.wall_ns();
            return Ok((self.fs.create_file(&place, now)?, FileType::RegularFile));
        };
        if exclusive {
            return Err(Errno::Exist);
        }
        let filetype = self.fs.stat(node)?.filetype;
        let writes =
            how.rights & rights::WRITING & self.table.get(fd)?.inheriting != 0 || asked(oflags::TRUNC);
        match filetype {
            FileType::SymbolicLink => Err(Errno::Loop),
            FileType::Directory if asked(oflags::CREAT) || asked(oflags::TRUNC) => Err(Errno::IsDir),
            FileType::Directory if how.rights & rights::FD_WRITE != 0 => Err(Errno::IsDir),
            FileType::Directory => Ok((node, filetype)),
            _ if asked(oflags::DIRECTORY) => Err(Errno::NotDir),
            _ => {
                if writes {
                    self.fs.writable(node)?;
                }
                if asked(oflags::TRUNC) {
                    self.table.get(fd)?.require(rights::PATH_FILESTAT_SET_SIZE)?;
                    let now = self.host.wall_ns();
                    self.fs.set_len(node, 0, now)?;
                }
                Ok((node, filetype))
            }
        }
    }
}
