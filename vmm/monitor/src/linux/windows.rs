//! Devices' windows, made with the machine or with the device: the doorbells that its driver rings there.
//!
//! ```text
//!  made ready:   --devices KINDS ─▶ doorbells of each window ─▶ a guest comes: of these kinds ─▶ its devices take them
//!                                                                    └─ of others: refused by name
//!  not made ready:                  a guest comes ─▶ its devices' doorbells
//! ```
//! KVM takes a doorbell only after a grace period of the VM's readers, so a machine that waits for its guest has them already.
//! Nothing else of a device is there before its guest: its file, its address and its features come with it.

use crate::machine::MachineError;
use kvm_ioctls::{IoEventAddress, VmFd};
use std::fmt;
use std::str::FromStr;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use warren_boot::linux::layout::virtio_window;
use warren_devices::virtio::transport::QUEUE_NOTIFY;
use warren_devices::virtio::{balloon, block, mem, net, rng, vsock};
use warren_vmm_protocol::linux::DeviceSpec;

/// What a device is, as far as its window knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk.
    Block,
    /// Entropy.
    Rng,
    /// Streams.
    Vsock,
    /// A network card.
    Net,
    /// Memory lent to the host.
    Balloon,
    /// Memory that is plugged.
    Mem,
}

/// Each kind with its name and its number of queues.
const KINDS: [(Kind, &str, usize); 6] = [
    (Kind::Block, "block", block::QUEUES.len()),
    (Kind::Rng, "rng", rng::QUEUES.len()),
    (Kind::Vsock, "vsock", vsock::QUEUES.len()),
    (Kind::Net, "net", net::QUEUES.len()),
    (Kind::Balloon, "balloon", balloon::QUEUES.len()),
    (Kind::Mem, "mem", mem::QUEUES.len()),
];

/// No kind of device has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of device: block, rng, vsock, net, balloon or mem")]
pub struct NoSuchKind(String);

/// A guest of other devices than its machine was made ready for: the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine was made for devices {}; the guest has {}", names(.made), names(.has))]
pub struct OtherKinds {
    made: Vec<Kind>,
    has: Vec<Kind>,
}

/// A machine's windows: with doorbells, where it was made ready for certain devices.
#[derive(Debug, Default)]
pub struct Windows {
    ready: Option<Vec<(Kind, Vec<EventFd>)>>,
}

impl Kind {
    /// Of a device that is asked for.
    #[must_use]
    pub fn of(device: &DeviceSpec) -> Self {
        match device {
            DeviceSpec::Block { .. } | DeviceSpec::LimitedBlock { .. } | DeviceSpec::OverlaidBlock { .. } => {
                Self::Block
            }
            DeviceSpec::Rng => Self::Rng,
            DeviceSpec::Vsock { .. } => Self::Vsock,
            DeviceSpec::Net { .. } => Self::Net,
            DeviceSpec::Balloon { .. } => Self::Balloon,
            DeviceSpec::Memory { .. } => Self::Mem,
        }
    }

    fn row(self) -> (Self, &'static str, usize) {
        KINDS.into_iter().find(|row| row.0 == self).unwrap_or((self, "", 0))
    }
}

impl FromStr for Kind {
    type Err = NoSuchKind;

    fn from_str(name: &str) -> Result<Self, NoSuchKind> {
        let row = KINDS.iter().find(|row| row.1 == name);
        row.map(|row| row.0).ok_or_else(|| NoSuchKind(name.into()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

fn names(kinds: &[Kind]) -> String {
    let names: Vec<_> = kinds.iter().map(Kind::to_string).collect();
    if names.is_empty() { "none".into() } else { names.join(",") }
}

impl Windows {
    /// Makes a VM ready for devices of these kinds, in the order of their windows.
    pub fn ready(vm: &VmFd, kinds: &[Kind]) -> Result<Self, MachineError> {
        let window = |(index, kind): (usize, &Kind)| Ok((*kind, doorbells(vm, index, *kind)?));
        let ready = kinds.iter().enumerate().map(window).collect::<Result<_, MachineError>>()?;
        Ok(Self { ready: Some(ready) })
    }

    /// The kinds it was made ready for, if it was.
    #[must_use]
    pub fn kinds(&self) -> Option<Vec<Kind>> {
        self.ready.as_ref().map(|ready| ready.iter().map(|(kind, _)| *kind).collect())
    }

    /// The doorbells of a window: those that are there, or new ones.
    pub fn take(&mut self, vm: &VmFd, index: usize, kind: Kind) -> Result<Vec<EventFd>, MachineError> {
        let ready = self.ready.as_mut().and_then(|ready| ready.get_mut(index));
        match ready {
            Some((made, bells)) if *made == kind && !bells.is_empty() => Ok(std::mem::take(bells)),
            _ => doorbells(vm, index, kind),
        }
    }
}

/// Whether a guest has the devices that its machine was made ready for.
pub fn fit(made: Option<&[Kind]>, devices: &[DeviceSpec]) -> Result<(), OtherKinds> {
    let Some(made) = made else { return Ok(()) };
    let has: Vec<_> = devices.iter().map(Kind::of).collect();
    if has == made { Ok(()) } else { Err(OtherKinds { made: made.to_vec(), has }) }
}

/// What the driver in a window rings, one a queue.
fn doorbells(vm: &VmFd, index: usize, kind: Kind) -> Result<Vec<EventFd>, MachineError> {
    let notify = IoEventAddress::Mmio(virtio_window(index) + QUEUE_NOTIFY);
    // A disk's thread waits in reading its one; all others are watched.
    let waits = if kind == Kind::Block { 0 } else { EFD_NONBLOCK };
    let (_, _, queues) = kind.row();
    let mut bells = Vec::with_capacity(queues);
    for (_, queue) in (0..queues).zip(0_u32..) {
        let bell = EventFd::new(EFD_CLOEXEC | waits).map_err(MachineError::Event)?;
        vm.register_ioevent(&bell, &notify, queue)
            .map_err(|source| MachineError::Kvm { step: "register a doorbell", source })?;
        bells.push(bell);
    }
    Ok(bells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_and_its_queues() {
        for (kind, name, queues) in KINDS {
            assert_eq!((kind.to_string().as_str(), name.parse()), (name, Ok(kind)));
            assert!((1..=5).contains(&queues), "{kind} {queues}");
        }
        assert!("disk".parse::<Kind>().unwrap_err().to_string().contains("\"disk\" is no kind of device"));
    }

    #[test]
    fn a_guest_has_the_devices_its_machine_was_made_for_or_is_refused() {
        let disk = DeviceSpec::Block { read_only: true };
        let made = [Kind::Block, Kind::Rng];
        assert_eq!(fit(None, &[disk; 3]), Ok(()));
        assert_eq!(fit(Some(&made), &[disk, DeviceSpec::Rng]), Ok(()));
        for (has, words) in [
            (&[][..], "devices block,rng; the guest has none"),
            (&[disk], "the guest has block"),
            (&[DeviceSpec::Rng, disk], "the guest has rng,block"),
            (&[disk, DeviceSpec::Rng, DeviceSpec::Rng], "the guest has block,rng,rng"),
        ] {
            let refused = fit(Some(&made), has).unwrap_err().to_string();
            assert!(refused.ends_with(words), "{refused}");
        }
        assert!(fit(Some(&[]), &[disk]).is_err(), "made for none");
    }
}
