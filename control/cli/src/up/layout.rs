//! The data directory: who owns what in it, and that only one Warren uses it.

use std::{
    fs::File,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};
use warren_client::{Failure, Outcome};

/// The agent's user.
pub(crate) const AGENT_UID: u32 = 64_001;
/// The control layer's user.
pub(crate) const CONTROL_UID: u32 = 64_002;

/// The users of services that have users of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Users {
    pub(crate) agent: u32,
    pub(crate) control: u32,
}

/// Directory, owner, group, mode.
fn directories(users: Option<Users>) -> Vec<(&'static str, u32, u32, u32)> {
    if let Some(Users { agent, control }) = users {
        return vec![
            ("run", 0, agent, 0o750),
            ("jailer", 0, 0, 0o700),
            ("control", control, control, 0o700),
            ("agent", agent, agent, 0o700),
            ("log", 0, 0, 0o700),
        ];
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    ["control", "agent", "log"].map(|name| (name, uid, gid, 0o700)).into()
}

/// A prepared data directory. Holding it proves that no other `warren up` holds the same.
pub(crate) struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Creates what is missing, sets owners and modes, takes the lock. Without users of their own the services run as
    /// this one, and everything is closed to others.
    pub(crate) fn prepare(root: &Path, users: Option<Users>) -> Outcome<Self> {
        let failed = |error| Failure::io(format!("cannot prepare {}", root.display()), error);
        let mode = if users.is_some() { 0o755 } else { 0o700 };
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        if let Some(closed) = users.and_then(|_| closed_to_others(&root)) {
            return Err(Failure::Usage(format!(
                "control and agent run as users of their own and cannot reach {}: {} is closed to others; \
                 choose another place with --data",
                root.display(),
                closed.display()
            )));
        }
        let lock = lock(&root)?;
        for (name, uid, gid, mode) in directories(users) {
            directory(&root.join(name), uid, gid, mode).map_err(failed)?;
        }
        Ok(Self { root, _lock: lock })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below.
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }
}

/// Makes a folder that hosts share, the agent's; one that is there is left as it is.
pub(crate) fn shared(folder: &Path, agent: Option<u32>) -> Outcome {
    let failed = |error| Failure::io(format!("cannot make {}", folder.display()), error);
    match std::fs::DirBuilder::new().recursive(false).mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => chown(folder, agent, agent).map_err(failed),
    }
}

fn lock(root: &Path) -> Outcome<File> {
    let path = root.join("lock");
    let open = File::options().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|error| Failure::io(format!("cannot open {}", path.display()), error))?;
    file.try_lock().map_err(|_| {
        Failure::local(format!(
            "another `warren up` uses {}; stop it, or give this one --data of its own",
            root.display()
        ))
    })?;
    Ok(file)
}

/// Makes a directory with this owner and mode; never follows a link that somebody put in its place.
fn directory(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is no directory", path.display()),
        ));
    }
    if (meta.uid(), meta.gid()) != (uid, gid) {
        chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The first directory on the way that other users cannot pass.
pub(crate) fn closed_to_others(path: &Path) -> Option<PathBuf> {
    let closed = |dir: &&Path| !dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter().find(closed).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that other users can pass, whatever TMPDIR's mode.
    fn open_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = open_dir();
        let users = Some(Users { agent: AGENT_UID, control: CONTROL_UID });
        let first = Layout::prepare(dir.path(), users).unwrap();
        assert_eq!(Layout::prepare(dir.path(), users).err().map(|failure| failure.code()), Some(5));
        drop(first);
        assert!(Layout::prepare(dir.path(), users).is_ok());
        let mode = std::fs::metadata(dir.path().join("control")).unwrap();
        assert_eq!((mode.uid(), mode.permissions().mode() & 0o777), (CONTROL_UID, 0o700));
    }

    #[test]
    fn alone_it_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&dir.path().join("new"), None).unwrap();
        for part in ["", "control", "agent", "log"] {
            let about = std::fs::metadata(layout.path(part)).unwrap();
            assert_eq!(about.permissions().mode() & 0o777, 0o700, "{part:?}");
            assert_eq!(about.uid(), rustix::process::geteuid().as_raw());
        }
    }

    #[test]
    fn a_closed_way_is_named() {
        let dir = open_dir();
        let inner = dir.path().join("closed/inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::set_permissions(dir.path().join("closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_to_others(&inner), Some(dir.path().join("closed")));
    }
}
