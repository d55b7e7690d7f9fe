//! `favordynmods`: an option of the host's cgroup v2 (Linux 6.0) under which a process changes its group without waiting.
//!
//! ```text
//!  off ── wanted: written down, then set ──▶ on, ours ── stop, or not wanted any more: set back, then forgotten ──▶ off
//!  on, nobody's note: the host's own wish ──▶ left alone
//! ```
//! Moving a process, or the thread that KVM makes with each VM, takes a lock that every fork and exit takes too. The kernel makes
//! it cheap for those; so whoever moves one after a pause waits for grace periods of RCU, 10 ms and more. With the
//! option forks and exits pay a little instead.

use anyhow::Context as _;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat},
    io::Errno,
    mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick},
};
use std::{
    fs,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The option, and the note in the state directory that it was off before.
const NAME: &str = "favordynmods";

/// The option is on because a jailer of this state directory set it. Dropped, it is set back; what cannot be is told.
#[derive(Debug)]
pub(crate) struct Favored {
    stays: bool,
    hierarchy: OwnedFd,
    state: OwnedFd,
    others: Vec<String>,
}

/// Sets it, or sets it back, as wanted. What `Some` holds sets it back at the end, whatever the end, also from within the jailer's own
/// empty root. An error changed nothing.
pub(crate) fn favor(state: &Path, wanted: bool) -> anyhow::Result<Option<Favored>> {
    let note = state.join(NAME);
    let noted = note.exists();
    if !wanted && !noted {
        return Ok(None);
    }
    let (mount, options) = read()?.context("this host has no cgroup v2")?;
    let (is_on, others) = split(&options);
    if wanted && is_on && !noted {
        return Ok(None);
    }
    let open =
        |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let favored = Favored { stays: false, hierarchy: open(&mount)?, state: open(state)?, others };
    if !wanted {
        // An earlier jailer's.
        return Ok(None);
    }
    if !is_on {
        fs::write(&note, "it was off before\n")?;
        let set = favored.set(true).map_err(anyhow::Error::from).and_then(|()| {
            let on = read()?.is_some_and(|(_, options)| split(&options).0);
            anyhow::ensure!(
                on,
                "the kernel took it and does not say it: not the host's own cgroup namespace"
            );
            Ok(())
        });
        if let Err(error) = set {
            favored.leave();
            let _ = fs::remove_file(&note);
            return Err(error.context("this kernel (6.0 and newer) does not take it"));
        }
    }
    Ok(Some(favored))
}

impl Favored {
    /// It stays on: the next jailer, of a hand-over, has the same wish or sets it back itself.
    pub(crate) fn leave(mut self) {
        self.stays = true;
    }

    /// As it was before.
    fn put_back(&self) -> Result<(), Errno> {
        self.set(false)?;
        unlinkat(&self.state, NAME, AtFlags::empty())
    }

    /// The kernel takes all options at once: those that are not given again are off.
    fn set(&self, on: bool) -> Result<(), Errno> {
        let context =
            fspick(&self.hierarchy, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        for option in self.others.iter().map(String::as_str).chain(on.then_some(NAME)) {
            fsconfig_set_flag(&context, option)?;
        }
        fsconfig_reconfigure(&context)
    }
}

impl Drop for Favored {
    fn drop(&mut self) {
        if !self.stays
            && let Err(errno) = self.put_back()
        {
            let _lost = writeln!(io::stderr(), "warren-jailer: {NAME} cannot be set back: {errno}");
        }
    }
}

/// Where the hierarchy is mounted, and with which options.
fn read() -> anyhow::Result<Option<(PathBuf, String)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(super::find::unified(&mounts).map(|(point, options)| (point.into(), options.to_owned())))
}

/// Whether it is on, and the other options of the file system.
fn split(options: &str) -> (bool, Vec<String>) {
    let (own, others): (Vec<_>, Vec<_>) = options
        .split(',')
        .filter(|option| !matches!(*option, "" | "rw" | "ro"))
        .map(str::to_owned)
        .partition(|option| option == NAME);
    (!own.is_empty(), others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_options_are_kept() {
        for (options, is_on, others) in [
            ("rw", false, vec![]),
            ("rw,nsdelegate,memory_recursiveprot", false, vec!["nsdelegate", "memory_recursiveprot"]),
            ("rw,favordynmods,nsdelegate", true, vec!["nsdelegate"]),
            ("ro,favordynmods", true, vec![]),
        ] {
            assert_eq!(split(options), (is_on, others.into_iter().map(str::to_owned).collect()), "{options}");
        }
    }

    #[test]
    fn what_nobody_wants_is_not_touched() {
        let state = tempfile::tempdir().unwrap();
        assert!(favor(state.path(), false).unwrap().is_none());
        assert!(!state.path().join(NAME).exists());
    }
}
