//! Open descriptors of one instance.

use crate::{
    Errno,
    abi::{FileType, rights},
    fs::{Fs, NodeId, TASK_ROOT, TMP_ROOT},
};
use alloc::{vec, vec::Vec};

/// Most descriptors at once.
const DESCRIPTORS_MAX: usize = 1024;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The event, read up to here.
    Stdin(usize),
    Stdout,
    Stderr,
    /// A regular file and the place in it.
    File(NodeId, u64),
    Directory(NodeId),
    /// A directory every instance starts with, and its name.
    Preopen(NodeId, &'static str),
}

/// An open descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) target: Target,
    /// `fdflags`.
    pub(crate) flags: u16,
    pub(crate) rights: u64,
    /// What descriptors opened through this one may have.
    pub(crate) inheriting: u64,
}

#[derive(Debug)]
pub(crate) struct Table(Vec<Option<Descriptor>>);

impl Descriptor {
    /// The node it keeps alive.
    pub(crate) const fn node(&self) -> Option<NodeId> {
        match self.target {
            Target::File(node, _) | Target::Directory(node) => Some(node),
            // Roots need no keeping.
            Target::Preopen(..) | Target::Stdin(_) | Target::Stdout | Target::Stderr => None,
        }
    }

    pub(crate) const fn filetype(&self) -> FileType {
        match self.target {
            Target::File(..) => FileType::RegularFile,
            Target::Directory(_) | Target::Preopen(..) => FileType::Directory,
            // Neither terminal nor file: libraries then buffer fully and do not seek.
            Target::Stdin(_) | Target::Stdout | Target::Stderr => FileType::Unknown,
        }
    }

    /// ENOTCAPABLE without the right.
    pub(crate) const fn require(&self, right: u64) -> Result<(), Errno> {
        if self.rights & right == right { Ok(()) } else { Err(Errno::NotCapable) }
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        Self(initial())
    }

    /// Back to the initial descriptors; the nodes that were open.
    pub(crate) fn reset(&mut self) -> impl Iterator<Item = NodeId> {
        core::mem::replace(&mut self.0, initial())
            .into_iter()
            .flatten()
            .filter_map(|descriptor| descriptor.node())
    }

    pub(crate) fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        self.0.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::BadF)
    }

    pub(crate) fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::BadF)
    }

    /// The directory a descriptor leads to, with a right on it.
    pub(crate) fn directory(&self, fd: u32, right: u64) -> Result<NodeId, Errno> {
        let descriptor = self.get(fd)?;
        let (Target::Directory(node) | Target::Preopen(node, _)) = descriptor.target else {
            return Err(Errno::NotDir);
        };
        descriptor.require(right)?;
        Ok(node)
    }

    /// The regular file a descriptor leads to, and its place; EBADF for anything else.
    pub(crate) fn file(&self, fd: u32) -> Result<(NodeId, u64), Errno> {
        match self.get(fd)?.target {
            Target::File(node, place) => Ok((node, place)),
            _ => Err(Errno::BadF),
        }
    }

    /// Enters a descriptor at the lowest free number.
    pub(crate) fn open(&mut self, descriptor: Descriptor, fs: &mut Fs) -> Result<u32, Errno> {
        let fd = match self.0.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.0.len() < DESCRIPTORS_MAX => {
                self.0.push(None);
                self.0.len() - 1
            }
            None => return Err(Errno::MFile),
        };
        if let Some(node) = descriptor.node() {
            fs.retain(node);
        }
        if let Some(slot) = self.0.get_mut(fd) {
            *slot = Some(descriptor);
        }
        u32::try_from(fd).map_err(|_| Errno::MFile)
    }

    pub(crate) fn close(&mut self, fd: u32, fs: &mut Fs) -> Result<(), Errno> {
        let slot = self.0.get_mut(fd as usize).ok_or(Errno::BadF)?;
        if let Some(node) = slot.take().ok_or(Errno::BadF)?.node() {
            fs.release(node);
        }
        Ok(())
    }

    /// Moves a descriptor over another, which is closed.
    pub(crate) fn renumber(&mut self, from: u32, to: u32, fs: &mut Fs) -> Result<(), Errno> {
        let moved = *self.get(from)?;
        self.get(to)?;
        if from == to {
            return Ok(());
        }
        self.close(to, fs)?;
        *self.0.get_mut(to as usize).ok_or(Errno::BadF)? = Some(moved);
        *self.0.get_mut(from as usize).ok_or(Errno::BadF)? = None;
        Ok(())
    }
}

fn initial() -> Vec<Option<Descriptor>> {
    let stdio = |target, right| Descriptor {
        target,
        flags: 0,
        rights: right | rights::POLL_FD_READWRITE | rights::FD_FILESTAT_GET | rights::FD_FDSTAT_SET_FLAGS,
        inheriting: 0,
    };
    let preopen = |node, name| Descriptor {
        target: Target::Preopen(node, name),
        flags: 0,
        rights: rights::DIRECTORY,
        inheriting: rights::DIRECTORY | rights::FILE,
    };
    vec![
        Some(stdio(Target::Stdin(0), rights::FD_READ)),
        Some(stdio(Target::Stdout, rights::FD_WRITE)),
        Some(stdio(Target::Stderr, rights::FD_WRITE)),
        Some(preopen(TASK_ROOT, "/var/task")),
        Some(preopen(TMP_ROOT, "/tmp")),
    ]
}
