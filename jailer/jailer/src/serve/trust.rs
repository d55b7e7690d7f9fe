//! Whether a folder is the jailer's own: who can write in it could put another file, or a link, in a file's place.

use anyhow::{Context, bail};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Refuses a folder that is not root's or in which others may write. A link in its place is refused as well.
pub(super) fn folder(path: &Path) -> anyhow::Result<()> {
    let about = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    match fault(about.is_dir(), about.uid(), about.mode()) {
        None => Ok(()),
        Some(fault) => bail!(
            "{} {fault}: the jailer works only in folders of root's own (chown root and chmod go-w, or name another)",
            path.display()
        ),
    }
}

fn fault(is_folder: bool, uid: u32, mode: u32) -> Option<&'static str> {
    if !is_folder {
        Some("is no folder")
    } else if uid != 0 {
        Some("does not belong to root")
    } else if mode & 0o022 != 0 {
        Some("can be written by others")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn table() {
        for (is_folder, uid, mode, good) in [
            (true, 0, 0o755, true),
            (true, 0, 0o700, true),
            (true, 0, 0o750, true),
            (true, 0, 0o775, false),
            (true, 0, 0o1777, false),
            (true, 1000, 0o700, false),
            (false, 0, 0o755, false),
        ] {
            assert_eq!(fault(is_folder, uid, mode).is_none(), good, "{is_folder} {uid} {mode:o}");
        }
    }
}
