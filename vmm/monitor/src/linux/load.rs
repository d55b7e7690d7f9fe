//! The door through which a `LoadLinux` request comes in: what arrived is untrusted, what leaves is checked.

use super::virtio::{mem, overlay::PagedDisk};
use super::windows::{self, Kind};
use crate::cpuid::Template;
use crate::program::Positioned;
use crate::sys::tap::set_up;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, fcntl_get_seals, fstat};
use warren_abi::window::PAGE_SIZE;
use warren_boot::linux::image::Preference;
use warren_boot::linux::layout::VIRTIO_MAX;
use warren_boot::linux::{CommandLine, KernelImage, Placement};
use warren_devices::rate;
use warren_devices::virtio::mem::block_for;
use warren_devices::virtio::net::{HEADER_LEN, is_station};
use warren_sandbox_plan::name::SandboxName;
use warren_vmm_protocol::linux::{self, BootEntry, DeviceSpec, Limits, LinuxSpec, Rate};

/// A guest that can be built: its kernel was judged and placed, and every descriptor is of the kind it should be.
#[derive(Debug)]
pub struct Admitted {
    /// The kernel.
    pub kernel: KernelImage,
    /// Its file.
    pub kernel_file: OwnedFd,
    /// It is a memfd that nobody can change or cut any more.
    pub kernel_sealed: bool,
    /// What the guest sees of the processor.
    pub template: Template,
    /// Where kernel and initrd go.
    pub placement: Placement,
    /// The initrd's file, if there is one.
    pub initrd: Option<OwnedFd>,
    /// It, too, is such a memfd, or there is none.
    pub initrd_sealed: bool,
    /// The command line.
    pub command_line: CommandLine,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The devices, in the order of their windows.
    pub devices: Vec<DeviceFile>,
}

/// A device with what it needs.
#[derive(Debug)]
pub enum DeviceFile {
    /// A disk.
    Block {
        /// Its file.
        file: OwnedFd,
        /// What it begins as, if that is not in its file.
        base: Option<Base>,
        /// Its length.
        len: u64,
        /// Whether writes are refused.
        read_only: bool,
        /// How fast it may be.
        limits: rate::Limits,
    },
    /// Entropy.
    Rng,
    /// A network card.
    Net {
        /// Its tap device, set up.
        tap: OwnedFd,
        /// The guest's address.
        mac: [u8; 6],
        /// What it may receive.
        receive: rate::Limits,
        /// What it may send.
        send: rate::Limits,
    },
    /// Streams.
    Vsock {
        /// The guest's address.
        guest_cid: u32,
    },
    /// Memory that is plugged.
    Memory {
        /// Bytes that are to be from the start.
        requested: u64,
    },
    /// Memory lent to the host.
    Balloon {
        /// And what is free.
        reports_free: bool,
    },
}

/// What a disk begins as.
#[derive(Debug)]
pub enum Base {
    /// A file of the disk's length.
    File(OwnedFd),
    /// What the pager behind this socket brings.
    Pager(OwnedFd),
    /// The same, once it was asked for it.
    Paged(PagedDisk),
}

/// What a machine was made with: the most that a guest can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory slots.
    pub memory_bytes: u64,
    /// vCPUs.
    pub cpus: u8,
    /// Threads for disks.
    pub disks: usize,
    /// Bytes that can be plugged.
    pub pluggable_bytes: u64,
    /// Memory is of small pages, which can be given back one by one.
    pub small_pages: bool,
    /// The kinds of devices that it was made ready for, if it was: no others then.
    pub devices: Option<Vec<Kind>>,
}

/// Checks a request and its descriptors. The text says what to change; it is always the caller's fault.
pub fn admit(spec: &LinuxSpec, descriptors: Vec<OwnedFd>, room: &Room) -> Result<Admitted, String> {
    SandboxName::new(spec.label.as_str()).map_err(|error| format!("label: {error}"))?;
    if spec.memory_bytes > room.memory_bytes {
        return Err(format!("{} bytes of memory: this machine has {}", spec.memory_bytes, room.memory_bytes));
    }
    let template = Template::named(&spec.cpu_template).map_err(|error| error.to_string())?;
    check_counts(&spec.devices, room)?;
    refuse_paged(&spec.devices)?;
    let expected = spec.descriptors();
    if descriptors.len() != expected {
        return Err(format!("{} descriptors came, {expected} are needed", descriptors.len()));
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = |what: &str| descriptors.next().ok_or_else(|| format!("no descriptor for {what}"));
    let kernel_file = next("the kernel")?;
    let initrd = spec.initrd.then(|| next("the initrd")).transpose()?;
    let devices = devices(&spec.devices, descriptors, room)?;
    let command_line = CommandLine::new(spec.command_line.as_str()).map_err(|error| error.to_string())?;
    let preference = match spec.entry {
        BootEntry::Long => Preference::Long,
        BootEntry::Pvh => Preference::Pvh,
    };
    let file = Positioned { fd: kernel_file.as_fd(), len: file_len("the kernel", &kernel_file)? };
    let kernel = KernelImage::parse(&file, preference).map_err(|error| format!("the kernel: {error}"))?;
    let limit = kernel.header.map_or(u64::MAX, |header| header.cmdline_size);
    if command_line.as_str().len() as u64 > limit {
        return Err(format!("the command line is longer than the {limit} bytes that this kernel takes"));
    }
    let initrd_len = match &initrd {
        Some(file) => match file_len("the initrd", file)? {
            0 => return Err("the initrd is empty".into()),
            len => len,
        },
        None => 0,
    };
    let placement =
        Placement::new(&kernel, initrd_len, spec.memory_bytes).map_err(|error| error.to_string())?;
    let sealed = |file| fcntl_get_seals(file).is_ok_and(|seals| seals.contains(crate::load::SEALS));
    let (kernel_sealed, initrd_sealed) = (sealed(&kernel_file), initrd.as_ref().is_none_or(sealed));
    let memory_bytes = spec.memory_bytes;
    Ok(Admitted {
        kernel,
        kernel_file,
        kernel_sealed,
        template,
        placement,
        initrd,
        initrd_sealed,
        command_line,
        memory_bytes,
        devices,
    })
}

/// The devices of a guest, each with its descriptors, which come in their order.
pub fn devices(
    specs: &[DeviceSpec],
    mut descriptors: impl ExactSizeIterator<Item = OwnedFd>,
    room: &Room,
) -> Result<Vec<DeviceFile>, String> {
    check_counts(specs, room)?;
    let expected = specs.iter().map(DeviceSpec::descriptors).sum::<usize>();
    if descriptors.len() != expected {
        return Err(format!("{} descriptors came for devices, {expected} are needed", descriptors.len()));
    }
    let mut next = |what: &str| descriptors.next().ok_or_else(|| format!("no descriptor for {what}"));
    let mut devices = Vec::new();
    for (index, device) in specs.iter().enumerate() {
        devices.push(match device {
            DeviceSpec::Rng => DeviceFile::Rng,
            DeviceSpec::Memory { plugged_mib } => {
                let region = room.pluggable_bytes;
                let requested = mem::checked(*plugged_mib, region, block_for(region));
                DeviceFile::Memory { requested: requested.map_err(|error| format!("memory: {error}"))? }
            }
            DeviceSpec::Balloon { reports_free } => DeviceFile::Balloon { reports_free: *reports_free },
            DeviceSpec::Vsock { guest_cid } => DeviceFile::Vsock { guest_cid: *guest_cid },
            DeviceSpec::Net { mac, receive, send } => {
                let what = format!("network card {index}");
                if !is_station(*mac) {
                    return Err(format!("{what}: {mac:x?} is no station's address"));
                }
                let tap = next(&what)?;
                set_up(tap.as_fd(), HEADER_LEN).map_err(|error| format!("{what}: {error}"))?;
                let (receive, send) = (limits(&what, receive)?, limits(&what, send)?);
                DeviceFile::Net { tap, mac: *mac, receive, send }
            }
            DeviceSpec::Block { read_only } => {
                let what = format!("disk {index}");
                disk(&what, next(&what)?, *read_only, &Limits::default())?
            }
            DeviceSpec::LimitedBlock { read_only, limits } => {
                let what = format!("disk {index}");
                disk(&what, next(&what)?, *read_only, limits)?
            }
            DeviceSpec::OverlaidBlock { base, limits } => {
                let what = format!("disk {index}");
                overlaid(&what, next(&what)?, (*base, next(&what)?), limits)?
            }
        });
    }
    Ok(devices)
}

/// No pager brings anything.
pub fn refuse_paged(devices: &[DeviceSpec]) -> Result<(), String> {
    if devices.iter().any(is_paged) {
        return Err("a disk that a pager brings, of a guest whose memory none does".into());
    }
    Ok(())
}

const fn is_paged(device: &DeviceSpec) -> bool {
    matches!(device, DeviceSpec::OverlaidBlock { base: linux::Base::Pager, .. })
}

/// Whether there may be these devices, and so many of each kind.
fn check_counts(devices: &[DeviceSpec], room: &Room) -> Result<(), String> {
    windows::fit(room.devices.as_deref(), devices).map_err(|error| error.to_string())?;
    if devices.len() > VIRTIO_MAX {
        return Err(format!("{} devices: there is room for {VIRTIO_MAX}", devices.len()));
    }
    let disks = devices.iter().filter(|device| device.is_disk()).count();
    if disks > room.disks {
        return Err(format!("{disks} disks: this machine has threads for {}", room.disks));
    }
    if devices.iter().filter(|device| is_paged(device)).count() > 1 {
        return Err("more than one disk that a pager brings".into());
    }
    let cids = devices.iter().filter_map(|device| match device {
        DeviceSpec::Vsock { guest_cid } => Some(*guest_cid),
        _ => None,
    });
    if cids.clone().count() > 1 {
        return Err("more than one vsock device".into());
    }
    match devices.iter().filter(|device| matches!(device, DeviceSpec::Balloon { .. })).count() {
        2.. => return Err("more than one balloon".into()),
        // What goes back would have to be whole ones, and could be somebody else's when the guest wants them again.
        1 if !room.small_pages => return Err("a balloon: huge pages that were set aside are not lent".into()),
        _ => {}
    }
    match devices.iter().filter(|device| matches!(device, DeviceSpec::Memory { .. })).count() {
        2.. => return Err("more than one device of memory that is plugged".into()),
        1 if room.pluggable_bytes == 0 => {
            return Err("this machine was made without room for memory that is plugged".into());
        }
        _ => {}
    }
    // 0 to 2 are the hypervisor's and the host's, all ones is anybody's.
    if let Some(cid) = cids.into_iter().find(|cid| !(3..u32::MAX).contains(cid)) {
        return Err(format!("{cid} is no guest's address"));
    }
    Ok(())
}

fn disk(what: &str, file: OwnedFd, read_only: bool, of: &Limits) -> Result<DeviceFile, String> {
    let len = file_len(what, &file)?;
    Ok(DeviceFile::Block { file, base: None, len, read_only, limits: limits(what, of)? })
}

/// A disk over a base of the same length.
fn overlaid(
    what: &str,
    file: OwnedFd,
    (kind, base): (linux::Base, OwnedFd),
    of: &Limits,
) -> Result<DeviceFile, String> {
    let len = file_len(what, &file)?;
    let base = match kind {
        linux::Base::File => match file_len(&format!("{what}'s base"), &base)? {
            same if same == len => Base::File(base),
            other => return Err(format!("{what}: a base of {other} bytes under a disk of {len}")),
        },
        linux::Base::Pager if len == 0 || !len.is_multiple_of(PAGE_SIZE) => {
            return Err(format!("{what}: {len} bytes are not whole pages, which a pager brings"));
        }
        linux::Base::Pager => Base::Pager(base),
    };
    Ok(DeviceFile::Block { file, base: Some(base), len, read_only: false, limits: limits(what, of)? })
}

/// Limits that let something through.
fn limits(what: &str, limits: &Limits) -> Result<rate::Limits, String> {
    let one = |rate: Option<Rate>| match rate {
        Some(Rate { burst: 0, .. } | Rate { per_second: 0, .. }) => {
            Err(format!("{what}: a limit that lets nothing through"))
        }
        Some(Rate { burst, per_second }) => Ok(Some(rate::Rate { burst, per_second })),
        None => Ok(None),
    };
    Ok(rate::Limits { bytes: one(limits.bytes)?, operations: one(limits.operations)? })
}

/// The length of a regular file or memfd.
fn file_len(what: &str, file: &OwnedFd) -> Result<u64, String> {
    let stat = fstat(file).map_err(|error| format!("{what}: {error}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(format!("{what}: the descriptor is no regular file"));
    }
    u64::try_from(stat.st_size).map_err(|_| format!("{what}: no length"))
}

#[cfg(test)]
mod tests;
