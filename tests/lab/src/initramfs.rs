//! The lab host's root file system: busybox, kernel modules, the caller's files, and two small scripts.

use crate::kernel::Kernel;
use anyhow::{Context as _, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use warren_image::newc::Archive;

/// A file to carry into the lab.
#[derive(Clone, Debug)]
pub struct Carry {
    /// What it is here.
    pub from: Source,
    /// Its absolute path in the lab.
    pub to: PathBuf,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, with its permissions.
    File(PathBuf),
    /// Memory.
    Bytes(Vec<u8>),
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
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
if [ -e /lab/disk/kib ]; then
    insmod /lab/disk/brd.ko rd_nr=1 rd_size=$(cat /lab/disk/kib)
    for blocks in /lab/disk/blocks/*; do
        dd if=$blocks of=/dev/ram0 bs=4096 seek=${blocks##*/} conv=notrunc 2> /dev/null
    done
    mount -t ext4 -o noatime /dev/ram0 /var/lib || echo '@lab note no disk'
else
    mount -t tmpfs lib /var/lib
fi
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup /sys/fs/cgroup
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
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in ["/proc", "/sys", "/dev", "/newroot", "/lab/modules"] {
        archive.folder(Path::new(folder))?;
    }
    archive.file(Path::new("/bin/busybox"), 0o755, &fs::read(&kernel.busybox)?)?;
    archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
    archive.file(Path::new("/lab/stage2"), 0o755, STAGE2.as_bytes())?;
    archive.file(Path::new("/lab/job.sh"), 0o644, job.as_bytes())?;
    let mut order = String::new();
    for module in &kernel.modules {
        let name = format!("{}.ko", module.name);
        archive.file(&Path::new("/lab/modules").join(&name), 0o644, &module.bytes)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.file(Path::new("/lab/modules/order"), 0o644, order.as_bytes())?;
    for carry in files {
        match &carry.from {
            Source::Bytes(bytes) => archive.file(&carry.to, 0o644, bytes)?,
            Source::File(path) => {
                let about = fs::metadata(path).with_context(|| path.display().to_string())?;
                let bytes = fs::read(path).with_context(|| path.display().to_string())?;
                archive.file(&carry.to, about.mode() & 0o777, &bytes)?;
            }
        }
    }
    archive.finish()?.flush()?;
    Ok(())
}
