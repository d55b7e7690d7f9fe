//! Kernels, guest programs, and the tables that a guest's firmware would have written.

use crate::Input;
use warren_boot::elf::Program;
use warren_boot::linux::Placement;
use warren_boot::linux::acpi::{self, Hardware};
use warren_boot::linux::command_line::CommandLine;
use warren_boot::linux::image::{Entry, KernelImage, Preference};
use warren_boot::linux::layout::{KERNEL_START, LOW_MAX, VIRTIO_MAX};

/// A kernel's file, and where it would go in a guest of any size with an initrd of any size.
pub(crate) fn kernel(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (pvh, initrd_len, memory) = (input.byte() & 1 == 1, u64::from(input.word()), input.long());
    let file = input.rest();
    let preference = if pvh { Preference::Pvh } else { Preference::Long };
    let Ok(image) = KernelImage::parse(file, preference) else { return };
    let mut end = KERNEL_START;
    for segment in &image.segments {
        assert!(segment.gpa >= end, "ascending, apart and above the start");
        end = segment.gpa.checked_add(segment.len).expect("inside of 64 bits");
        let in_file = segment.offset.checked_add(segment.len);
        assert!(in_file.is_some_and(|end| end <= file.len() as u64), "bytes of the file");
    }
    assert!(end <= image.end);
    let (Entry::Long(entry) | Entry::Pvh(entry)) = image.entry;
    let held = |s: &warren_boot::linux::image::Segment| (s.gpa..s.gpa + s.len).contains(&entry);
    assert!(image.segments.iter().any(held), "it starts inside of itself");
    let Ok(placement) = Placement::new(&image, initrd_len, memory) else { return };
    assert!(image.end <= placement.banks.low && placement.banks.low <= LOW_MAX);
    if let Some(initrd) = placement.initrd {
        assert!(initrd.gpa >= image.end && initrd.gpa + initrd.len <= placement.banks.low, "apart");
        assert_eq!(initrd.len, initrd_len);
    }
}

/// The Wasm guest's own program: it comes with the monitor's host, not with a stranger, and is judged all the same.
pub(crate) fn guest_program(bytes: &[u8]) {
    let Ok(program) = Program::parse(bytes) else { return };
    let mut end = 0;
    for segment in &program.segments {
        assert!(segment.va >= end && segment.file_len <= segment.memory_len);
        assert!(segment.offset.checked_add(segment.file_len).is_some_and(|end| end <= bytes.len() as u64));
        end = segment.va.checked_add(segment.memory_len).expect("inside of 64 bits");
    }
    assert!(end <= program.end);
}

/// Tables of any machine that can be asked for: lengths and checksums right, one behind the other, all inside their place.
pub(crate) fn acpi(bytes: &[u8]) {
    let mut input = Input(bytes);
    let hardware = Hardware {
        cpus: input.byte() % 32 + 1,
        virtio_devices: usize::from(input.byte()) % (VIRTIO_MAX + 1),
    };
    let mut memory = vec![0; 1 << 20];
    let rsdp = usize::try_from(acpi::write(&mut memory, hardware).expect("room for tables")).expect("low");
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(&memory[rsdp..rsdp + 8], b"RSD PTR ");
    assert_eq!((sum(&memory[rsdp..rsdp + 20]), sum(&memory[rsdp..rsdp + 36])), (0, 0));
    let long = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().expect("eight"));
    let table = |at: u64| {
        let at = usize::try_from(at).expect("low");
        let len = u32::from_le_bytes(memory[at + 4..at + 8].try_into().expect("four")) as usize;
        let bytes = &memory[at..at + len];
        assert_eq!(sum(bytes), 0, "{:?}", &bytes[..4]);
        (at, bytes)
    };
    let (_, xsdt) = table(long(rsdp + 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut places: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().expect("whole entries")))
        .map(table)
        .collect();
    places.sort_by_key(|(at, _)| *at);
    assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1.len() <= pair[1].0));
}

/// Text for a kernel: what is let through ends once, where it is said to.
pub(crate) fn command_line(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(line) = CommandLine::new(text) {
        assert!(line.as_str().starts_with(text) && !line.as_str().contains('\0'));
    }
}
