//! The ACPI tables (ACPI 6.5): a hardware-reduced machine whose devices are all in one list.

use super::events::Events;
use super::layout::{
    ACPI, IO_APIC, LOCAL_APIC, RESET_COMMAND, RESET_PORT, S5_TYPE, SERIAL_GSI, SERIAL_PORT,
    SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, VIRTIO_STRIDE, virtio_gsi, virtio_window,
};
use crate::{GuestMemory, OutOfRange};
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use alloc::{format, vec::Vec};

const OEM: [u8; 6] = *b"WARREN";
const TABLE: [u8; 8] = *b"WARRENVM";
/// Bytes of a table's header.
const HEADER_LEN: u32 = 36;
/// "No VGA, no CMOS clock, no keyboard controller to probe" (table 5.11).
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;
/// Tables start at addresses that are multiples of this.
const ALIGNMENT: usize = 16;

/// What the tables describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// vCPUs, with the local APIC ids from 0.
    pub cpus: u8,
    /// virtio-mmio devices, at the places of [`virtio_window`].
    pub virtio_devices: usize,
}

/// Writes the tables; where the RSDP is.
pub fn write(memory: &mut impl GuestMemory, hardware: Hardware) -> Result<u64, OutOfRange> {
    let mut tables = Tables { memory, next: ACPI.start + ALIGNMENT as u64 * 4 };
    let dsdt = tables.add(dsdt(hardware).as_slice())?;
    let fadt = tables.add(&bytes(&fadt(dsdt)))?;
    let madt = tables.add(&bytes(&madt(hardware)))?;
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.add(&bytes(&xsdt))?;
    tables.memory.write(ACPI.start, &bytes(&Rsdp::new(OEM, xsdt)))?;
    Ok(ACPI.start)
}

/// Puts tables one behind the other.
struct Tables<'a, M> {
    memory: &'a mut M,
    next: u64,
}

impl<M: GuestMemory> Tables<'_, M> {
    fn add(&mut self, table: &[u8]) -> Result<u64, OutOfRange> {
        let at = self.next;
        let end = at + table.len().next_multiple_of(ALIGNMENT) as u64;
        if end > ACPI.end {
            return Err(OutOfRange { gpa: at, len: table.len() });
        }
        self.memory.write(at, table)?;
        self.next = end;
        Ok(at)
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_COMMAND;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"WARREN\0\0").into();
    fadt.finalize()
}

fn madt(hardware: Hardware) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    for id in 0..hardware.cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC, 0));
    madt
}

fn dsdt(hardware: Hardware) -> Sdt {
    let mut body = Vec::new();
    let s5: Package<'_> = Package::new(alloc::vec![&S5_TYPE, &0_u8, &0_u8, &0_u8]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut body);
    let serial = Serial;
    let virtio: Vec<Virtio> = (0..hardware.virtio_devices).map(Virtio).collect();
    let mut devices: Vec<&dyn Aml> = alloc::vec![&serial, &Events];
    devices.extend(virtio.iter().map(|device| device as &dyn Aml));
    Scope::new("_SB_".into(), devices).to_aml_bytes(&mut body);
    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, 6, OEM, TABLE, 1);
    table.append_slice(&body);
    table
}

/// The serial port.
struct Serial;

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let ports = IO::new(SERIAL_PORT, SERIAL_PORT, 1, 8);
        let interrupt = Interrupt::new(true, true, false, false, SERIAL_GSI);
        device(sink, "COM1".into(), (&EISAName::new("PNP0501"), None), 0, alloc::vec![&ports, &interrupt]);
    }
}

/// A virtio-mmio device.
struct Virtio(usize);

impl Aml for Virtio {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let base = u32::try_from(virtio_window(self.0)).unwrap_or(u32::MAX);
        let window = Memory32Fixed::new(true, base, u32::try_from(VIRTIO_STRIDE).unwrap_or(0));
        let interrupt = Interrupt::new(true, true, false, false, virtio_gsi(self.0));
        let name = format!("VR{:02X}", self.0);
        device(sink, name.as_str().into(), (&"LNRO0005", None), self.0, alloc::vec![&window, &interrupt]);
    }
}

/// A device with its id (and another that it is compatible with), its number and its resources.
pub(super) fn device(
    sink: &mut dyn AmlSink,
    name: Path,
    (id, compatible): (&dyn Aml, Option<&dyn Aml>),
    number: usize,
    resources: Vec<&dyn Aml>,
) {
    let resources = ResourceTemplate::new(resources);
    let mut children = alloc::vec![
        Name::new("_HID".into(), id),
        Name::new("_UID".into(), &number),
        // It sees memory as the processors do.
        Name::new("_CCA".into(), &1_u8),
        Name::new("_CRS".into(), &resources),
    ];
    children.extend(compatible.map(|id| Name::new("_CID".into(), id)));
    Device::new(name, children.iter().map(|child| child as &dyn Aml).collect()).to_aml_bytes(sink);
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    table.to_aml_bytes(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::layout::VIRTIO_MAX;
    use proptest::prelude::*;

    fn word(memory: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(memory[at..at + 8].try_into().unwrap())
    }

    /// The table at an address: its bytes, after its length and checksum were found right.
    fn table(memory: &[u8], at: u64, signature: [u8; 4]) -> Vec<u8> {
        let at = usize::try_from(at).unwrap();
        assert_eq!(memory[at..at + 4], signature);
        let len = u32::from_le_bytes(memory[at + 4..at + 8].try_into().unwrap()) as usize;
        let bytes = memory[at..at + len].to_vec();
        assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{signature:?}");
        bytes
    }

    /// How often a device of this name is declared: DeviceOp, a length of one to four bytes, the name (ACPI 6.5, 20.2.5.2).
    fn declarations(dsdt: &[u8], name: &[u8]) -> usize {
        let at = |at: usize| {
            let rest = dsdt.get(at..)?.strip_prefix(&[0x5B, 0x82])?;
            let lead = usize::from(*rest.first()? >> 6);
            rest.get(1 + lead..)?.starts_with(name).then_some(())
        };
        (0..dsdt.len()).filter_map(at).count()
    }

    fn check(hardware: Hardware) {
        let mut memory = alloc::vec![0; 0x10_0000];
        let rsdp = usize::try_from(write(&mut memory, hardware).unwrap()).unwrap();
        assert_eq!(&memory[rsdp..rsdp + 8], b"RSD PTR ");
        let xsdt = table(&memory, word(&memory, rsdp + 24), *b"XSDT");
        let fadt = table(&memory, word(&xsdt, 36), *b"FACP");
        assert_ne!(u32::from_le_bytes(fadt[112..116].try_into().unwrap()) & 1 << 20, 0, "hardware-reduced");
        let madt = table(&memory, word(&xsdt, 44), *b"APIC");
        assert_eq!(madt.len(), 44 + usize::from(hardware.cpus) * 8 + 12);
        let dsdt = table(&memory, word(&fadt, 140), *b"DSDT");
        let ids = dsdt.windows(8).filter(|window| *window == b"LNRO0005").count();
        assert_eq!(ids, hardware.virtio_devices);
        // Each device of the tables once, by name; a name declared twice would be one that stock kernels refuse.
        for name in [b"GED_", b"PWRB", b"VGEN", b"VCLK", b"COM1"] {
            assert_eq!(declarations(&dsdt, name), 1, "{name:?}");
        }
        for (id, times) in [(&b"ACPI0013"[..], 1), (b"VMGENCTR", 1), (b"VM_Gen_Counter", 2), (b"AMZNC10C", 1)]
        {
            assert_eq!(dsdt.windows(id.len()).filter(|window| *window == id).count(), times, "{id:?}");
        }
        for index in 0..hardware.virtio_devices {
            let name = format!("VR{index:02X}");
            assert_eq!(declarations(&dsdt, name.as_bytes()), 1, "{name}");
            let base = u32::try_from(virtio_window(index)).unwrap().to_le_bytes();
            assert!(dsdt.windows(4).any(|window| window == base), "device {index}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn tables_are_well_formed(cpus in 1_u8..=32, virtio_devices in 0..=VIRTIO_MAX) {
            check(Hardware { cpus, virtio_devices });
        }
    }

    #[test]
    fn too_little_memory_is_said() {
        let mut memory = alloc::vec![0; 0xE_0010];
        assert!(write(&mut memory, Hardware { cpus: 1, virtio_devices: 0 }).is_err());
    }
}
