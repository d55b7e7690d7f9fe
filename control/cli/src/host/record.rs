//! The record of a preparation: `/etc/warren/host.json`, root's, readable by everybody.
//!
//! ```text
//!   absent --prepare: written before the first thing is made--> being prepared --service answers--> prepared
//!     ^                                                              |                                |
//!     '------------- unprepare: undoes `made` from the last to the first, then removes it ------------'
//! ```
//! Each thing is written down *before* it is made, so an interrupted prepare leaves nothing that unprepare does not know.

use super::contract::Contract;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use warren_client::{Failure, Outcome};

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// For whom, and within which bounds.
    pub(crate) wish: Wish,
    /// Which build the installed programs are; none until the service answers.
    pub(crate) build: Option<Build>,
    /// In the order in which it was made.
    pub(crate) made: Vec<Made>,
}

/// For whom, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The user's name, or number if it has none.
    pub(crate) user: String,
    /// The one uid the jailer serves.
    pub(crate) uid: u32,
    /// The jailer's own directory.
    pub(crate) state: PathBuf,
    /// First uid of sandboxes.
    pub(crate) uid_base: u32,
    /// Most sandboxes at a time.
    pub(crate) sandboxes: u32,
    /// Memory of all sandboxes together.
    pub(crate) memory_mib: u64,
    /// Whether Linux functions reach the world.
    #[serde(default)]
    pub(crate) network: bool,
    /// Whether the host's cgroups change without waiting while the jailer runs.
    #[serde(default)]
    pub(crate) favordynmods: bool,
}

/// The installed programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// The release.
    pub(crate) version: String,
    /// Of the programs' contents.
    pub(crate) digest: String,
    /// What the user's programs must agree with.
    pub(crate) contract: Contract,
}

/// One thing that prepare made, with what undoing it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Made {
    /// A group.
    Group(String),
    /// A user's membership.
    Member {
        /// Of which group.
        group: String,
        /// Who.
        user: String,
    },
    /// Another group and mode of a device.
    Node {
        /// Which.
        path: PathBuf,
        /// Its group before.
        gid: u32,
        /// Its mode before.
        mode: u32,
    },
    /// A file.
    File(PathBuf),
    /// A folder and everything in it.
    Tree(PathBuf),
    /// A folder that is removed only if it is empty.
    Folder(PathBuf),
    /// The jailer runs, by hand or as a service.
    Service,
}

impl Record {
    /// Reads it. `None` if there is none. One that others than root could have written is refused: what it says is done
    /// with root's rights.
    pub(crate) fn load(path: &Path) -> Outcome<Option<Self>> {
        let failed = |error| Failure::io(format!("cannot read {}", path.display()), error);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let about = fs::symlink_metadata(path).map_err(failed)?;
        if !about.is_file() || about.uid() != 0 || about.mode() & 0o022 != 0 {
            return Err(Failure::local(format!(
                "{} is not root's alone; nothing that it says is believed",
                path.display()
            )));
        }
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Failure::local(format!("{} is damaged: {error}", path.display())))
    }

    /// Writes it whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::local(format!("record of the host: {error}")))?;
        replace(path, text.as_bytes(), 0o644)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))
    }

    /// Adds what is about to be made, once.
    pub(crate) fn add(&mut self, made: Made) {
        // A device's state before the first change is the one to go back to.
        let known = |old: &Made| match (old, &made) {
            (Made::Node { path: old, .. }, Made::Node { path: new, .. }) => old == new,
            (old, new) => old == new,
        };
        if !self.made.iter().any(known) {
            self.made.push(made);
        }
    }
}

/// Replaces a file in a folder of root's own; the mode is right from the first byte on.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    // The caller's umask may have taken bits.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_first_change_is_kept() {
        let wish = Wish {
            user: "ada".into(),
            uid: 1000,
            state: "/s".into(),
            uid_base: 80_000,
            sandboxes: 8,
            memory_mib: 64,
            network: false,
            favordynmods: true,
        };
        let mut record = Record { wish, build: None, made: Vec::new() };
        let node = |gid| Made::Node { path: "/dev/kvm".into(), gid, mode: 0o600 };
        for made in [node(0), Made::Service, node(107), Made::Service, Made::Group("kvm".into())] {
            record.add(made);
        }
        assert_eq!(record.made, [node(0), Made::Service, Made::Group("kvm".into())]);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
