//! Devices by which the host tells a guest something (ACPI 6.5, 5.6.9): a generic event device with one interrupt for
//! each, and in its method which device that interrupt speaks for.
//!
//! | interrupt | device | what it says |
//! |---|---|---|
//! | [`POWER_GSI`] | power button (`PNP0C0C`) | end in order |
//! | [`GENERATION_GSI`] | generation id ("Virtual Machine Generation ID", Microsoft) | you are a copy: another id is in memory |
//!
//! The clock's page (Linux, include/uapi/linux/vmclock-abi.h) is read, not told.

use super::acpi::device;
use super::layout::{CLOCK, GENERATION, GENERATION_GSI, POWER_GSI};
use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate,
};
use acpi_tables::{Aml, AmlSink};

/// A device's own notification (ACPI 6.5, 5.6.6): pressed; changed.
const NOTIFIED: u8 = 0x80;
/// The clock's page.
const CLOCK_LEN: u32 = 0x1000;
/// What the generation id's specification calls such a device.
const GENERATION_NAME: &str = "VM_Gen_Counter";

/// The event device and everything it speaks for.
pub(super) struct Events;

impl Aml for Events {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let lines = [(POWER_GSI, Path::new("PWRB")), (GENERATION_GSI, Path::new("VGEN"))];
        event_device(sink, &lines);
        let button = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
        Device::new("PWRB".into(), alloc::vec![&button]).to_aml_bytes(sink);
        generation(sink);
        let page = Memory32Fixed::new(false, address(CLOCK), CLOCK_LEN);
        device(sink, "VCLK".into(), (&"AMZNC10C", Some(&"VMCLOCK")), 0, alloc::vec![&page]);
    }
}

fn event_device(sink: &mut dyn AmlSink, lines: &[(u32, Path)]) {
    let interrupts: alloc::vec::Vec<Interrupt> =
        lines.iter().map(|(gsi, _)| Interrupt::new(true, true, false, false, *gsi)).collect();
    let resources = ResourceTemplate::new(interrupts.iter().map(|one| one as &dyn Aml).collect());
    let (hid, uid) = (Name::new("_HID".into(), &"ACPI0013"), Name::new("_UID".into(), &0_u8));
    let crs = Name::new("_CRS".into(), &resources);
    let cases: alloc::vec::Vec<Case<'_>> = lines.iter().map(|(gsi, path)| Case { gsi: *gsi, path }).collect();
    let method = Method::new("_EVT".into(), 1, true, cases.iter().map(|case| case as &dyn Aml).collect());
    Device::new("GED_".into(), alloc::vec![&hid, &uid, &crs, &method]).to_aml_bytes(sink);
}

/// `If (Arg0 == gsi) { Notify (path, 0x80) }`.
struct Case<'a> {
    gsi: u32,
    path: &'a Path,
}

impl Aml for Case<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (told, mine) = (Notify::new(self.path, &NOTIFIED), Equal::new(&Arg(0), &self.gsi));
        If::new(&mine, alloc::vec![&told]).to_aml_bytes(sink);
    }
}

/// Its address is not a resource but a package of two halves.
fn generation(sink: &mut dyn AmlSink) {
    let halves: [u32; 2] = [address(GENERATION), 0];
    let package = Package::new(halves.iter().map(|half| half as &dyn Aml).collect());
    let children = [
        Name::new("_HID".into(), &"VMGENCTR"),
        Name::new("_CID".into(), &GENERATION_NAME),
        Name::new("_DDN".into(), &GENERATION_NAME),
        Name::new("ADDR".into(), &package),
    ];
    Device::new("VGEN".into(), children.iter().map(|child| child as &dyn Aml).collect()).to_aml_bytes(sink);
}

/// Both pages lie below 4 GiB.
fn address(gpa: u64) -> u32 {
    u32::try_from(gpa).unwrap_or(u32::MAX)
}
