use super::*;
use crate::linux::Placement;
use crate::linux::bzimage::HEADER_LEN;
use proptest::prelude::*;

const LEN: usize = 0x3000;

/// A bzImage that is accepted: two setup sectors, a little code.
fn bzimage() -> Vec<u8> {
    let mut file = alloc::vec![0x90; LEN];
    file[0x1F1] = 2;
    let code = u32::try_from(LEN - 3 * 512).unwrap();
    put(&mut file, 0x1F4, &(code / 16).to_le_bytes());
    put(&mut file, 0x1FE, &0xAA55_u16.to_le_bytes());
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x20F_u16.to_le_bytes());
    file[0x211] = 1;
    put(&mut file, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(&mut file, 0x230, &0x20_0000_u32.to_le_bytes());
    put(&mut file, 0x236, &0x7F_u16.to_le_bytes());
    put(&mut file, 0x238, &2047_u32.to_le_bytes());
    put(&mut file, 0x258, &0x100_0000_u64.to_le_bytes());
    put(&mut file, 0x260, &0x300_0000_u32.to_le_bytes());
    file
}

/// An ELF kernel that is accepted: code, data with bss, a Xen note behind one of somebody else's.
fn vmlinux() -> Vec<u8> {
    let mut file = alloc::vec![0; LEN];
    put(&mut file, 0, b"\x7FELF\x02\x01\x01");
    put(&mut file, 16, &[2, 0, 62, 0]);
    put(&mut file, 24, &0x100_0000_u64.to_le_bytes());
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 54, &[56, 0, 3, 0]);
    let headers: [[u64; 5]; 3] = [
        [1, 0x1000, 0x100_0000, 0x1000, 0x1000],
        [1, 0x2000, 0x120_0000, 0x800, 0x4000],
        [4, 0x200, 0, 40, 40],
    ];
    for (index, [kind, offset, gpa, len, memory]) in headers.into_iter().enumerate() {
        let at = 64 + index * 56;
        for (field, value) in [(0, kind), (8, offset), (24, gpa), (32, len), (40, memory)] {
            put(&mut file, at + field, &value.to_le_bytes());
        }
    }
    let other = [4_u32, 4, 18].map(u32::to_le_bytes).concat();
    let xen = [4_u32, 4, 18].map(u32::to_le_bytes).concat();
    let notes = [&other[..], b"Xe!\0", &[9; 4], &xen, b"Xen\0", &0x100_0010_u32.to_le_bytes()].concat();
    put(&mut file, 0x200, &notes);
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn parse(file: &[u8]) -> Result<KernelImage, ImageError> {
    KernelImage::parse(file, Preference::Long)
}

/// What holding an image promises.
fn keeps_its_word(file: &[u8], image: &KernelImage) {
    let mut last = crate::linux::layout::KERNEL_START;
    for segment in &image.segments {
        assert!(segment.offset + segment.len <= file.len() as u64);
        assert!(segment.gpa >= last);
        last = segment.gpa + segment.len;
    }
    assert!(last <= image.end);
    let (Entry::Long(at) | Entry::Pvh(at)) = image.entry;
    assert!(image.segments.iter().any(|s| (s.gpa..s.gpa + s.len).contains(&at)), "{at:#x}");
    let _ = Placement::new(image, 1 << 20, 128 << 20);
}

#[test]
fn both_formats_are_read() {
    let image = parse(&bzimage()).unwrap();
    assert_eq!(image.entry, Entry::Long(0x100_0200));
    assert_eq!(image.end, 0x400_0000);
    assert_eq!(image.segments, [Segment { gpa: 0x100_0000, offset: 1536, len: LEN as u64 - 1536 }]);
    assert_eq!(image.header.unwrap().bytes.len(), HEADER_LEN);

    let image = parse(&vmlinux()).unwrap();
    assert_eq!(image.entry, Entry::Long(0x100_0000));
    assert_eq!((image.end, image.segments.len(), image.header), (0x120_4000, 2, None));
    let pvh = KernelImage::parse(&vmlinux()[..], Preference::Pvh).unwrap();
    assert_eq!(pvh.entry, Entry::Pvh(0x100_0010));
}

/// One change to a good file, and a piece of what is said about it.
fn refused(mut file: Vec<u8>, at: usize, bytes: &[u8], said: &str) {
    put(&mut file, at, bytes);
    let error = parse(&file).unwrap_err();
    let text = alloc::format!("{error}");
    assert!(text.contains(said), "{text:?} lacks {said:?}");
}

#[test]
fn bad_bzimages_are_refused_by_name() {
    refused(bzimage(), 0x202, b"MZ..", "neither a bzImage nor an ELF");
    refused(bzimage(), 0x1FE, &[0, 0], "boot_flag");
    refused(bzimage(), 0x206, &0x20B_u16.to_le_bytes(), "boot protocol 2.11; 2.12 is the oldest");
    refused(bzimage(), 0x211, &[0], "lacks code that is loaded high");
    refused(bzimage(), 0x236, &[0, 0], "lacks the 64-bit entry");
    refused(bzimage(), 0x1F4, &u32::MAX.to_le_bytes(), "ends before the end of the protected-mode code");
    refused(bzimage(), 0x1F1, &[64], "ends before");
    refused(bzimage(), 0x258, &0x100_1000_u64.to_le_bytes(), "pref_address is 0x1001000");
    refused(bzimage(), 0x258, &0_u64.to_le_bytes(), "pref_address");
    refused(bzimage(), 0x258, &0xFFFF_FFFF_FFE0_0000_u64.to_le_bytes(), "pref_address");
    refused(bzimage(), 0x230, &3_u32.to_le_bytes(), "pref_address");
    refused(bzimage(), 0x260, &16_u32.to_le_bytes(), "init_size");
    let pvh = KernelImage::parse(&bzimage()[..], Preference::Pvh).unwrap_err();
    assert!(alloc::format!("{pvh}").contains("lacks the PVH entry"));
}

#[test]
fn bad_elf_kernels_are_refused_by_name() {
    refused(vmlinux(), 4, &[1], "class");
    refused(vmlinux(), 16, &[3], "type");
    refused(vmlinux(), 18, &[183], "machine");
    refused(vmlinux(), 56, &[0, 0], "number of program headers");
    refused(vmlinux(), 56, &[33, 0], "number of program headers");
    refused(vmlinux(), 32, &u64::MAX.to_le_bytes(), "program headers");
    refused(vmlinux(), 64, &[3], "dynamically linked");
    refused(vmlinux(), 64 + 8, &0x2001_u64.to_le_bytes(), "not in the file");
    refused(vmlinux(), 64 + 24, &0_u64.to_le_bytes(), "below 1 MiB");
    refused(vmlinux(), 64 + 40, &0x20_0001_u64.to_le_bytes(), "over the one before it");
    refused(vmlinux(), 64 + 40, &0xFFF_u64.to_le_bytes(), "more bytes in the file than in memory");
    refused(vmlinux(), 64 + 56 + 24, &(4_u64 << 30).to_le_bytes(), "above 4 GiB");
    refused(vmlinux(), 64 + 56 + 40, &u64::MAX.to_le_bytes(), "above 4 GiB");
    refused(vmlinux(), 24, &0x120_0800_u64.to_le_bytes(), "entry point 0x1200800");
    let mut file = vmlinux();
    put(&mut file, 0x200 + 20 + 12, b"XenX");
    assert_eq!(KernelImage::parse(&file[..], Preference::Pvh), Err(VmlinuxError::NoPvh.into()));
}

#[test]
fn every_truncation_is_refused_or_true() {
    for file in [bzimage(), vmlinux()] {
        for len in 0..file.len() {
            for preference in [Preference::Long, Preference::Pvh] {
                if let Ok(image) = KernelImage::parse(&file[..len], preference) {
                    keeps_its_word(&file[..len], &image);
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_the_headers_is_refused_or_true() {
    for file in [bzimage(), vmlinux()] {
        for at in (0..0x270).flat_map(|byte| (0..8).map(move |bit| (byte, 1 << bit))) {
            let mut file = file.clone();
            file[at.0] ^= at.1;
            for preference in [Preference::Long, Preference::Pvh] {
                if let Ok(image) = KernelImage::parse(&file[..], preference) {
                    keeps_its_word(&file, &image);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn headers_of_noise_are_refused_or_true(
        bytes in prop::collection::vec(any::<u8>(), 0x270),
        elf: bool,
        keep in prop::collection::vec(any::<bool>(), 0x270),
    ) {
        let good = if elf { vmlinux() } else { bzimage() };
        let mut file = good.clone();
        for (at, (byte, keep)) in bytes.iter().zip(keep).enumerate() {
            if !keep {
                file[at] = *byte;
            }
        }
        put(&mut file, if elf { 0 } else { 0x202 }, if elf { b"\x7FELF\x02\x01\x01" } else { b"HdrS" });
        if let Ok(image) = parse(&file) {
            keeps_its_word(&file, &image);
        }
    }
}
