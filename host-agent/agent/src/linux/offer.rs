//! The shelf of this host, read as often as it changes, and what was checked of it.

use super::probe::{self, UnknownTemplate};
use crate::memfd::SealedFile;
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use warren_artefact::Processor;
use warren_image::{KernelManifest, RuntimeManifest, Shelf, shelf::Item};
use warren_proto::v1;
use warren_vmm_protocol::linux::BootEntry;

/// Why a Linux function cannot be started here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinuxError {
    /// The host runs none.
    #[error("this host cannot run Linux functions: {0}")]
    Cannot(String),
    /// It reaches nothing from here, and is to reach the world.
    #[error("Linux functions reach nothing from this host, and this one wants outbound network: {0}")]
    NoNetwork(String),
    /// It does not hold the runtime.
    #[error("this host holds no runtime {name}{}; `warren runtime build {name}` on it makes one", build_of(.build.as_deref()))]
    NoRuntime {
        /// Its name.
        name: String,
        /// Of which build.
        build: Option<String>,
    },
    /// It holds no kernel that the runtime runs on.
    #[error("this host holds no kernel that has {0}; `warren runtime kernel` on it makes one")]
    NoKernel(String),
    /// Something on the shelf is not what its manifest says.
    #[error("{what} is not what its manifest says; make it again with `warren runtime`")]
    Damaged {
        /// Which.
        what: String,
    },
    /// A file of this host.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Arc<io::Error>,
    },
}

fn build_of(build: Option<&str>) -> String {
    build.map_or_else(String::new, |build| format!(" of build {}", build.get(..16).unwrap_or(build)))
}

impl LinuxError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: Arc::new(source) }
    }
}

/// A root file system whose digest was compared.
#[derive(Debug)]
pub struct Runtime {
    /// What it is.
    pub manifest: RuntimeManifest,
    image: File,
}

impl AsFd for Runtime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }
}

/// A kernel with its initrd, whose digests were compared, in memory that every guest maps.
#[derive(Debug)]
pub struct Kernel {
    /// What it is.
    pub manifest: KernelManifest,
    /// The image.
    pub image: SealedFile,
    /// The initrd.
    pub initrd: SealedFile,
}

impl Kernel {
    /// By which entry it is started.
    #[must_use]
    pub const fn entry(&self) -> BootEntry {
        BootEntry::Long
    }
}

/// What this host offers.
#[derive(Debug)]
pub struct Offer {
    shelf: Shelf,
    /// As which processor this host runs Linux guests, or why it runs none.
    verdict: Result<Processor, String>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the folders were last changed that `runtimes` and `kernels` were read from.
    at: Option<Vec<Option<SystemTime>>>,
    runtimes: Vec<Item<RuntimeManifest>>,
    kernels: Vec<Item<KernelManifest>>,
    /// Digests of files by what tells one state of a file from another.
    digests: HashMap<Stamp, String>,
    kernel: Option<Arc<Kernel>>,
}

/// Device, inode, length, time of change: a file that has the same is the same.
type Stamp = (u64, u64, u64, i64, i64);

impl Offer {
    /// With this shelf, this answer of the probe, and guests under this template. A host that lacks something for it runs no Linux
    /// guests, as one does whose KVM cannot; a name that no template has is a mistake.
    pub fn open(shelf: Shelf, answer: Option<&Path>, template: &str) -> Result<Self, UnknownTemplate> {
        let verdict = probe::read(answer).map_or_else(|why| Ok(Err(why)), |said| said.verdict(template))?;
        Ok(Self { shelf, verdict, seen: Mutex::default() })
    }

    /// The kinds of guests, and why there are no Linux ones.
    #[must_use]
    pub fn guests(&self) -> (Vec<String>, String) {
        match &self.verdict {
            Ok(_) => (vec!["wasm".to_owned(), "linux".to_owned()], String::new()),
            Err(why) => (vec!["wasm".to_owned()], why.clone()),
        }
    }

    /// Fails with the reason, if this host runs no Linux guests.
    pub fn check(&self) -> Result<(), LinuxError> {
        self.processor().map(|_| ())
    }

    /// What Linux guests see of this host's processor.
    pub fn processor(&self) -> Result<&Processor, LinuxError> {
        self.verdict.as_ref().map_err(|why| LinuxError::Cannot(why.clone()))
    }

    /// Every runtime that a kernel of this host can run. Reads the shelf only if it changed.
    #[must_use]
    pub fn runtimes(&self) -> Vec<v1::Runtime> {
        if self.verdict.is_err() {
            return Vec::new();
        }
        let seen = self.look();
        let runs = |item: &&Item<RuntimeManifest>| {
            seen.kernels.iter().any(|kernel| lacking(&kernel.manifest, &item.manifest).is_none())
        };
        let wire = |item: &Item<RuntimeManifest>| v1::Runtime {
            name: item.manifest.name.clone(),
            digest: item.manifest.digest.clone(),
        };
        seen.runtimes.iter().filter(runs).map(wire).collect()
    }

    /// A runtime: of this build, or the present one. Blocks: a file is read whole the first time.
    pub fn runtime(&self, name: &str, build: Option<&str>) -> Result<Runtime, LinuxError> {
        self.check()?;
        let of_name = |item: &&Item<RuntimeManifest>| {
            item.manifest.name == name && build.is_none_or(|build| item.manifest.digest == build)
        };
        // The present build is in the folder of its name, which comes before those with more behind it.
        let found = self.look().runtimes.iter().find(of_name).cloned();
        let found = found.ok_or_else(|| LinuxError::NoRuntime {
            name: name.to_owned(),
            build: build.map(str::to_owned),
        })?;
        let path = found.folder.join("root.img");
        let image = File::open(&path).map_err(LinuxError::io(format!("open {}", path.display())))?;
        if self.digest(&path, &image)? != found.manifest.digest {
            return Err(LinuxError::Damaged { what: path.display().to_string() });
        }
        Ok(Runtime { manifest: found.manifest, image })
    }

    /// The newest kernel that a runtime runs on. Blocks: files are read whole the first time.
    pub fn kernel(&self, runtime: &RuntimeManifest) -> Result<Arc<Kernel>, LinuxError> {
        let kernels = self.look().kernels.clone();
        let Some(found) = newest(&kernels, runtime) else {
            let lacks = kernels.last().and_then(|item| lacking(&item.manifest, runtime));
            return Err(LinuxError::NoKernel(lacks.unwrap_or("all that guests need").to_owned()));
        };
        let kept = self.lock().kernel.clone();
        if let Some(kept) = kept.filter(|kept| kept.manifest == found.manifest) {
            return Ok(kept);
        }
        let read = |file: &str, digest: &str| {
            let path = found.folder.join(file);
            let bytes = fs::read(&path).map_err(LinuxError::io(format!("read {}", path.display())))?;
            if blake3::hash(&bytes).to_hex().as_str() != digest {
                return Err(LinuxError::Damaged { what: path.display().to_string() });
            }
            SealedFile::new("kernel", &bytes).map_err(LinuxError::io("keep a kernel"))
        };
        let kernel = Arc::new(Kernel {
            image: read(&found.manifest.image, &found.manifest.image_digest)?,
            initrd: read("initrd", &found.manifest.initrd_digest)?,
            manifest: found.manifest.clone(),
        });
        self.lock().kernel = Some(Arc::clone(&kernel));
        Ok(kernel)
    }

    /// Digests of image and initrd of the kernel that this build of a runtime would be started on; `None`: it would not be started.
    #[must_use]
    pub fn kernel_for(&self, build: &str) -> Option<(String, String)> {
        self.check().ok()?;
        let seen = self.look();
        let runtime = &seen.runtimes.iter().find(|item| item.manifest.digest == build)?.manifest;
        let found = newest(&seen.kernels, runtime)?;
        Some((found.manifest.image_digest.clone(), found.manifest.initrd_digest.clone()))
    }

    /// The shelf.
    #[must_use]
    pub const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    fn digest(&self, path: &Path, file: &File) -> Result<String, LinuxError> {
        let about = file.metadata().map_err(LinuxError::io(format!("look at {}", path.display())))?;
        let stamp = (about.dev(), about.ino(), about.len(), about.ctime(), about.ctime_nsec());
        let known = self.lock().digests.get(&stamp).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let digest =
            warren_image::of_open(file).map_err(LinuxError::io(format!("read {}", path.display())))?;
        self.lock().digests.insert(stamp, digest.clone());
        Ok(digest)
    }

    /// What is on the shelf now.
    fn look(&self) -> MutexGuard<'_, Seen> {
        let parts = self.shelf.roots().flat_map(|root| ["runtimes", "kernels"].map(|part| root.join(part)));
        let changed: Vec<_> =
            parts.map(|part| fs::metadata(part).and_then(|about| about.modified()).ok()).collect();
        let mut seen = self.lock();
        if seen.at.as_ref() != Some(&changed) {
            seen.runtimes = self.shelf.runtimes();
            seen.kernels = self.shelf.kernels();
            seen.at = Some(changed);
            let (runtimes, kernels) = (seen.runtimes.len(), seen.kernels.len());
            tracing::info!(runtimes, kernels, shelf = ?self.shelf.roots().collect::<Vec<_>>(), "what Linux functions run on");
        }
        seen
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Whole between any two statements.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest kernel that has all a runtime needs.
fn newest<'a>(
    kernels: &'a [Item<KernelManifest>],
    runtime: &RuntimeManifest,
) -> Option<&'a Item<KernelManifest>> {
    kernels.iter().rev().find(|item| lacking(&item.manifest, runtime).is_none())
}

/// The first thing that a kernel lacks for a runtime.
fn lacking<'a>(kernel: &KernelManifest, runtime: &'a RuntimeManifest) -> Option<&'a str> {
    runtime.kernel_needs.iter().find(|need| !kernel.has(need)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::{super::probe::tests::answer, *};
    use warren_image::manifest::{self, FileSystem};

    fn shelf(dir: &Path) -> Shelf {
        let shelf = Shelf::new(dir);
        for (name, content, needs) in [("base", "root", "ext4"), ("odd", "other", "zfs")] {
            let stage = shelf.stage(name).unwrap();
            fs::write(stage.path().join("root.img"), content).unwrap();
            let made = RuntimeManifest {
                name: name.into(),
                digest: blake3::hash(content.as_bytes()).to_hex().to_string(),
                bytes: 1,
                file_system: FileSystem::Ext4,
                inputs: String::new(),
                packages: Vec::new(),
                extra: Vec::new(),
                kernel_needs: vec![needs.into()],
            };
            manifest::write(stage.path(), &made).unwrap();
            shelf.put_runtime(&stage, &made).unwrap();
        }
        let stage = shelf.stage("kernel").unwrap();
        fs::write(stage.path().join("vmlinux"), "kernel").unwrap();
        fs::write(stage.path().join("initrd"), "initrd").unwrap();
        let made = KernelManifest {
            name: "6.1".into(),
            package: "linux-image-6.1".into(),
            image: "vmlinux".into(),
            image_digest: blake3::hash(b"kernel").to_hex().to_string(),
            initrd_digest: blake3::hash(b"initrd").to_hex().to_string(),
            modules: Vec::new(),
            builtin: vec!["ext4".into()],
        };
        manifest::write(stage.path(), &made).unwrap();
        shelf.put_kernel(&stage, &made).unwrap();
        shelf
    }

    fn open(shelf: Shelf, answer: Option<&Path>) -> Offer {
        Offer::open(shelf, answer, "host").unwrap()
    }

    #[test]
    fn a_host_that_cannot_says_why_and_offers_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let offer = open(shelf(dir.path()), Some(&answer(dir.path(), false)));
        assert_eq!(offer.guests(), (vec!["wasm".into()], "a guest's kernel code is interpreted".into()));
        assert!(offer.runtimes().is_empty());
        let error = offer.runtime("base", None).unwrap_err().to_string();
        assert!(error.contains("interpreted"), "{error}");
        for absent in [None, Some(Path::new("/nowhere"))] {
            let (guests, why) = open(Shelf::new(dir.path()), absent).guests();
            assert!(guests == ["wasm"] && !why.is_empty());
        }
    }

    #[test]
    fn what_is_held_is_checked_once_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        let offer = open(shelf.clone(), Some(&answer(dir.path(), true)));
        let names: Vec<_> = offer.runtimes().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["base"], "no kernel has what the other needs");
        let base = offer.runtime("base", None).unwrap();
        let kernel = offer.kernel(&base.manifest).unwrap();
        assert_eq!((kernel.image.len(), kernel.initrd.len()), (6, 6));
        assert!(Arc::ptr_eq(&kernel, &offer.kernel(&base.manifest).unwrap()));
        assert!(offer.runtime("base", Some(&base.manifest.digest)).is_ok());
        assert!(matches!(offer.runtime("base", Some("00")), Err(LinuxError::NoRuntime { .. })));
        let odd = offer.runtime("odd", None).unwrap();
        let error = offer.kernel(&odd.manifest).unwrap_err().to_string();
        assert!(error.contains("zfs") && error.contains("warren runtime kernel"), "{error}");
        fs::write(dir.path().join("runtimes/base/root.img"), "evil").unwrap();
        assert!(matches!(offer.runtime("base", None), Err(LinuxError::Damaged { .. })));
    }
}
