//! What a kernel is handed: `boot_params` (Linux, Documentation/arch/x86/zero-page.rst) or PVH's start info (Xen,
//! public/arch-x86/hvm/start_info.h).

use super::bzimage::{HEADER_LEN, HEADER_OFFSET, MAGIC};
use super::command_line::CommandLine;
use super::image::KernelImage;
use super::layout::{BOOT_PARAMS, COMMAND_LINE, MapEntry, PVH_INFO, memory_map};
use super::place::Placement;
use crate::{GuestMemory, OutOfRange};
use alloc::vec::Vec;

/// A loader without a number of its own.
const TYPE_OF_LOADER: u8 = 0xFF;
const PAGE: usize = 0x1000;
/// Where the setup header stands in `boot_params`, as in the file.
const HEADER_AT: usize = 0x1F1;
const _: () = assert!(HEADER_AT as u64 == HEADER_OFFSET);
/// Entries of the memory map in `boot_params`.
const E820_MAX: usize = 128;
/// PVH's list of modules lies behind the start info in its page, the memory map behind that.
const PVH_MODULES: u64 = PVH_INFO + 0x100;
const PVH_MAP: u64 = PVH_INFO + 0x200;
const PVH_MAGIC: u32 = 0x336E_C578;

/// Writes the command line and both descriptions; each kernel reads the one it knows.
pub fn write(
    memory: &mut impl GuestMemory,
    kernel: &KernelImage,
    placement: &Placement,
    command_line: &CommandLine,
    rsdp: u64,
) -> Result<(), OutOfRange> {
    let mut line = Vec::from(command_line.as_str());
    line.push(0);
    memory.write(COMMAND_LINE.start, &line)?;
    memory.write(BOOT_PARAMS, &boot_params(kernel, placement, rsdp))?;
    write_pvh(memory, placement, rsdp)
}

fn boot_params(kernel: &KernelImage, placement: &Placement, rsdp: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    if let Some(header) = &kernel.header {
        put(&mut page, HEADER_AT, &header.bytes);
    } else {
        // An ELF kernel takes the same page and looks at these.
        put(&mut page, 0x1FE, &0xAA55_u16.to_le_bytes());
        put(&mut page, 0x202, &MAGIC);
        put(&mut page, 0x206, &0x20F_u16.to_le_bytes());
    }
    put(&mut page, 0x070, &rsdp.to_le_bytes()); // acpi_rsdp_addr
    put(&mut page, 0x1FA, &0xFFFF_u16.to_le_bytes()); // vid_mode: normal
    put(&mut page, 0x210, &[TYPE_OF_LOADER]);
    put(&mut page, 0x228, &low(COMMAND_LINE.start)); // cmd_line_ptr
    if let Some(initrd) = placement.initrd {
        put(&mut page, 0x218, &low(initrd.gpa)); // ramdisk_image
        put(&mut page, 0x21C, &low(initrd.len)); // ramdisk_size
    }
    let map = memory_map(placement.banks);
    put(&mut page, 0x1E8, &[u8::try_from(map.len().min(E820_MAX)).unwrap_or(0)]); // e820_entries
    for (at, entry) in (0x2D0..).step_by(20).zip(map.iter().take(E820_MAX)) {
        put(&mut page, at, &e820_entry(entry));
    }
    page
}

fn e820_entry(entry: &MapEntry) -> [u8; 20] {
    let mut bytes = [0; 20];
    put(&mut bytes, 0, &entry.start.to_le_bytes());
    put(&mut bytes, 8, &entry.len.to_le_bytes());
    put(&mut bytes, 16, &(entry.kind as u32).to_le_bytes());
    bytes
}

fn write_pvh(memory: &mut impl GuestMemory, placement: &Placement, rsdp: u64) -> Result<(), OutOfRange> {
    let map = memory_map(placement.banks);
    let mut info = [0; 56];
    put(&mut info, 0, &PVH_MAGIC.to_le_bytes());
    put(&mut info, 4, &1_u32.to_le_bytes()); // version with a memory map
    if let Some(initrd) = placement.initrd {
        put(&mut info, 12, &1_u32.to_le_bytes());
        put(&mut info, 16, &PVH_MODULES.to_le_bytes());
        let mut module = [0; 32];
        put(&mut module, 0, &initrd.gpa.to_le_bytes());
        put(&mut module, 8, &initrd.len.to_le_bytes());
        memory.write(PVH_MODULES, &module)?;
    }
    put(&mut info, 24, &COMMAND_LINE.start.to_le_bytes());
    put(&mut info, 32, &rsdp.to_le_bytes());
    put(&mut info, 40, &PVH_MAP.to_le_bytes());
    put(&mut info, 48, &u32::try_from(map.len()).unwrap_or(0).to_le_bytes());
    memory.write(PVH_INFO, &info)?;
    for (at, entry) in (PVH_MAP..).step_by(24).zip(&map) {
        memory.write(at, &[&e820_entry(entry)[..], &[0; 4]].concat())?;
    }
    Ok(())
}

/// The low half: everything handed over in 32 bits lies below 4 GiB, which its placement proves.
fn low(address: u64) -> [u8; 4] {
    u32::try_from(address).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(target) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        target.copy_from_slice(value);
    }
}

const _: () = assert!(HEADER_AT + HEADER_LEN <= 0x2D0, "the header ends before the memory map");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::bzimage::SetupHeader;
    use crate::linux::image::Entry;
    use crate::linux::layout::{Banks, VIRTIO_BASE};
    use crate::linux::place::Initrd;

    fn written(initrd: Option<Initrd>, header: Option<SetupHeader>) -> Vec<u8> {
        let mut memory = alloc::vec![0; 0x3_0000];
        let kernel = KernelImage { segments: Vec::new(), end: 0, entry: Entry::Long(0), header };
        let placement = Placement { banks: Banks::new(6 << 30).unwrap(), initrd };
        write(&mut memory, &kernel, &placement, &CommandLine::new("quiet").unwrap(), 0xE_0000).unwrap();
        memory
    }

    fn number<const N: usize>(memory: &[u8], at: u64) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&memory[usize::try_from(at).unwrap()..][..N]);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn boot_params_say_where_everything_is() {
        let initrd = Some(Initrd { gpa: 0x4000_0000, len: 0x1234 });
        let bytes = [0x5A; HEADER_LEN];
        let header = SetupHeader { bytes, initrd_addr_max: 0, cmdline_size: 0 };
        let memory = written(initrd, Some(header));
        let page = BOOT_PARAMS;
        assert_eq!(&memory[0x2_0000..0x2_0006], b"quiet\0");
        assert_eq!(number::<4>(&memory, page + 0x228), 0x2_0000);
        assert_eq!(number::<4>(&memory, page + 0x218), 0x4000_0000);
        assert_eq!(number::<4>(&memory, page + 0x21C), 0x1234);
        assert_eq!(number::<8>(&memory, page + 0x70), 0xE_0000);
        assert_eq!(number::<1>(&memory, page + 0x210), 0xFF);
        assert_eq!(number::<1>(&memory, page + 0x230), 0x5A, "the rest is the file's");
        assert_eq!(number::<1>(&memory, page + 0x1E8), 5);
        assert_eq!(number::<8>(&memory, page + 0x2D0 + 60), 0x10_0000);
        assert_eq!(number::<8>(&memory, page + 0x2D0 + 80), 4 << 30);
        assert_eq!(number::<8>(&memory, page + 0x2D0 + 88), 3 << 30);
        assert_eq!(number::<4>(&memory, page + 0x2D0 + 96), 1);
    }

    #[test]
    fn an_elf_kernel_gets_a_header() {
        let memory = written(None, None);
        assert_eq!(&memory[0x7202..0x7206], b"HdrS");
        assert_eq!(number::<4>(&memory, BOOT_PARAMS + 0x218), 0);
    }

    #[test]
    fn pvh_info_says_the_same() {
        let memory = written(Some(Initrd { gpa: 0x4000_0000, len: 0x1234 }), None);
        assert_eq!(number::<4>(&memory, PVH_INFO), 0x336E_C578);
        assert_eq!(number::<4>(&memory, PVH_INFO + 12), 1);
        let modules = number::<8>(&memory, PVH_INFO + 16);
        assert_eq!(number::<8>(&memory, modules), 0x4000_0000);
        assert_eq!(number::<8>(&memory, modules + 8), 0x1234);
        assert_eq!(number::<8>(&memory, PVH_INFO + 24), 0x2_0000);
        let map = number::<8>(&memory, PVH_INFO + 40);
        assert_eq!(number::<4>(&memory, PVH_INFO + 48), 5);
        assert_eq!(number::<8>(&memory, map + 4 * 24), 4 << 30);
        assert!((0..5).all(|i| {
            let start = number::<8>(&memory, map + i * 24);
            !(VIRTIO_BASE..4 << 30).contains(&start)
        }));
        assert_eq!(number::<4>(&written(None, None), PVH_INFO + 12), 0);
    }
}
