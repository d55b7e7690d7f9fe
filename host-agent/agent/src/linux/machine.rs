//! The machine of a Linux function: the same whether it boots, is written down, or is brought back from that.
//!
//! Disks: vda the runtime's root, read-only and shared; vdb the scratch disk, the sandbox's own; vdc the function's files. A guest that
//! is written down before a function is in it has an empty disk there.

use super::{LinuxError, guest_config};
use crate::{
    host::Host,
    memfd::SealedFile,
    resources::{GUEST_SYSTEM_MIB, vcpus},
    version::{LinuxVersion, VersionSpec},
};
use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};
use warren_artefact::Processor;
use warren_image::scratch::size_for;
use warren_proto::v1::Network as Reach;
use warren_sandbox_plan::{network, request::LinuxMachine};
use warren_vmm_protocol::{
    guest::{GuestConfig, Network, SandboxKind},
    linux::{Base, DeviceSpec, LinuxSpec},
    rates::Rates,
};

/// Which of the disks is the sandbox's own.
const SCRATCH: usize = 1;
/// The guest's address; every guest has a host of its own.
const GUEST_CID: u32 = 3;
/// What every guest's kernel is told. Its console is the log; a panic ends in a reset, which ends the VMM.
/// It does not test its ciphers first: that is two thirds of a 6.1 kernel's way to init, and it was tested where it was built.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 random.trust_cpu=on cryptomgr.notests \
     i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd warren.serve=1 warren.root=/dev/vda";

/// MiB that the guest has.
#[must_use]
pub fn guest_mib(spec: &VersionSpec) -> u32 {
    spec.memory_mib.saturating_add(u32::try_from(GUEST_SYSTEM_MIB).unwrap_or(u32::MAX))
}

/// What its jail is planned for.
pub fn machine(host: &Host, spec: &VersionSpec, version: &LinuxVersion) -> Result<LinuxMachine, LinuxError> {
    let scratch_mib = size_for(spec.tmp_mib).unwrap_or(spec.tmp_mib);
    Ok(LinuxMachine {
        disks: 2 + u8::from(version.task.is_some()),
        memory_mib: guest_mib(spec),
        cpus: vcpus(spec.memory_mib, std::thread::available_parallelism().map_or(1, usize::from)),
        disk_bytes: u64::from(scratch_mib) << 20,
        network: has_network(spec.network, host.no_network_because())?,
    })
}

/// Whether a function has a network here; one that must have one does not start without.
fn has_network(wanted: Reach, none_because: Option<&str>) -> Result<bool, LinuxError> {
    match (wanted, none_because) {
        (Reach::None, _) | (Reach::Unspecified, Some(_)) => Ok(false),
        (Reach::Unspecified | Reach::Outbound, None) => Ok(true),
        (Reach::Outbound, Some(why)) => Err(LinuxError::NoNetwork(why.to_owned())),
    }
}

/// Its devices: those that [`LinuxMachine`] says, in that order. They are as fast as this host lets them be, however the guest begins:
/// a snapshot has no limits in it.
#[must_use]
pub fn devices(host: &Host, version: &LinuxVersion, has_network: bool) -> Vec<DeviceSpec> {
    limited(host.rates, version.task.is_some(), has_network)
}

fn limited(rates: Rates, has_files: bool, has_network: bool) -> Vec<DeviceSpec> {
    let disk = |read_only| DeviceSpec::LimitedBlock { read_only, limits: rates.disk() };
    let mut devices = vec![disk(true), disk(false)];
    devices.extend(has_files.then(|| disk(true)));
    devices.extend([DeviceSpec::Rng, DeviceSpec::Vsock { guest_cid: GUEST_CID }]);
    let limits = rates.network();
    let card = DeviceSpec::Net { mac: network::GUEST_MAC, receive: limits, send: limits };
    devices.extend(has_network.then_some(card));
    devices
}

/// The same of a copy, whose scratch disk begins as a base: its descriptor comes behind that of the disk's own file.
#[must_use]
pub fn devices_over(host: &Host, version: &LinuxVersion, has_network: bool, base: Base) -> Vec<DeviceSpec> {
    over(devices(host, version, has_network), base)
}

fn over(mut devices: Vec<DeviceSpec>, base: Base) -> Vec<DeviceSpec> {
    if let Some(scratch) = devices.get_mut(SCRATCH)
        && let DeviceSpec::LimitedBlock { limits, .. } = *scratch
    {
        *scratch = DeviceSpec::OverlaidBlock { base, limits };
    }
    devices
}

/// The descriptors of those.
#[must_use]
pub fn descriptors_over<'a>(
    version: &'a LinuxVersion,
    (scratch, base): (&'a File, BorrowedFd<'a>),
    tap: Option<&'a OwnedFd>,
) -> Vec<BorrowedFd<'a>> {
    let mut fds = descriptors(version, scratch, tap);
    fds.insert(SCRATCH + 1, base);
    fds
}

/// The descriptors of these.
#[must_use]
pub fn descriptors<'a>(
    version: &'a LinuxVersion,
    scratch: &'a File,
    tap: Option<&'a OwnedFd>,
) -> Vec<BorrowedFd<'a>> {
    with_files(version, scratch, version.task.as_ref().map(|task| task.as_fd()), tap)
}

/// The same of a guest that no function is in: where files will be, there is an empty disk.
#[must_use]
pub fn descriptors_of_nobody<'a>(
    version: &'a LinuxVersion,
    scratch: &'a File,
    empty: &'a SealedFile,
    tap: Option<&'a OwnedFd>,
) -> Vec<BorrowedFd<'a>> {
    with_files(version, scratch, version.task.as_ref().map(|_| empty.as_fd()), tap)
}

fn with_files<'a>(
    version: &'a LinuxVersion,
    scratch: &'a File,
    files: Option<BorrowedFd<'a>>,
    tap: Option<&'a OwnedFd>,
) -> Vec<BorrowedFd<'a>> {
    let mut fds = vec![version.runtime.as_fd(), scratch.as_fd()];
    fds.extend(files);
    fds.extend(tap.map(|tap| tap.as_fd()));
    fds
}

/// The whole of one that boots; kernel and initrd come before the devices' descriptors.
#[must_use]
pub fn load_spec(
    (spec, version): (&VersionSpec, &LinuxVersion),
    processor: &Processor,
    devices: Vec<DeviceSpec>,
    label: &str,
) -> LinuxSpec {
    LinuxSpec {
        memory_bytes: u64::from(guest_mib(spec)) << 20,
        command_line: command_line(version),
        cpu_template: processor.template.clone(),
        initrd: true,
        entry: version.kernel.entry(),
        devices,
        label: label.to_owned(),
    }
}

/// What its kernel is told.
#[must_use]
pub fn command_line(version: &LinuxVersion) -> String {
    format!("{COMMAND_LINE} warren.rootfstype={}", version.runtime.manifest.file_system.name())
}

/// What its first process is told.
#[must_use]
pub fn config(
    id: &str,
    spec: &VersionSpec,
    version: &LinuxVersion,
    has_network: bool,
    kind: SandboxKind,
) -> GuestConfig {
    // The guest's own side of it: the same in every guest.
    let network = Network {
        address: network::GUEST,
        prefix: network::GUEST_PREFIX,
        gateway: network::GATEWAY,
        nameservers: vec![network::RESOLVER],
    };
    let task_len = version.task.as_ref().map_or(0, |task| task.len());
    GuestConfig {
        network: has_network.then_some(network),
        kind,
        ..guest_config(id, spec, &version.handler, &version.runtime, task_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits of every disk and card: of one that boots, of one that is brought back, of one that is paged.
    #[test]
    fn every_disk_and_card_has_the_hosts_limits_however_its_guest_begins() {
        let rates = Rates {
            network: Some("8".parse().unwrap()),
            disk: Some("16".parse().unwrap()),
            disk_requests: Some("500".parse().unwrap()),
        };
        for rates in [rates, Rates::default()] {
            let boots = || limited(rates, true, true);
            for devices in [boots(), over(boots(), Base::File), over(boots(), Base::Pager)] {
                let mut found = (0, 0);
                for device in &devices {
                    match *device {
                        DeviceSpec::LimitedBlock { limits, .. }
                        | DeviceSpec::OverlaidBlock { limits, .. } => {
                            assert_eq!(limits, rates.disk());
                            found.0 += 1;
                        }
                        DeviceSpec::Net { receive, send, .. } => {
                            assert_eq!((receive, send), (rates.network(), rates.network()));
                            found.1 += 1;
                        }
                        DeviceSpec::Rng | DeviceSpec::Vsock { .. } => {}
                        other => panic!("{other:?} has no limits"),
                    }
                }
                assert_eq!(found, (3, 1), "{devices:?}");
            }
        }
    }
}
