//! What keeps a service's secrets to itself: it leaves no core dump, and what it keeps on the disk is closed to others.

use crate::{IdentityError, files};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// From now on this process leaves no core dump, wherever the host sends them. To be called first of all, before there is a secret.
///
/// One byte and not none: a host that pipes core dumps to a program does not ask for the limit, but for exactly this one (Linux,
/// `fs/coredump.c`); as a file's it is less than any dump needs. A process that cannot be dumped at all would do so too, and a service
/// that is not root's could not read its own `/proc/self` any more.
pub fn keep_from_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })?)
}

/// Makes a folder that is this process's alone, or closes one that others reach: then the mode that it had.
///
/// # Errors
/// It is somebody else's and others reach it: what lies in it may have been read or put there.
pub fn close_folder(path: &Path) -> Result<Option<u32>, IdentityError> {
    let failed = |source| files::fault(path, source);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let facts = fs::metadata(path).map_err(failed)?;
    let (mode, owner) = (facts.permissions().mode() & 0o777, facts.uid());
    let others_reach_it = mode & 0o077 != 0;
    if !others_reach_it {
        return Ok(None);
    }
    if !files::may_be_ours(owner) {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode, owner });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getrlimit;
    use std::os::unix::fs::chown;

    #[test]
    fn no_core_is_left() {
        keep_from_core_dumps().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(1), Some(1)));
    }

    #[test]
    fn a_folder_is_made_closed_or_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!((close_folder(&path).unwrap(), mode()), (None, 0o700));
        for open in [0o755, 0o770, 0o701, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            assert_eq!((close_folder(&path).unwrap(), mode()), (Some(open), 0o700));
        }
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(close_folder(&file), Err(IdentityError::File { .. })));
        // Root may close anybody's; who is not root closes his own.
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(4711), None).unwrap();
            assert_eq!(close_folder(&path).unwrap(), None);
        }
    }
}
