//! Files, directories and links, and what a directory knows of its entries.

use super::pages::Pages;
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc};

/// A node's number, never used again: the inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u64);

/// Which of the two file systems a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// `/var/task`: read-only.
    Task,
    /// `/tmp`.
    Tmp,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) device: Device,
    /// Names that lead here. A directory has one, its root included.
    pub(super) links: u32,
    /// Open descriptors.
    pub(super) handles: u32,
    pub(super) times: Times,
}

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) accessed: u64,
    pub(super) modified: u64,
    pub(super) changed: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A file of the archive, where it lies.
    Archived(&'static [u8]),
    File(Pages),
    Directory(Directory),
    Link(Box<str>),
}

/// The cookie of `..`; entries come after it.
pub(super) const COOKIE_PARENT: u64 = 2;

/// Entries by name, and in the order they came: a cookie stays valid while entries come and go around it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: NodeId,
    by_name: BTreeMap<Arc<str>, (NodeId, u64)>,
    by_cookie: BTreeMap<u64, Arc<str>>,
    last_cookie: u64,
}

impl Times {
    pub(super) const fn all(now: u64) -> Self {
        Self { accessed: now, modified: now, changed: now }
    }
}

impl Directory {
    pub(super) const fn new(parent: NodeId) -> Self {
        Self { parent, by_name: BTreeMap::new(), by_cookie: BTreeMap::new(), last_cookie: COOKIE_PARENT }
    }

    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).map(|(node, _)| *node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Adds a name that is not there.
    pub(super) fn insert(&mut self, name: &str, node: NodeId) {
        let name: Arc<str> = name.into();
        self.last_cookie += 1;
        self.by_cookie.insert(self.last_cookie, Arc::clone(&name));
        self.by_name.insert(name, (node, self.last_cookie));
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<NodeId> {
        let (node, cookie) = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie);
        Some(node)
    }

    /// The first entry after `cookie`: its own cookie, name and node.
    pub(super) fn after(&self, cookie: u64) -> Option<(u64, &str, NodeId)> {
        let (own, name) = self.by_cookie.range(cookie.checked_add(1)?..).next()?;
        Some((*own, name, self.get(name)?))
    }
}
