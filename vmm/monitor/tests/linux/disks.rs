//! Disks of stock guests that are slow, limited, broken, full or cut: each is that disk's trouble, and the guest goes on.

use super::support::linux::{Ended, Guest, contents, guests};
use super::support::vmm::{memfd, receive};
use super::{MIB, POWERED_OFF, support};
use rustix::fd::OwnedFd;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use warren_vmm_protocol::Role;
use warren_vmm_protocol::linux::{Limits, Rate, VsockReply};

/// Runs a script in a guest with more disks.
fn with_disks(script: &str, disks: Vec<(OwnedFd, bool)>, limits: Option<Limits>) -> Option<Ended> {
    super::run("6.1", script, |guest| {
        guest.disks.extend(disks);
        guest.limits = limits;
    })
}

/// A file system of this host's in a file, over a loop device; gone when dropped.
struct Loop {
    image: PathBuf,
    mounted: PathBuf,
}

impl Loop {
    fn mount(folder: &Path, name: &str) -> Self {
        if !Path::new("/dev/loop-control").exists() {
            sh(&format!("insmod {}", folder.join("loop.ko").display()));
        }
        let at = std::env::temp_dir();
        let (image, mounted) = (at.join(format!("{name}.img")), at.join(name));
        fs::copy(folder.join("root.ext4"), &image).unwrap();
        fs::create_dir_all(&mounted).unwrap();
        sh(&format!("mount -o loop -t ext4 {} {}", image.display(), mounted.display()));
        Self { image, mounted }
    }

    /// A file in it, written out.
    fn disk(&self, bytes: &[u8]) -> OwnedFd {
        let path = self.mounted.join("disk");
        fs::write(&path, bytes).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.sync_all().unwrap();
        file.into()
    }

    /// The device ends before the file system does.
    fn cut(&self) {
        File::options().write(true).open(&self.image).unwrap().set_len(1 << 20).unwrap();
        sh(&format!("losetup -c $(mount | awk '$3 == \"{}\" {{ print $1 }}')", self.mounted.display()));
        // What was read before is forgotten.
        sh("echo 3 > /proc/sys/vm/drop_caches");
    }

    fn freezer(&self, word: &str) {
        sh(&format!("fsfreeze --{word} {}", self.mounted.display()));
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
        let _ = fs::remove_file(&self.image);
    }
}

fn sh(words: &str) {
    let status = Command::new("sh").args(["-c", words]).status().unwrap();
    assert!(status.success(), "{words}: {status}");
}

/// The file system below one disk stands still while the guest writes to it: its other disk and its entropy go on.
#[test]
fn a_disk_that_hangs_holds_back_nobody_else() {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let frozen = Loop::mount(&folder, "frozen");
    let (slow, fast) = (frozen.disk(&vec![0; MIB]), memfd(&vec![0; MIB]));
    let script = "
        ( b dd if=/dev/zero of=/dev/vdd bs=65536 count=4 conv=fsync 2>/dev/null; echo over > /tmp/over ) &
        b dd if=/dev/vda of=/dev/vde bs=65536 count=16 conv=fsync 2>/dev/null && echo others go on
        echo entropy $(b head -c 64 /dev/hwrng | b wc -c)
        [ -e /tmp/over ] || echo it hangs
        /tmp/probe 1000 78 &
        while [ ! -e /tmp/over ]; do b sleep 0.1; done
        echo and goes on when it can";
    let mut guest = Guest::with_probe(&folder, "6.1", script);
    guest.disks.extend([(slow, false), (fast, false)]);
    frozen.freezer("freeze");
    let running = guest.start();
    // The guest says by a connection that all the others are done.
    let mut stream = running.vmm.connect(Role::VsockAccept { port: 78 });
    let heard = receive::<VsockReply>(&mut stream) == VsockReply::Parked
        && receive::<VsockReply>(&mut stream) == VsockReply::Connected;
    frozen.freezer("unfreeze");
    let lines = ["others go on", "entropy 64", "it hangs", "and goes on when it can"];
    running
        .end()
        .with(POWERED_OFF, &lines.map(|line| format!("console: {line}")).each_ref().map(String::as_str));
    assert!(heard, "the guest did not come so far");
}

/// Hundredths of a second. The limits here ask for 87, by the host's clock; the guest's own runs a little apart from it where
/// both are emulated.
const LIMITED: u64 = 80;

/// The guest's clock is nearly the limit's: 1 MiB at 1 MiB a second, an eighth of it at once. What the guest's kernel read when it
/// looked for partitions is not taken from its cache.
#[test]
fn a_limit_of_bytes_is_kept() {
    let script = "
        now() { b awk '{ print int($1 * 100) }' /proc/uptime; }
        before=$(now)
        b dd if=/dev/vdc of=/tmp/copy bs=65536 iflag=direct 2>/dev/null
        after=$(now)
        echo size $(b wc -c < /tmp/copy) took $((after - before))";
    let bytes = Some(Rate { burst: 128 << 10, per_second: 1 << 20 });
    let disk = (memfd(&vec![7; MIB]), true);
    let Some(ended) = with_disks(script, vec![disk], Some(Limits { bytes, operations: None })) else {
        return;
    };
    ended.with(POWERED_OFF, &["console: size 1048576 took"]);
    let took = ended.number("took ");
    assert!(took >= LIMITED, "{took} hundredths of a second: {}", ended.log);
}

/// Requests are counted whatever their size: 64 small ones at least, 8 at once, 64 a second.
#[test]
fn a_limit_of_requests_is_kept() {
    let script = "
        now() { b awk '{ print int($1 * 100) }' /proc/uptime; }
        before=$(now)
        at=0
        while [ $at -lt 64 ]; do
            b dd if=/dev/zero of=/dev/vdc bs=4096 seek=$at count=1 conv=fsync 2>/dev/null
            at=$((at + 1))
        done
        after=$(now)
        echo took $((after - before))";
    let operations = Some(Rate { burst: 8, per_second: 64 });
    let disk = (memfd(&vec![7; MIB]), false);
    let Some(ended) = with_disks(script, vec![disk], Some(Limits { bytes: None, operations })) else {
        return;
    };
    let took = ended.with(POWERED_OFF, &[]).number("took ");
    assert!(took >= LIMITED, "{took} hundredths of a second: {}", ended.log);
}

/// The host's disk below a disk fails: errors for the guest, a line in the log.
#[test]
fn a_disk_that_cannot_be_read_is_an_error_of_that_disk() {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let broken = Loop::mount(&folder, "broken");
    let disk = broken.disk(&vec![7; MIB]);
    broken.cut();
    let script = "
        b dd if=/dev/vdc of=/tmp/copy bs=65536 2>/dev/null || echo reading failed
        echo the root is $(b head -c 4 /bin/busybox | b tail -c 3)";
    let Some(ended) = with_disks(script, vec![(disk, true)], None) else { return };
    ended.with(
        POWERED_OFF,
        &["disk2: I/O error (os error 5)", "console: reading failed", "console: the root is ELF"],
    );
}

/// No room below a disk: errors for the guest, a line in the log; what was there is still to be had.
#[test]
fn a_disk_without_room_below_is_an_error_of_that_disk() {
    if !support::has_kvm() {
        return;
    }
    let full = std::env::temp_dir().join("full");
    fs::create_dir_all(&full).unwrap();
    if guests().is_none() {
        return;
    }
    sh(&format!("mount -t tmpfs -o size=512k tmpfs {}", full.display()));
    let file = File::options().read(true).write(true).create_new(true).open(full.join("disk")).unwrap();
    file.set_len(4 << 20).unwrap();
    let disk = OwnedFd::from(file.try_clone().unwrap());
    let script = "
        echo first | b dd of=/dev/vdc bs=512 conv=sync,fsync 2>/dev/null && echo there was room
        b dd if=/bin/busybox of=/dev/vdc bs=65536 seek=1 count=24 conv=fsync 2>/dev/null || echo no room
        echo still $(b head -c 5 /dev/vdc)";
    let ended = with_disks(script, vec![(disk, false)], None);
    let bytes = contents(&file.into());
    sh(&format!("umount {}", full.display()));
    let Some(ended) = ended else { return };
    let lines = ["disk2: No space left on device", "console: there was room", "console: no room"];
    ended.with(POWERED_OFF, &lines).with(POWERED_OFF, &["console: still first"]);
    assert_eq!(&bytes[..6], b"first\n");
}

/// A disk that ends before its file system does: the guest cannot mount it, and says which.
#[test]
fn a_disk_smaller_than_its_file_system_is_said_by_name() {
    let change = |guest: &mut Guest| {
        let mut bytes = contents(&guest.disks[0].0);
        bytes.truncate(bytes.len() / 2);
        guest.disks[0].0 = memfd(&bytes);
    };
    let Some(ended) = super::run("6.1", "", change) else { return };
    ended.with(POWERED_OFF, &["warren-init: mount /dev/vda as ext4: Invalid argument"]);
}
