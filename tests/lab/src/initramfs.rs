//! The lab host's root file system: busybox, kernel modules, the caller's files, and two small scripts.

use crate::kernel::Kernel;
use anyhow::{Context as _, Result};
use cpio::{NewcBuilder, newc};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

/// A file to carry into the lab.
#[derive(Clone, Debug)]
pub struct Carry {
    /// Where it lies here.
    pub from: PathBuf,
    /// Its absolute path in the lab.
    pub to: PathBuf,
}

/// First stage. The initial root file system cannot be left by pivot_root, which jails need, so it is bound over
/// itself and moved onto `/`; user namespaces work there because the process is then not in a chroot.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /newroot
/bin/busybox mount -t proc proc /proc
/bin/busybox mount --bind / /newroot
/bin/busybox umount /proc
cd /newroot
/bin/busybox mount --move . /
exec /bin/busybox chroot . /lab/stage2
";

/// Second stage: a plain Linux machine, then the job; or, for who carries a `/lab/init`, that program as PID 1, which runs
/// the job (`/lab/job.sh`) and says its end.
const STAGE2: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/opt/warren/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /run /root /var/lib /etc
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs lib /var/lib
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
echo '127.0.0.1 localhost' > /etc/hosts
hostname lab
ip link set lo up
while read module; do insmod /lab/modules/$module || echo \"@lab note insmod $module failed\"; done < /lab/modules/order
ulimit -n 65536
echo \"@lab up $(cut -d' ' -f1 /proc/uptime)\"
[ -x /lab/init ] && exec /lab/init
sh /lab/job.sh < /dev/null
echo \"@lab exit $?\"
poweroff -f
";

/// Writes the initramfs (an uncompressed newc archive: QEMU loads it faster than a guest would unpack it).
pub fn build(out: &Path, kernel: &Kernel, files: &[Carry], job: &str) -> Result<()> {
    let file = File::create(out).with_context(|| out.display().to_string())?;
    let mut archive = Archive { out: BufWriter::new(file), inode: 1, folders: BTreeSet::new() };
    for folder in ["/proc", "/sys", "/dev", "/newroot", "/lab/modules"] {
        archive.folder(Path::new(folder))?;
    }
    archive.file(Path::new("/bin/busybox"), 0o755, &fs::read(&kernel.busybox)?)?;
    archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
    archive.file(Path::new("/lab/stage2"), 0o755, STAGE2.as_bytes())?;
    archive.file(Path::new("/lab/job.sh"), 0o644, job.as_bytes())?;
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().context("a module has a name")?;
        archive.file(&Path::new("/lab/modules").join(name), 0o644, &fs::read(module)?)?;
        order.push_str(&name.to_string_lossy());
        order.push('\n');
    }
    archive.file(Path::new("/lab/modules/order"), 0o644, order.as_bytes())?;
    for carry in files {
        let mut bytes = Vec::new();
        let mut source = File::open(&carry.from).with_context(|| carry.from.display().to_string())?;
        source.read_to_end(&mut bytes)?;
        let mode = std::os::unix::fs::MetadataExt::mode(&source.metadata()?) & 0o777;
        archive.file(&carry.to, mode, &bytes)?;
    }
    newc::trailer(archive.out)?.flush()?;
    Ok(())
}

struct Archive {
    out: BufWriter<File>,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn folder(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<_> =
            path.ancestors().filter(|p| p.parent().is_some() && !self.folders.contains(*p)).collect();
        for folder in missing.into_iter().rev() {
            self.entry(folder, 0o04_0755, &[])?;
            self.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        self.folder(path.parent().context("files lie in a folder")?)?;
        self.entry(path, 0o10_0000 | mode, bytes)
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        let name = path.to_string_lossy();
        let builder = NewcBuilder::new(name.trim_start_matches('/')).ino(self.inode).mode(mode).nlink(1);
        self.inode += 1;
        let mut writer = builder.write(&mut self.out, u32::try_from(bytes.len())?);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}
