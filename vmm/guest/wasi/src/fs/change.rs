//! Everything that changes `/tmp`. In `/var/task` each answers EROFS.

use super::{
    Fs,
    node::{Device, Directory, Kind, NodeId, Times},
    pages::Pages,
    path::{PATH_MAX, Place},
    quota::Quota,
};
use crate::Errno;

impl Fs {
    /// Makes an empty file at a place where nothing is.
    pub(crate) fn create_file(&mut self, place: &Place, now: u64) -> Result<NodeId, Errno> {
        if place.slash {
            return Err(Errno::IsDir);
        }
        self.create(place, Kind::File(Pages::default()), now)
    }

    /// Makes a directory.
    pub fn create_directory(&mut self, base: NodeId, path: &str, now: u64) -> Result<(), Errno> {
        let place = self.lookup(base, path, false)?;
        self.create(&place, Kind::Directory(Directory::new(place.parent)), now).map(drop)
    }

    /// Makes a symbolic link that holds `target`.
    pub fn create_link(&mut self, target: &str, base: NodeId, path: &str, now: u64) -> Result<(), Errno> {
        if target.is_empty() || target.len() > PATH_MAX {
            return Err(if target.is_empty() { Errno::NoEnt } else { Errno::NameTooLong });
        }
        if target.starts_with('/') {
            return Err(Errno::Perm);
        }
        let place = self.lookup(base, path, false)?;
        if place.slash {
            return Err(if place.node.is_some() { Errno::Exist } else { Errno::NoEnt });
        }
        self.create(&place, super::link_kind(target), now).map(drop)
    }

    /// Gives a file a second name.
    pub fn link(&mut self, from: (NodeId, &str), to: (NodeId, &str), now: u64) -> Result<(), Errno> {
        let source = self.find(from.0, from.1, false)?;
        if self.directory(source).is_ok() {
            return Err(Errno::Perm);
        }
        let place = self.lookup(to.0, to.1, false)?;
        if place.node.is_some() {
            return Err(Errno::Exist);
        }
        if place.slash {
            return Err(Errno::NoEnt);
        }
        if self.device(source)? != self.device(place.parent)? {
            return Err(Errno::XDev);
        }
        self.attach(&place, source, now)?;
        let node = self.node_mut(source)?;
        node.links = node.links.checked_add(1).ok_or(Errno::MLink)?;
        node.times.changed = now;
        Ok(())
    }

    /// Removes a name that leads to anything but a directory.
    pub fn unlink(&mut self, base: NodeId, path: &str, now: u64) -> Result<(), Errno> {
        let place = self.lookup(base, path, false)?;
        let target = place.existing()?;
        if self.directory(target).is_ok() {
            return Err(Errno::IsDir);
        }
        self.detach(&place, target, now)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, base: NodeId, path: &str, now: u64) -> Result<(), Errno> {
        let place = self.lookup(base, path, false)?;
        let target = place.existing()?;
        if !self.directory(target)?.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.detach(&place, target, now)
    }

    /// Moves a name, over what is there if the kinds agree.
    pub fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str), now: u64) -> Result<(), Errno> {
        let source_place = self.lookup(from.0, from.1, false)?;
        let source = source_place.existing()?;
        let target_place = self.lookup(to.0, to.1, false)?;
        source_place.named()?;
        target_place.named()?;
        self.writable(source_place.parent)?;
        if self.device(source)? != self.device(target_place.parent)? {
            return Err(Errno::XDev);
        }
        let moves_directory = self.directory(source).is_ok();
        if target_place.slash && !moves_directory {
            return Err(Errno::NotDir);
        }
        if moves_directory && self.is_within(target_place.parent, source) {
            return Err(Errno::Inval);
        }
        if let Some(target) = target_place.node {
            if target == source {
                return Ok(());
            }
            match (moves_directory, self.directory(target)) {
                (true, Err(_)) => return Err(Errno::NotDir),
                (false, Ok(_)) => return Err(Errno::IsDir),
                (true, Ok(directory)) if !directory.is_empty() => return Err(Errno::NotEmpty),
                _ => self.detach(&target_place, target, now)?,
            }
        }
        // The node must outlive the moment between its two names.
        self.retain(source);
        let moved = self.attach(&target_place, source, now).and_then(|()| {
            let node = self.node_mut(source)?;
            node.links = node.links.saturating_add(1);
            node.times.changed = now;
            if let Kind::Directory(directory) = &mut node.kind {
                directory.parent = target_place.parent;
            }
            self.detach(&source_place, source, now)
        });
        self.release(source);
        moved
    }

    /// Copies `bytes` to `offset`; how many were written.
    pub fn write_at(&mut self, id: NodeId, offset: u64, bytes: &[u8], now: u64) -> Result<usize, Errno> {
        self.with_pages(id, now, |pages, quota| pages.write_at(offset, bytes, quota))
    }

    /// Cuts or extends a file.
    pub fn set_len(&mut self, id: NodeId, len: u64, now: u64) -> Result<(), Errno> {
        self.with_pages(id, now, |pages, quota| pages.set_len(len, quota))
    }

    /// Makes a range of a file real.
    pub fn allocate(&mut self, id: NodeId, offset: u64, len: u64, now: u64) -> Result<(), Errno> {
        self.with_pages(id, now, |pages, quota| pages.allocate(offset, len, quota))
    }

    /// Sets access and modification times, each where given.
    pub fn set_times(
        &mut self,
        id: NodeId,
        accessed: Option<u64>,
        modified: Option<u64>,
        now: u64,
    ) -> Result<(), Errno> {
        self.writable(id)?;
        let times = &mut self.node_mut(id)?.times;
        times.accessed = accessed.unwrap_or(times.accessed);
        times.modified = modified.unwrap_or(times.modified);
        times.changed = now;
        Ok(())
    }

    /// EROFS unless the node is in `/tmp`.
    pub(crate) fn writable(&self, id: NodeId) -> Result<(), Errno> {
        match self.device(id)? {
            Device::Tmp => Ok(()),
            Device::Task => Err(Errno::RoFs),
        }
    }

    fn with_pages<T>(
        &mut self,
        id: NodeId,
        now: u64,
        change: impl FnOnce(&mut Pages, &mut Quota) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.writable(id)?;
        let node = self.nodes.get_mut(&id).ok_or(Errno::BadF)?;
        let Kind::File(pages) = &mut node.kind else { return Err(Errno::BadF) };
        let done = change(pages, &mut self.quota)?;
        node.times.modified = now;
        node.times.changed = now;
        Ok(done)
    }

    fn create(&mut self, place: &Place, kind: Kind, now: u64) -> Result<NodeId, Errno> {
        self.writable(place.parent)?;
        if place.node.is_some() {
            return Err(Errno::Exist);
        }
        let extra = if let Kind::Link(target) = &kind { target.len() as u64 } else { 0 };
        self.quota.take(extra)?;
        let id = self.add_node(kind, Device::Tmp, Times::all(now));
        match self.attach(place, id, now) {
            Ok(()) => Ok(id),
            Err(errno) => {
                self.quota.give(extra);
                if let Ok(node) = self.node_mut(id) {
                    node.links = 0;
                }
                self.free_if_dead(id);
                Err(errno)
            }
        }
    }

    /// Enters a node under a place's name, and charges for the entry.
    fn attach(&mut self, place: &Place, id: NodeId, now: u64) -> Result<(), Errno> {
        self.writable(place.parent)?;
        let name = place.named()?;
        // A removed directory that is still open takes no new entries.
        if self.node(place.parent)?.links == 0 {
            return Err(Errno::NoEnt);
        }
        self.directory(place.parent)?;
        self.quota.take(Quota::entry_cost(name))?;
        self.directory_mut(place.parent)?.insert(name, id);
        self.touch(place.parent, now);
        Ok(())
    }

    /// Removes a place's name, and the node with its last one.
    fn detach(&mut self, place: &Place, id: NodeId, now: u64) -> Result<(), Errno> {
        self.writable(place.parent)?;
        let name = place.named()?;
        self.directory_mut(place.parent)?.remove(name).ok_or(Errno::NoEnt)?;
        self.quota.give(Quota::entry_cost(name));
        self.touch(place.parent, now);
        let node = self.node_mut(id)?;
        node.links = node.links.saturating_sub(1);
        node.times.changed = now;
        if let (0, Kind::Link(target)) = (node.links, &node.kind) {
            let len = target.len() as u64;
            self.quota.give(len);
        }
        self.free_if_dead(id);
        Ok(())
    }

    fn touch(&mut self, id: NodeId, now: u64) {
        if let Ok(node) = self.node_mut(id) {
            node.times.modified = now;
            node.times.changed = now;
        }
    }

    /// Whether `id` is `ancestor` or lies below it.
    fn is_within(&self, mut id: NodeId, ancestor: NodeId) -> bool {
        loop {
            if id == ancestor {
                return true;
            }
            match self.directory(id) {
                Ok(directory) if directory.parent != id => id = directory.parent,
                _ => return false,
            }
        }
    }
}
