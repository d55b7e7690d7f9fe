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
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use warren_large_pages::{LARGE_PAGE, gather};
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
        let executed =
            |path, name| copy(path, name, Mode::from_raw_mode(0o111), |_| Ok(())).map(|(file, ())| file);
        let (guest, guest_digest) = match copy(guest, "guest", Mode::from_raw_mode(0o400), shared) {
            Ok((file, digest)) => (Ok(file), Some(digest)),
            Err(why) => (Err(why), None),
        };
        Ok(Self {
            vmm: executed(vmm, "vmm"),
            compile: executed(compile, "compile"),
            pager: executed(pager, "pager"),
            guest_digest,
            guest,
            kvm: device("/dev/kvm"),
            userfaultfd: device("/dev/userfaultfd"),
            null: device("/dev/null").map_err(io::Error::other)?,
        })
    }

    /// The file of a program.
    pub(crate) const fn program(&self, program: Program) -> &Held {
        match program {
            Program::Vmm
            | Program::Restore
            | Program::PagedRestore
            | Program::Linux(_)
            | Program::PagedLinux(_) => &self.vmm,
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

/// A sealed copy of a file, and what was made of it before it was sealed.
fn copy<T>(
    path: &Path,
    name: &str,
    mode: Mode,
    make: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<(OwnedFd, T), String> {
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
    let found = make(&mut to).map_err(explain)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fchmod(&to, mode).and_then(|()| fcntl_add_seals(&to, seals)).map_err(|error| explain(error.into()))?;
    Ok((to.into(), found))
}

/// What every sandbox of the host maps: its digest. Then it is made longer, to whole large pages, and put together in them where the
/// kernel can; where it cannot, guests touch small ones one by one.
fn shared(file: &mut File) -> io::Result<[u8; 32]> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut *file)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if let Some(len) = len.checked_next_multiple_of(LARGE_PAGE).and_then(NonZeroUsize::new) {
        file.set_len(len.get() as u64)?;
        let _ = gather(&*file, 0, len);
    }
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
