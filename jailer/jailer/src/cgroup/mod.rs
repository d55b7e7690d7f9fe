//! The cgroup directories: found, made, filled, emptied and removed. Which file gets which value is not decided here
//! but in the plan, which makes v1 and v2 the same work.
//!
//! Directories are reached through descriptors of their parents alone; the jailer makes every directory it writes to.

pub(crate) mod favor;
pub(crate) mod find;
mod parents;

pub(crate) use parents::{Parents, place};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, mkdirat, openat, unlinkat},
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use std::os::fd::{BorrowedFd, OwnedFd};
use warren_sandbox_plan::{
    cgroup::{Directory, Group, NAME_ATTRIBUTE, Setting},
    name::SandboxName,
};

/// Why a jail's groups could not be made: the host's fault, or limits the kernel does not take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("cannot make {0}")]
    Make(String, #[source] Errno),
    #[error("cannot write {1} to {0}")]
    Write(String, String, #[source] Errno),
    #[error("{file} says {got:?} after {wanted:?} was written")]
    NotTaken { file: String, wanted: String, got: String },
}

impl GroupError {
    /// The kernel's error, if that was it.
    pub(crate) const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Make(_, errno) | Self::Write(_, _, errno) => Some(*errno),
            Self::NotTaken { .. } => None,
        }
    }
}

impl Parents {
    /// Makes a slot's groups. On failure whatever was made is removed again.
    pub(crate) fn make(&self, directories: &[Directory]) -> Result<(), GroupError> {
        let result = directories.iter().try_for_each(|directory| {
            let failed = |errno| GroupError::Make(directory.to_string(), errno);
            let parent = self.dir(directory.parent).ok_or_else(|| failed(Errno::NOENT))?;
            mkdirat(parent, &directory.name, Mode::from_raw_mode(0o755)).map_err(failed)
        });
        if result.is_err() {
            for directory in directories {
                let _ = self.remove(&directory.name);
            }
        }
        result
    }

    /// Says whose jail it is and sets its limits.
    pub(crate) fn limit(&self, groups: &[Group], name: &SandboxName) -> Result<(), GroupError> {
        let Some(first) = groups.first() else { return Ok(()) };
        let parent = |group: &Group| {
            let none = || GroupError::Make(group.directory.to_string(), Errno::NOENT);
            self.dir(group.directory.parent).ok_or_else(none)
        };
        let named = open_dir(parent(first)?, &first.directory.name)
            .and_then(|dir| fsetxattr(dir, NAME_ATTRIBUTE, name.as_str().as_bytes(), XattrFlags::CREATE));
        named.map_err(|errno| GroupError::Write(NAME_ATTRIBUTE.to_owned(), name.to_string(), errno))?;
        groups.iter().try_for_each(|group| {
            let parent = parent(group)?;
            let write = |setting| write_checked(parent, &group.directory.name, setting);
            group.settings.iter().try_for_each(write)
        })
    }

    /// Whose jail a slot's groups are; `None` for those that were made ready and never asked for.
    pub(crate) fn name_of(&self, directory: &str) -> Option<SandboxName> {
        let mut bytes = [0_u8; 64];
        let dir = open_dir(self.dir(0)?, directory).ok()?;
        let read = fgetxattr(dir, NAME_ATTRIBUTE, &mut bytes).ok()?;
        SandboxName::new(str::from_utf8(bytes.get(..read)?).ok()?).ok()
    }

    /// Moves a process into every group of a slot.
    pub(crate) fn attach(&self, directories: &[Directory], pid: i32) -> Result<(), Errno> {
        let pid = pid.to_string();
        directories.iter().try_for_each(|directory| {
            let parent = self.dir(directory.parent).ok_or(Errno::NOENT)?;
            let file = format!("{}/cgroup.procs", directory.name);
            write_file(parent, &file, &pid)
        })
    }

    /// A descriptor of a jail's first group, for `CLONE_INTO_CGROUP`.
    pub(crate) fn open_group(&self, directory: &str) -> Result<OwnedFd, Errno> {
        open_dir(self.dir(0).ok_or(Errno::NOENT)?, directory)
    }

    /// Every directory below any parent.
    pub(crate) fn directories(&self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for parent in self.dirs() {
            let mut listing = Dir::read_from(parent)?;
            while let Some(entry) = listing.read() {
                let entry = entry?;
                if let Ok(name) = entry.file_name().to_str()
                    && entry.file_type() == rustix::fs::FileType::Directory
                    && !name.starts_with('.')
                {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The processes in any group of a jail.
    pub(crate) fn processes(&self, directory: &str) -> Vec<Pid> {
        let mut pids: Vec<Pid> = self
            .dirs()
            .filter_map(|parent| read_file(parent, &format!("{directory}/cgroup.procs")).ok())
            .flat_map(|text| {
                text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect::<Vec<_>>()
            })
            .collect();
        pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        pids
    }

    /// Whether the kernel has killed in a jail's groups because their memory was used up.
    pub(crate) fn killed_for_memory(&self, directory: &str) -> bool {
        // Version 2 and version 1 (since Linux 4.13) say it in the same words.
        let files = ["memory.events", "memory.oom_control"];
        let mut texts = self.dirs().flat_map(|parent| {
            files.into_iter().filter_map(move |file| read_file(parent, &format!("{directory}/{file}")).ok())
        });
        texts.any(|text| oom_kills(&text) > 0)
    }

    /// Kills whatever is in a jail's groups.
    pub(crate) fn kill(&self, directory: &str) {
        for parent in self.dirs() {
            // Version 2 since Linux 5.14: one write, nothing can fork away from it.
            let _ = write_file(parent, &format!("{directory}/cgroup.kill"), "1");
        }
        for pid in self.processes(directory) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Removes a jail's directories. Those already gone are no error; one still in use is (`BUSY`).
    pub(crate) fn remove(&self, directory: &str) -> Result<(), Errno> {
        let mut result = Ok(());
        for parent in self.dirs() {
            match unlinkat(parent, directory, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => result = Err(errno),
            }
        }
        result
    }
}

/// The count in a line `oom_kill N`.
fn oom_kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// Writes a limit and reads it back: what the kernel rounded, clamped or ignored is not the limit of the plan.
pub(super) fn write_checked(
    parent: BorrowedFd<'_>,
    directory: &str,
    Setting { file, value }: &Setting,
) -> Result<(), GroupError> {
    let failed = |errno| GroupError::Write(file.clone(), value.clone(), errno);
    let path = format!("{directory}/{file}");
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = openat(parent, path, flags, Mode::empty()).map_err(failed)?;
    rustix::io::write(&fd, value.as_bytes()).map_err(failed)?;
    let mut buffer = [0_u8; 64];
    let read = rustix::io::pread(&fd, &mut buffer, 0).map_err(failed)?;
    let got = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default());
    let got = got.trim_end();
    if got == value {
        Ok(())
    } else {
        Err(GroupError::NotTaken { file: file.clone(), wanted: value.clone(), got: got.to_owned() })
    }
}

/// Writes a control file in one write, as the kernel wants it.
pub(crate) fn write_file(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let fd = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    match rustix::io::write(&fd, value.as_bytes())? {
        written if written == value.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// Reads a control file or one of /proc.
pub(crate) fn read_file(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let fd = openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        match rustix::io::read(&fd, &mut piece)? {
            0 => return String::from_utf8(text).map_err(|_| Errno::ILSEQ),
            read => text.extend(piece.get(..read).unwrap_or_default()),
        }
    }
}

pub(crate) fn open_dir(at: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

pub(crate) fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    open_dir(CWD, path)
}
