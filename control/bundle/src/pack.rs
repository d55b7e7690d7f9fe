//! The archive being written.

use crate::{BundleError, MAX_ARCHIVE_BYTES, MAX_ENTRIES};
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};
use tar::{Builder, EntryType, Header};

/// A tar's block, to which everything is rounded up, and its end.
const BLOCK: usize = 512;
const END: usize = 2 * BLOCK;

/// Files and folders by name: checked as they come, written in order at the end.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    entries: BTreeMap<String, Node>,
    bytes: usize,
}

#[derive(Debug)]
enum Node {
    /// `said`: it was an entry of its own, and may not come again.
    Folder {
        said: bool,
    },
    File {
        executable: bool,
        bytes: Vec<u8>,
    },
}

impl Pack {
    /// A folder.
    pub(crate) fn folder(&mut self, name: &str) -> Result<(), BundleError> {
        let name = clean(name)?;
        if name.is_empty() {
            return Ok(());
        }
        self.parents(&name)?;
        match self.entries.get_mut(&name) {
            Some(Node::Folder { said: said @ false }) => *said = true,
            Some(_) => return Err(BundleError::Twice(name)),
            None => self.add(name, Node::Folder { said: true })?,
        }
        Ok(())
    }

    /// A file.
    pub(crate) fn file(&mut self, name: &str, executable: bool, bytes: Vec<u8>) -> Result<(), BundleError> {
        let name = clean(name)?;
        if name.is_empty() {
            return Err(BundleError::Name(name));
        }
        self.parents(&name)?;
        if self.entries.contains_key(&name) {
            return Err(BundleError::Twice(name));
        }
        self.add(name, Node::File { executable, bytes })
    }

    /// Bytes that files may still have.
    pub(crate) fn left(&self) -> usize {
        MAX_ARCHIVE_BYTES.saturating_sub(END).saturating_sub(self.bytes)
    }

    /// The archive. Folders that nothing but a file's name told of are in it too.
    pub(crate) fn finish(self) -> Result<Vec<u8>, BundleError> {
        let mut builder = Builder::new(Vec::with_capacity(self.bytes + END));
        // What a function brings along lies in folders and changes seldom, its handler lies beside them and changes each time: a
        // longer one must not move everything behind it, of which a store has the chunks.
        let is_loose =
            |(name, node): &(String, Node)| !name.contains('/') && matches!(node, Node::File { .. });
        let (loose, below): (Vec<_>, Vec<_>) = self.entries.into_iter().partition(is_loose);
        for (name, node) in below.into_iter().chain(loose) {
            let mut header = Header::new_ustar();
            header.set_path(&name).map_err(|_| BundleError::LongName(name.clone()))?;
            let bytes = match node {
                Node::Folder { .. } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    Vec::new()
                }
                Node::File { executable, bytes } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(if executable { 0o755 } else { 0o644 });
                    bytes
                }
            };
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder
                .append(&header, bytes.as_slice())
                .map_err(|error| BundleError::Malformed(error.to_string()))?;
        }
        builder.into_inner().map_err(|error| BundleError::Malformed(error.to_string()))
    }

    /// Every folder above a name is there, and is a folder.
    fn parents(&mut self, name: &str) -> Result<(), BundleError> {
        for (at, _) in name.match_indices('/') {
            let above = name.get(..at).unwrap_or_default();
            match self.entries.get(above) {
                Some(Node::Folder { .. }) => {}
                Some(Node::File { .. }) => return Err(BundleError::Twice(above.to_owned())),
                None => self.add(above.to_owned(), Node::Folder { said: false })?,
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, node: Node) -> Result<(), BundleError> {
        let size = match &node {
            Node::Folder { .. } => 0,
            Node::File { bytes, .. } => bytes.len().next_multiple_of(BLOCK),
        };
        self.bytes = self.bytes.saturating_add(size).saturating_add(BLOCK);
        if self.entries.len() >= MAX_ENTRIES {
            return Err(BundleError::TooMany);
        }
        if self.bytes > MAX_ARCHIVE_BYTES - END {
            return Err(BundleError::TooLarge);
        }
        self.entries.insert(name, node);
        Ok(())
    }
}

/// The one door for names: parts that are names, with one `/` between them.
fn clean(name: &str) -> Result<String, BundleError> {
    let refused = || BundleError::Name(name.chars().take(200).collect());
    if name.contains(['\0', '\\']) || name.starts_with('/') {
        return Err(refused());
    }
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(refused)?),
            Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, usize)]) -> Vec<u8> {
        let mut pack = Pack::default();
        for (name, bytes) in files {
            pack.file(name, false, vec![7; *bytes]).unwrap();
        }
        pack.finish().unwrap()
    }

    #[test]
    fn a_longer_handler_moves_nothing_but_itself() {
        let [short, long] = [10, 5000].map(|bytes| {
            archive(&[("app.py", bytes), ("b/deep/er.py", 700), ("zip/x.py", 3), ("zz.txt", 2)])
        });
        let names = |archive: &[u8]| -> Vec<String> {
            let mut tar = tar::Archive::new(archive);
            let names =
                tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
            names.collect()
        };
        assert_eq!(names(&short), ["b", "b/deep", "b/deep/er.py", "zip", "zip/x.py", "app.py", "zz.txt"]);
        assert_eq!(names(&short), names(&long));
        let same = short.iter().zip(&long).take_while(|(one, other)| one == other).count();
        // Five entries, two of them with bytes; then the header of the handler.
        assert!(same > 5 * BLOCK + 1024 + BLOCK, "{same} bytes of {} stay", short.len());
    }
}
