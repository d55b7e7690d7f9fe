//! Two file systems in memory: `/var/task`, an archive read where it lies, and `/tmp`, under a quota.
//!
//! ```text
//! node:  linked (a name leads to it) --unlink, rename over--> unlinked
//!        unlinked and not open: freed at once, its charge given back
//!        unlinked but open:     freed by the release of the last descriptor
//! ```
//! Nodes name each other by number; every walk checks, so a stale number is an error, not a panic.

mod archive;
mod change;
mod node;
mod pages;
mod path;
mod quota;
#[cfg(test)]
mod tests;
mod whole;

pub use archive::ArchiveError;
pub use node::{Device, NodeId};
pub use quota::Quota;

use crate::{
    Errno,
    abi::{FileStat, FileType},
};
use alloc::{boxed::Box, collections::BTreeMap};
use node::{COOKIE_PARENT, Directory, Kind, Node, Times};

/// The root of `/var/task`.
pub const TASK_ROOT: NodeId = NodeId(1);
/// The root of `/tmp`.
pub const TMP_ROOT: NodeId = NodeId(2);

/// One sandbox's files.
#[derive(Debug)]
pub struct Fs {
    /// By number, so that what is removed leaves nothing behind.
    nodes: BTreeMap<NodeId, Node>,
    quota: Quota,
    last_node: u64,
}

/// One line of a directory listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'n> {
    /// Where to go on after this entry.
    pub cookie: u64,
    /// The entry's name.
    pub name: &'n str,
    /// What it is.
    pub filetype: FileType,
    /// Its inode number.
    pub inode: u64,
}

impl Fs {
    /// An empty `/tmp` of this quota beside the files of `archive` (empty for none).
    pub fn new(archive: &'static [u8], quota: Quota) -> Result<Self, ArchiveError> {
        let mut fs = Self { nodes: BTreeMap::new(), quota, last_node: 0 };
        for (root, device) in [(TASK_ROOT, Device::Task), (TMP_ROOT, Device::Tmp)] {
            fs.add_node(Kind::Directory(Directory::new(root)), device, Times::all(0));
        }
        for member in archive::read_members(archive)? {
            fs.add_member(&member)?;
        }
        Ok(fs)
    }

    /// Space in `/tmp`.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// The root and the rest of an absolute path under `/var/task` or `/tmp`; the rest is `.` for the root itself.
    #[must_use]
    pub fn split_absolute(path: &str) -> Option<(NodeId, &str)> {
        for (root, mount) in [(TASK_ROOT, "/var/task"), (TMP_ROOT, "/tmp")] {
            match path.strip_prefix(mount).map(|rest| (rest, rest.trim_start_matches('/'))) {
                Some((_, "")) => return Some((root, ".")),
                Some((rest, relative)) if rest.starts_with('/') => return Some((root, relative)),
                _ => {}
            }
        }
        None
    }

    /// What `path` below `base` leads to.
    pub fn find(&self, base: NodeId, path: &str, follow: bool) -> Result<NodeId, Errno> {
        self.lookup(base, path, follow)?.existing()
    }

    /// Attributes of a node.
    pub fn stat(&self, id: NodeId) -> Result<FileStat, Errno> {
        let node = self.node(id)?;
        Ok(FileStat {
            dev: match node.device {
                Device::Task => 1,
                Device::Tmp => 2,
            },
            ino: id.0,
            filetype: node.filetype(),
            nlink: node.links.into(),
            size: node.len(),
            atim: node.times.accessed,
            mtim: node.times.modified,
            ctim: node.times.changed,
        })
    }

    /// Which file system a node belongs to.
    pub fn device(&self, id: NodeId) -> Result<Device, Errno> {
        Ok(self.node(id)?.device)
    }

    /// Copies bytes at `offset` into `out`; how many, 0 at the end.
    pub fn read_at(&self, id: NodeId, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        match &self.node(id)?.kind {
            Kind::Archived(bytes) => {
                let rest =
                    usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
                let len = rest.len().min(out.len());
                if let (Some(source), Some(target)) = (rest.get(..len), out.get_mut(..len)) {
                    target.copy_from_slice(source);
                }
                Ok(len)
            }
            Kind::File(pages) => Ok(pages.read_at(offset, out)),
            Kind::Directory(_) => Err(Errno::IsDir),
            Kind::Link(_) => Err(Errno::Inval),
        }
    }

    /// The entry of a directory after `cookie`; `.` and `..` come first.
    pub fn list(&self, id: NodeId, cookie: u64) -> Result<Option<Listed<'_>>, Errno> {
        let directory = self.directory(id)?;
        let (cookie, name, id) = match cookie {
            0 => (1, ".", id),
            1 => (COOKIE_PARENT, "..", directory.parent),
            cookie => match directory.after(cookie) {
                Some(entry) => entry,
                None => return Ok(None),
            },
        };
        Ok(Some(Listed { cookie, name, filetype: self.node(id)?.filetype(), inode: id.0 }))
    }

    /// Where a link leads.
    pub fn link_target(&self, base: NodeId, path: &str) -> Result<&str, Errno> {
        match &self.node(self.find(base, path, false)?)?.kind {
            Kind::Link(target) => Ok(target),
            _ => Err(Errno::Inval),
        }
    }

    /// An open descriptor keeps a node alive.
    pub fn retain(&mut self, id: NodeId) {
        if let Ok(node) = self.node_mut(id) {
            node.handles = node.handles.saturating_add(1);
        }
    }

    /// Undoes one [`Fs::retain`].
    pub fn release(&mut self, id: NodeId) {
        if let Ok(node) = self.node_mut(id) {
            node.handles = node.handles.saturating_sub(1);
        }
        self.free_if_dead(id);
    }

    fn node(&self, id: NodeId) -> Result<&Node, Errno> {
        self.nodes.get(&id).ok_or(Errno::BadF)
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&id).ok_or(Errno::BadF)
    }

    fn directory(&self, id: NodeId) -> Result<&Directory, Errno> {
        match &self.node(id)?.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::NotDir),
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> Result<&mut Directory, Errno> {
        match &mut self.node_mut(id)?.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::NotDir),
        }
    }

    fn add_node(&mut self, kind: Kind, device: Device, times: Times) -> NodeId {
        self.last_node += 1;
        let id = NodeId(self.last_node);
        self.nodes.insert(id, Node { kind, device, links: 1, handles: 0, times });
        id
    }

    fn free_if_dead(&mut self, id: NodeId) {
        if !self.node(id).is_ok_and(|node| node.links == 0 && node.handles == 0) {
            return;
        }
        if let Some(Node { kind: Kind::File(mut pages), .. }) = self.nodes.remove(&id) {
            pages.free(&mut self.quota);
        }
    }

    fn add_member(&mut self, member: &archive::Member) -> Result<(), ArchiveError> {
        let times = Times::all(member.modified_s.saturating_mul(1_000_000_000));
        let mut here = TASK_ROOT;
        let mut parts = member.path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let found = self.directory(here).map_err(|_| ArchiveError::Conflict)?.get(part);
            here = match (found, member.bytes) {
                (None, Some(bytes)) if last => self.add_entry(here, part, Kind::Archived(bytes), times),
                (None, _) => self.add_entry(here, part, Kind::Directory(Directory::new(here)), times),
                (Some(_), Some(_)) if last => return Err(ArchiveError::Conflict),
                (Some(found), _) => found,
            };
        }
        match member.bytes {
            // The archive's own root, or a directory listed after its files.
            None if self.directory(here).is_ok() => Ok(()),
            Some(_) if here != TASK_ROOT => Ok(()),
            _ => Err(ArchiveError::Conflict),
        }
    }

    fn add_entry(&mut self, parent: NodeId, name: &str, kind: Kind, times: Times) -> NodeId {
        let device = self.node(parent).map_or(Device::Task, |node| node.device);
        let id = self.add_node(kind, device, times);
        if let Ok(directory) = self.directory_mut(parent) {
            directory.insert(name, id);
        }
        id
    }
}

impl Node {
    const fn filetype(&self) -> FileType {
        match self.kind {
            Kind::Archived(_) | Kind::File(_) => FileType::RegularFile,
            Kind::Directory(_) => FileType::Directory,
            Kind::Link(_) => FileType::SymbolicLink,
        }
    }

    fn len(&self) -> u64 {
        match &self.kind {
            Kind::Archived(bytes) => bytes.len() as u64,
            Kind::File(pages) => pages.len(),
            Kind::Link(target) => target.len() as u64,
            Kind::Directory(_) => 0,
        }
    }
}

/// A link's target as a node keeps it.
fn link_kind(target: &str) -> Kind {
    Kind::Link(Box::from(target))
}
