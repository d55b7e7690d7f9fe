//! From a path below a directory to a place in the tree.
//!
//! A path never leaves the directory it starts from: not by `..`, not by a leading `/`, not through a link.

use super::{Fs, node::Kind, node::NodeId};
use crate::Errno;
use alloc::{borrow::Cow, boxed::Box, string::ToString, vec::Vec};

/// Most bytes of a path.
pub(super) const PATH_MAX: usize = 4096;
/// Most bytes of one name.
const NAME_MAX: usize = 255;
/// Most links expanded in one path.
const LINKS_MAX: u32 = 32;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory that holds, or would hold, the entry.
    pub(crate) parent: NodeId,
    /// The entry's name; none when the path ends in `.` or `..`.
    pub(crate) name: Option<Box<str>>,
    /// What is there.
    pub(crate) node: Option<NodeId>,
    /// The path ended in `/`: whatever is made there must be a directory.
    pub(crate) slash: bool,
}

impl Place {
    /// What is there, or ENOENT.
    pub(super) fn existing(&self) -> Result<NodeId, Errno> {
        self.node.ok_or(Errno::NoEnt)
    }

    /// The name to make, remove or replace: EINVAL for `.` and `..`.
    pub(super) fn named(&self) -> Result<&str, Errno> {
        self.name.as_deref().ok_or(Errno::Inval)
    }
}

impl Fs {
    /// Walks `path` from the directory `base`; `follow` expands a link in the last place.
    pub(crate) fn lookup(&self, base: NodeId, path: &str, follow: bool) -> Result<Place, Errno> {
        let mut rest = Vec::new();
        let mut slash = push_components(&mut rest, path)?;
        let mut links = 0;
        let mut here = base;
        while let Some(part) = rest.pop() {
            let last = rest.is_empty();
            if part == "." {
                self.directory(here)?;
                continue;
            }
            if part == ".." {
                if here == base {
                    return Err(Errno::Perm);
                }
                here = self.directory(here)?.parent;
                continue;
            }
            if part.len() > NAME_MAX {
                return Err(Errno::NameTooLong);
            }
            let Some(found) = self.directory(here)?.get(&part) else {
                let place = Place { parent: here, name: Some(part.into()), node: None, slash };
                return if last { Ok(place) } else { Err(Errno::NoEnt) };
            };
            match &self.node(found)?.kind {
                Kind::Link(target) if !last || follow || slash => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::Loop);
                    }
                    let target = target.to_string();
                    let ends_in_slash = push_owned(&mut rest, &target)?;
                    slash |= last && ends_in_slash;
                }
                Kind::Directory(_) if !last => here = found,
                _ if !last => return Err(Errno::NotDir),
                kind if slash && !matches!(kind, Kind::Directory(_)) => return Err(Errno::NotDir),
                _ => return Ok(Place { parent: here, name: Some(part.into()), node: Some(found), slash }),
            }
        }
        Ok(Place { parent: self.directory(here)?.parent, name: None, node: Some(here), slash })
    }
}

/// Pushes the components in reverse; whether the path ends in `/`.
fn push_components<'p>(rest: &mut Vec<Cow<'p, str>>, path: &'p str) -> Result<bool, Errno> {
    check_path(path)?;
    rest.extend(path.split('/').rev().filter(|part| !part.is_empty()).map(Cow::Borrowed));
    Ok(path.ends_with('/'))
}

fn push_owned(rest: &mut Vec<Cow<'_, str>>, path: &str) -> Result<bool, Errno> {
    check_path(path)?;
    rest.extend(
        path.split('/').rev().filter(|part| !part.is_empty()).map(|part| Cow::Owned(part.to_string())),
    );
    Ok(path.ends_with('/'))
}

fn check_path(path: &str) -> Result<(), Errno> {
    match path {
        "" => Err(Errno::NoEnt),
        _ if path.len() > PATH_MAX => Err(Errno::NameTooLong),
        _ if path.contains('\0') => Err(Errno::Inval),
        _ if path.starts_with('/') => Err(Errno::Perm),
        _ => Ok(()),
    }
}
