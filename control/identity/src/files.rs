//! The files of an identity directory: who owns which, and how they are written.

use crate::IdentityError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user who starts Warren; on a host, root.
    Starter,
    /// The user of `warren-control`.
    Control,
    /// The user of `warren-agent`.
    Agent,
}

/// One file of the directory.
#[derive(Clone, Copy, Debug)]
pub struct FileRule {
    /// Its name.
    pub name: &'static str,
    /// Its owner.
    pub owner: Owner,
    /// Its mode.
    pub mode: u32,
}

/// Every file of an identity directory.
pub const FILES: &[FileRule] = &[
    FileRule { name: CA_PEM, owner: Owner::Starter, mode: 0o644 },
    FileRule { name: CA_KEY, owner: Owner::Starter, mode: 0o600 },
    FileRule { name: CLIENT_TOKEN, owner: Owner::Starter, mode: 0o600 },
    FileRule { name: "control.pem", owner: Owner::Control, mode: 0o644 },
    FileRule { name: "control.key", owner: Owner::Control, mode: 0o600 },
    FileRule { name: TOKEN_HASHES, owner: Owner::Control, mode: 0o600 },
    FileRule { name: "agent.pem", owner: Owner::Agent, mode: 0o644 },
    FileRule { name: "agent.key", owner: Owner::Agent, mode: 0o600 },
    FileRule { name: FLEET_KEY, owner: Owner::Agent, mode: 0o600 },
];

pub(crate) const CA_PEM: &str = "ca.pem";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const CLIENT_TOKEN: &str = "client.token";
pub(crate) const FLEET_KEY: &str = "fleet.key";
pub(crate) const TOKEN_HASHES: &str = "clients";

/// The users that services run as.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    /// Of `warren-control`.
    pub control: u32,
    /// Of `warren-agent`.
    pub agent: u32,
}

/// Gives each service its files. Needs root, and must be called after every [`ensure_local`](crate::ensure_local):
/// a renewed file belongs to whoever renewed it.
pub fn give_files(dir: &Path, owners: Owners) -> Result<(), IdentityError> {
    for rule in FILES {
        let uid = match rule.owner {
            Owner::Starter => continue,
            Owner::Control => owners.control,
            Owner::Agent => owners.agent,
        };
        let path = dir.join(rule.name);
        let present = fs::symlink_metadata(&path).map_err(|source| fault(&path, source))?;
        if present.uid() != uid {
            chown(&path, Some(uid), Some(uid)).map_err(|source| fault(&path, source))?;
        }
    }
    Ok(())
}

pub(crate) fn fault(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { path: path.to_owned(), source }
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<String>, IdentityError> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(IdentityError::Damaged { path, what: "not text" })
        }
        Err(source) => Err(fault(&path, source)),
    }
}

/// Reads a file that must be there.
pub(crate) fn demand(dir: &Path, name: &str) -> Result<String, IdentityError> {
    read(dir, name)?.ok_or_else(|| fault(&dir.join(name), io::ErrorKind::NotFound.into()))
}

/// Reads a secret that must be there. One that others may read, or that is somebody else's, may have leaked: it is refused.
pub(crate) fn demand_secret(dir: &Path, name: &str) -> Result<Zeroizing<String>, IdentityError> {
    let path = dir.join(name);
    let facts = fs::metadata(&path).map_err(|source| fault(&path, source))?;
    let (mode, owner) = (facts.permissions().mode() & 0o777, facts.uid());
    if mode & 0o077 != 0 || !may_be_ours(owner) {
        return Err(IdentityError::Exposed { path, mode, owner });
    }
    demand(dir, name).map(Zeroizing::new)
}

/// Whether what has this owner is this process's. Root may work with what it gave to a service.
pub(crate) fn may_be_ours(owner: u32) -> bool {
    let me = rustix::process::geteuid();
    me.is_root() || me.as_raw() == owner
}

/// Replaces a file whole or not at all; the mode is right from its first byte on.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let mode = FILES.iter().find(|rule| rule.name == name).map_or(0o600, |rule| rule.mode);
    let path = dir.join(name);
    let fresh = dir.join(format!(".{name}.new"));
    let steps = || -> io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(dir)?.sync_all()
    };
    steps().map_err(|source| fault(&path, source))
}

/// Holds the directory's lock until dropped, so that two starters do not make two CAs.
pub(crate) fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path: PathBuf = dir.join(".lock");
    let open = || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| fault(&path, source))
}
