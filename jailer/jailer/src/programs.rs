//! The files a jail is started from, opened once.
//!
//! A program is copied into a sealed memory file that may be executed but not read by anyone but root. So it cannot
//! change under a running jailer, what runs is not dumpable from exec on, and no path leads to it.

use rustix::{
    fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, memfd_create},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Seek as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use warren_sandbox_plan::{facts::Availability, request::Program};

/// A file the jailer may lack: without it, only the spawns that need it are refused.
pub(crate) type Held = Result<OwnedFd, String>;

/// Everything a jail is started from.
pub(crate) struct Programs {
    pub(crate) vmm: Held,
    pub(crate) compile: Held,
    pub(crate) pager: Held,
    pub(crate) guest: Held,
    /// BLAKE3 of the guest program, if it is there.
    pub(crate) guest_digest: Option<[u8; 32]>,
    pub(crate) kvm: Held,
    /// Needed by VMMs whose memory a pager brings alone.
    pub(crate) userfaultfd: Held,
    pub(crate) null: OwnedFd,
}

impl Programs {
    /// Opens them.
    pub(crate) fn open(vmm: &Path, guest: &Path, compile: &Path, pager: &Path) -> io::Result<Self> {
        let guest = copy(guest, "guest", Mode::from_raw_mode(0o400));
        Ok(Self {
            vmm: copy(vmm, "vmm", Mode::from_raw_mode(0o111)),
            compile: copy(compile, "compile", Mode::from_raw_mode(0o111)),
            pager: copy(pager, "pager", Mode::from_raw_mode(0o111)),
            guest_digest: guest.as_ref().ok().map(digest).transpose()?,
            guest,
            kvm: device("/dev/kvm"),
            userfaultfd: device("/dev/userfaultfd"),
            null: device("/dev/null").map_err(io::Error::other)?,
        })
    }

    /// The file of a program.
    pub(crate) const fn program(&self, program: Program) -> &Held {
        match program {
            Program::Vmm | Program::Restore | Program::PagedRestore | Program::Linux(_) => &self.vmm,
            Program::Compile(_) => &self.compile,
            Program::Pager(_) => &self.pager,
        }
    }

    /// What the host's /dev/kvm is for a plan.
    pub(crate) fn kvm_availability(&self) -> Availability {
        self.kvm.as_ref().map_or_else(|why| Availability::No(why.clone()), |_| Availability::Yes)
    }
}

/// Opens what `file` names once more, with a file offset and flags of its own. `processes` is /proc.
pub(crate) fn open_anew(
    processes: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let path = format!("self/fd/{}", file.as_raw_fd());
    rustix::fs::openat(processes, path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// The program that stands beside this one, by default.
pub(crate) fn sibling(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    here.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

fn copy(path: &Path, name: &str, mode: Mode) -> Held {
    let explain = |error: io::Error| format!("{}: {error}", path.display());
    let mut from = File::open(path).map_err(explain)?;
    if !from.metadata().map_err(explain)?.is_file() {
        return Err(format!("{}: not a file", path.display()));
    }
    // Kernels before 6.3 know no EXEC flag and make every memfd executable.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(name, flags))
        .map_err(|error| explain(error.into()))?;
    let mut to = File::from(memory);
    io::copy(&mut from, &mut to).map_err(explain)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fchmod(&to, mode).and_then(|()| fcntl_add_seals(&to, seals)).map_err(|error| explain(error.into()))?;
    Ok(to.into())
}

/// Of a file that cannot change any more.
fn digest(file: &OwnedFd) -> io::Result<[u8; 32]> {
    let mut file = File::from(file.try_clone()?);
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file)?;
    Ok(*hasher.finalize().as_bytes())
}

fn device(path: &str) -> Held {
    let explain = |error: Errno| format!("{path}: {}", io::Error::from(error));
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(explain)?;
    let kind = rustix::fs::fstat(&file).map_err(explain)?;
    if FileType::from_raw_mode(kind.st_mode) == FileType::CharacterDevice {
        Ok(file)
    } else {
        Err(format!("{path}: not a device"))
    }
}

/// A descriptor of the jailer, borrowed from what is held.
pub(crate) fn held(file: &Held) -> Result<BorrowedFd<'_>, &str> {
    file.as_ref().map(AsFd::as_fd).map_err(String::as_str)
}
