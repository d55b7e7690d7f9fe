//! The machine around its devices: ports, registers of the processor, addresses without memory, ends.

use super::{Case, Ends, all};
use crate::driver::{Device, MEMORY};
use crate::script::{Op, Script};
use warren_boot::linux::layout::{
    ACPI, BOOT_PARAMS, COMMAND_LINE, IO_APIC, KEPT, KEYBOARD_PORT, LOCAL_APIC, LOW_MAX, RESET_COMMAND,
    RESET_PORT, SERIAL_PORT, SLEEP_CONTROL_PORT, VIRTIO_BASE, virtio_window,
};

use Ends::{GoesOn, Told};

/// The VMM ends because its guest broke down.
const fn guest(words: &'static str) -> Ends {
    Ends::By(21, words)
}

/// The table.
pub const ROWS: &[Case] = &[
    // Ends.
    all("a triple fault", guest("triple fault"), |s| {
        // sub rsp, 16; mov [rsp], 0 twice; lidt [rsp]; ud2
        s.call(&[0x48, 0x83, 0xEC, 0x10, 0x6A, 0, 0x6A, 0, 0x0F, 0x01, 0x1C, 0x24, 0x0F, 0x0B]);
    }),
    all("page tables that are nowhere", Ends::Named, |s| {
        // mov eax, 0x10000000; mov cr3, rax
        s.call(&[0xB8, 0, 0, 0, 0x10, 0x0F, 0x22, 0xD8]);
    }),
    all("a halt with interrupts off", Told, |s| {
        s.say("stops").call(&[0xFA, 0xF4, 0xEB, 0xFD]);
    }),
    all("spinning with interrupts off", Told, |s| {
        s.say("stops").call(&[0xFA, 0xEB, 0xFE]);
    }),
    all("exceptions without end", Told, |s| {
        // ud2, again and again.
        s.say("stops").call(&[0x0F, 0x0B]).many(Op::Call, 8, u32::MAX, [crate::guest::CODE, 0, 0], [0; 2]);
    }),
    all("a reset by the keyboard controller", Ends::By(11, "reset"), |s| {
        s.out(RESET_PORT, RESET_COMMAND);
    }),
    all("a doorbell in a loop", Told, |s| {
        s.say("stops").many(Op::Write, 4, u32::MAX, [virtio_window(0) + 0x50, 0, 0], [0; 2]);
    }),
    all("a register read in a loop", Told, |s| {
        s.say("stops").many(Op::Read, 4, u32::MAX, [virtio_window(0), 0, 0], [0; 2]);
    }),
    all("a port written in a loop", Told, |s| {
        s.say("stops").many(Op::Out, 1, u32::MAX, [0x80, 0, 0], [0; 2]);
    }),
    // Ports.
    all("every port read, one byte", GoesOn, |s| ports(s, Op::In, 1)),
    all("every port read, two bytes", GoesOn, |s| ports(s, Op::In, 2)),
    all("every port read, four bytes", GoesOn, |s| ports(s, Op::In, 4)),
    all("zeroes written to every port, one byte", GoesOn, |s| ports(s, Op::Out, 1)),
    all("zeroes written to every port, two bytes", GoesOn, |s| ports(s, Op::Out, 2)),
    all("zeroes written to every port, four bytes", GoesOn, |s| ports(s, Op::Out, 4)),
    all("every command of the keyboard controller but one", GoesOn, |s| {
        s.many(Op::Out, 1, 0xF0, [RESET_PORT.into(), 0, 0], [0, 1]);
        s.many(Op::Out, 1, 0x100, [KEYBOARD_PORT.into(), 0, 0], [0, 1]);
        s.many(Op::In, 1, 100, [KEYBOARD_PORT.into(), 0, 0], [0; 2]);
    }),
    all("every kind of sleep but one", GoesOn, |s| {
        // Whatever has the bit that begins it and another type.
        for value in (0..=0xFF).filter(|value| value & 0x20 == 0 || value >> 2 & 7 != 5) {
            s.out(SLEEP_CONTROL_PORT, value);
        }
    }),
    all("every value in every register of the serial port", GoesOn, |s| {
        for register in 1..8 {
            s.many(Op::Out, 1, 0x100, [(SERIAL_PORT + register).into(), 0, 0], [0, 1]);
            s.many(Op::In, 1, 4, [(SERIAL_PORT + register).into(), 0, 0], [0; 2]);
        }
        // As it was: no loopback, no divisor.
        s.out(SERIAL_PORT + 3, 3).out(SERIAL_PORT + 4, 0).out(SERIAL_PORT + 1, 0);
    }),
    all("lines without end", GoesOn, |s| {
        s.many(Op::Out, 2, 20_000, [SERIAL_PORT.into(), 0x0A0A, 0], [0; 2]);
        s.again(5000, |s| {
            s.out(SERIAL_PORT, b'x').out(SERIAL_PORT, b'\n');
        });
    }),
    all("a line without end", GoesOn, |s| {
        s.many(Op::Out, 1, 50_000, [SERIAL_PORT.into(), b'x'.into(), 0], [0; 2]).out(SERIAL_PORT, b'\n');
    }),
    all("every byte there is in a line", GoesOn, |s| {
        s.many(Op::Out, 1, 0x400, [SERIAL_PORT.into(), 0, 0], [0, 1]).out(SERIAL_PORT, b'\n');
    }),
    all("64 KiB in one instruction", GoesOn, |s| {
        // mov esi, 0x800000; mov ecx, 65536; mov edx, 0x3f9; rep outsb; ret
        s.call(&[0xBE, 0, 0, 0x80, 0, 0xB9, 0, 0, 1, 0, 0xBA, 0xF9, 3, 0, 0, 0xF3, 0x6E, 0xC3]);
        // mov edi, 0x800000; mov ecx, 65536; mov edx, 0x60; rep insb; ret
        s.call(&[0xBF, 0, 0, 0x80, 0, 0xB9, 0, 0, 1, 0, 0xBA, 0x60, 0, 0, 0, 0xF3, 0x6C, 0xC3]);
    }),
    all("a port's bytes to where there is no memory", Ends::Named, |s| {
        // mov edi, 0xD0000000; mov ecx, 64; mov edx, 0x60; rep insb; ret
        s.call(&[0xBF, 0, 0, 0, 0xD0, 0xB9, 64, 0, 0, 0, 0xBA, 0x60, 0, 0, 0, 0xF3, 0x6C, 0xC3]);
    }),
    // Addresses.
    all("reads where there is no memory", GoesOn, |s| {
        let count = u32::try_from((LOW_MAX - MEMORY) >> 21).unwrap_or_default();
        s.many(Op::Read, 8, count, [MEMORY, 0, 0], [2 << 20, 0]).seen(!0, !0);
    }),
    all("writes where there is no memory", GoesOn, |s| {
        let count = u32::try_from((LOW_MAX - MEMORY) >> 21).unwrap_or_default();
        s.many(Op::Write, 8, count, [MEMORY, !0, 0], [2 << 20, 0]);
    }),
    all("windows without a device", GoesOn, |s| {
        for index in [4, 5, 47, 48, 255, 4096] {
            s.many(Op::Write, 4, 64, [virtio_window(index), !0, 0], [4, 0]);
            s.many(Op::Read, 4, 64, [virtio_window(index), 0, 0], [4, 0]).seen(0xFFFF_FFFF, 0xFFFF_FFFF);
        }
    }),
    all("an access over the end of memory", GoesOn, |s| {
        for at in 1..8 {
            s.write(8, MEMORY - at, !0).read(8, MEMORY - at).seen(!0, !0);
        }
    }),
    all("every register of the interrupt controller", GoesOn, |s| {
        let base = u64::from(IO_APIC);
        s.again(2, |s| {
            for select in (0..256).step_by(5) {
                s.write32(base, select).write32(base + 16, 0xFFFF_FFFF).read(4, base + 16);
            }
        });
        for size in [1, 2, 4, 8] {
            s.many(Op::Write, size, 128, [base, !0, 0], [1, 0]).many(
                Op::Read,
                size,
                128,
                [base, 0, 0],
                [1, 0],
            );
        }
    }),
    all("interrupts sent to every processor there is not", GoesOn, |s| {
        let base = u64::from(LOCAL_APIC);
        for target in [1, 2, 31, 32, 254] {
            s.write32(base + 0x310, target << 24).write32(base + 0x300, 0x4500).write32(base + 0x300, 0x4601);
        }
        s.write32(base + 0x300, 0xC_4500).write32(base + 0x300, 0xC_0400).write32(base + 0x300, 0xC_00FE);
    }),
    all("all of memory", GoesOn, |s| {
        // What is its own stays: begin behind the buffers.
        let from = 0x200_0000;
        let pages = u32::try_from((MEMORY - from) >> 12).unwrap_or_default();
        s.many(Op::Write, 8, pages, [from, !0, 0], [4096, 0]);
    }),
    all("what the host wrote for it", GoesOn, |s| {
        for (from, to) in [
            (BOOT_PARAMS, BOOT_PARAMS + 4096),
            (COMMAND_LINE.start, COMMAND_LINE.end),
            (ACPI.start, KEPT.end),
        ] {
            s.fill(from, u32::try_from(to - from).unwrap_or_default(), !0);
        }
    }),
    all("code in a device's window", Ends::Named, |s| jump(s, VIRTIO_BASE)),
    all("code where there is no memory", Ends::Named, |s| jump(s, 0x800_0000)),
    all("code in the interrupt controller", Ends::Named, |s| jump(s, IO_APIC.into())),
    all("a stack in a device's window", Ends::Named, |s| {
        // mov rbx, rsp; mov esp, 0xD0000F00; push rax; pop rax; mov rsp, rbx; ret
        s.call(&[0x48, 0x89, 0xE3, 0xBC, 0, 0x0F, 0, 0xD0, 0x50, 0x58, 0x48, 0x89, 0xDC, 0xC3]);
    }),
    all("a device's window copied to another", Ends::Named, |s| {
        // mov esi, 0xD0000000; mov edi, 0xD0001000; mov ecx, 4096; rep movsb; ret
        s.call(&[0xBE, 0, 0, 0, 0xD0, 0xBF, 0, 0x10, 0, 0xD0, 0xB9, 0, 0x10, 0, 0, 0xF3, 0xA4, 0xC3]);
    }),
    all("an atomic access of a device's window", Ends::Named, |s| {
        // mov esi, 0xD0000070; lock cmpxchg [rsi], ecx; lock cmpxchg8b [rsi]; lock xadd [rsi], ecx; ret
        s.call(&[0xBE, 0x70, 0, 0, 0xD0, 0xF0, 0x0F, 0xB1, 0x0E]);
        s.call(&[0xBE, 0x70, 0, 0, 0xD0, 0xF0, 0x0F, 0xC7, 0x0E, 0xF0, 0x0F, 0xC1, 0x0E, 0xC3]);
    }),
    all("sixteen bytes of a device's window", Ends::Named, |s| {
        // mov esi, 0xD0000000; movups xmm0, [rsi]; movups [rsi + 0x100], xmm0; ret
        s.call(&[0xBE, 0, 0, 0, 0xD0, 0x0F, 0x10, 0x06, 0x0F, 0x11, 0x86, 0, 1, 0, 0, 0xC3]);
    }),
    all("the state of its registers into a device's window", Ends::Named, |s| {
        // mov esi, 0xD0000100; fxsave [rsi]; ret
        s.call(&[0xBE, 0, 1, 0, 0xD0, 0x0F, 0xAE, 0x06, 0xC3]);
    }),
    all("a table of exceptions in a device's window", guest(""), |s| {
        // push 0xD0000000's parts; lidt; ud2
        s.call(&[
            0x48, 0x83, 0xEC, 0x10, 0x66, 0xC7, 0x04, 0x24, 0xFF, 0x0F, 0xC7, 0x44, 0x24, 2, 0, 0, 0, 0xD0,
            0xC7, 0x44, 0x24, 6, 0, 0, 0, 0, 0x0F, 0x01, 0x1C, 0x24, 0x0F, 0x0B,
        ]);
    }),
    // The processor.
    all("every model-specific register of the first 8,192", GoesOn, |s| registers(s, 0, 0x2000)),
    all("every one of AMD's first", GoesOn, |s| registers(s, 0xC000_0000, 0x400)),
    all("every one of AMD's second", GoesOn, |s| registers(s, 0xC001_0000, 0x1200)),
    all("every one of another hypervisor", GoesOn, |s| denied(s, 0x4000_0000, 0x200)),
    all("those that nest", GoesOn, |s| {
        denied(s, 0x480, 0x20);
        denied(s, 0x3A, 1);
        denied(s, 0xC001_0114, 4);
    }),
    all("those that measure and trace", GoesOn, |s| {
        denied(s, 0xC1, 8);
        denied(s, 0x186, 8);
        denied(s, 0x38D, 4);
        denied(s, 0x560, 0x30);
        denied(s, 0xC001_0000, 8);
        denied(s, 0xC001_0200, 12);
        denied(s, 0xC001_1030, 16);
    }),
    all("those of power and heat", GoesOn, |s| {
        denied(s, 0xCE, 1);
        denied(s, 0x198, 5);
        denied(s, 0x606, 0x40);
        denied(s, 0xC001_0061, 8);
        denied(s, 0xC001_0299, 3);
    }),
    all("those of the host's machine", GoesOn, |s| {
        denied(s, 0x17, 1);
        denied(s, 0x9B, 1);
        denied(s, 0x9E, 1);
        denied(s, 0xC001_0112, 2);
        denied(s, 0xC001_0130, 4);
    }),
    all("KVM's own registers with addresses that are none", GoesOn, |s| {
        for address in [MEMORY, MEMORY - 8, VIRTIO_BASE, !63, 1 << 51] {
            for register in 0x4B56_4D00..0x4B56_4D09 {
                s.step(Op::WriteMsr, 8, [register, address | 1, 0]);
            }
            for register in [0x11, 0x12] {
                s.step(Op::WriteMsr, 8, [register, address | 1, 0]);
            }
        }
        s.read(8, 0).step(Op::Cpuid, 8, [1, 0, 0]);
    }),
    all("what it may write, with ones", GoesOn, |s| {
        for register in [
            0x10,
            0x1B,
            0x3B,
            0x48,
            0x49,
            0x8B,
            0xFE,
            0x10A,
            0x10B,
            0x174,
            0x175,
            0x176,
            0x179,
            0x17A,
            0x1A0,
            0x1D9,
            0x200,
            0x250,
            0x277,
            0x2FF,
            0x400,
            0x401,
            0x6E0,
            0xDA0,
            0xC000_0080,
            0xC000_0081,
            0xC000_0082,
            0xC000_0084,
            0xC000_0100,
            0xC000_0102,
            0xC000_0103,
            0xC001_0010,
            0xC001_0015,
            0xC001_001F,
            0xC001_011F,
            0xC001_1022,
            0xC001_1029,
        ] {
            s.step(Op::WriteMsr, 8, [register, !0, 0]);
        }
    }),
    all("a mode that it cannot leave", GoesOn, |s| {
        s.step(Op::WriteMsr, 8, [0xC000_0080, 0, 0]);
        // mov rax, cr0; btr eax, 31; mov cr0, rax; ret: and so on with protection, then with rubbish in cr4 and cr8
        s.call(&[0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xF0, 31, 0x0F, 0x22, 0xC0, 0xC3]);
        s.call(&[0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xF0, 0, 0x0F, 0x22, 0xC0, 0xC3]);
        s.call(&[0x48, 0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x22, 0xE0, 0xC3]);
        s.call(&[0x48, 0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x44, 0x0F, 0x22, 0xC0, 0xC3]);
    }),
    all("every leaf of CPUID", GoesOn, |s| {
        for (from, count) in
            [(0, 0x40), (0x4000_0000, 0x40), (0x8000_0000, 0x40), (0xC000_0000, 4), (0xFFFF_FFFF, 1)]
        {
            for subleaf in [0, 1, 2, 0x1F, 0xFFFF_FFFF] {
                s.many(Op::Cpuid, 4, count, [from, subleaf, 0], [1, 0]);
            }
        }
        // Nothing nests.
        s.step(Op::Cpuid, 4, [1, 0, 0])
            .seen(1 << 5, 0)
            .step(Op::Cpuid, 4, [0x8000_0001, 0, 0])
            .seen(1 << 2, 0);
    }),
    all("instructions that nest", Ends::Named, |s| {
        // vmrun, vmload, vmsave, stgi, clgi, skinit; vmxoff, vmlaunch, vmresume
        for last in [0xD8, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xC4, 0xC2, 0xC3] {
            s.call(&[0x0F, 0x01, last, 0xC3]);
        }
        // Where the host emulates none of them, each is an exception.
        s.step(Op::Counts, 8, [0; 3]).seen(!0, 9);
    }),
    all("every call of the hypervisor", Ends::Named, |s| {
        for number in 0..64 {
            // mov eax, number; mov rbx..rsi, -1; vmmcall; ret
            s.call(&[
                0xB8, number, 0, 0, 0, 0x48, 0x83, 0xCB, 0xFF, 0x48, 0x83, 0xC9, 0xFF, 0x48, 0x83, 0xCA,
                0xFF, 0x48, 0x83, 0xCE, 0xFF, 0x0F, 0x01, 0xD9, 0xC3,
            ]);
        }
    }),
    all("vector registers that there are not", GoesOn, |s| {
        // mov eax, -1; mov edx, -1; xor ecx, ecx; xsetbv; ret; the same of register 1
        s.call(&[0x83, 0xC8, 0xFF, 0x83, 0xCA, 0xFF, 0x31, 0xC9, 0x0F, 0x01, 0xD1, 0xC3]);
        s.call(&[0x83, 0xC8, 0xFF, 0x83, 0xCA, 0xFF, 0x31, 0xC9, 0xFF, 0xC1, 0x0F, 0x01, 0xD1, 0xC3]);
        s.step(Op::Counts, 8, [0; 3]).seen(!0, 2);
    }),
    all("caches and translations thrown away", GoesOn, |s| {
        // wbinvd; invlpg [rax]; mov rax, cr3; mov cr3, rax; ret
        s.many(Op::Call, 8, 100, [crate::guest::CODE, 0, 0], [0; 2]);
        s.call(&[0x0F, 0x09, 0x0F, 0x01, 0x38, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0xC3]);
    }),
    all("debugging itself", Ends::Named, |s| {
        // mov eax, 0x1000000; mov dr0, rax; mov eax, 0xFFFF07FF; mov dr7, rax; ret; int3; ret; icebp; ret
        s.call(&[0xB8, 0, 0, 0, 1, 0x0F, 0x23, 0xC0, 0xB8, 0xFF, 7, 0xFF, 0xFF, 0x0F, 0x23, 0xF8, 0xC3]);
        s.call(&[0xCC, 0xC3]).call(&[0xF1, 0xC3]).call(&[0x31, 0xC0, 0x0F, 0x23, 0xF8, 0xC3]);
    }),
    all("every exception", Ends::Named, |s| {
        for vector in 0..=255 {
            s.call(&[0xCD, vector]);
        }
        s.step(Op::Counts, 8, [0; 3]).seen(!0, 256);
    }),
    all("queues 0 to 65,535", GoesOn, |s| {
        let window = Device::Rng.window();
        s.write32(window + 0x70, 0);
        s.many(Op::Write, 4, 0x1_0000, [window + 0x30, 0, 0], [0, 1]).check(4, window + 0x34, 0);
    }),
];

/// Every port; all bytes of a write are zero.
fn ports(s: &mut Script, op: Op, size: u8) {
    s.many(op, size, 0x1_0000, [0, 0, 0], [1, 0]);
    // The serial port's line as it was.
    s.out(SERIAL_PORT + 3, 3).out(SERIAL_PORT, b'\n');
}

/// Reads of a range of model-specific registers. Some are allowed.
fn registers(s: &mut Script, from: u64, count: u32) {
    s.many(Op::ReadMsr, 8, count, [from, 0, 0], [1, 0]);
}

/// Every read and write of these is refused.
fn denied(s: &mut Script, from: u64, count: u32) {
    s.step(Op::Counts, 8, [0; 3]);
    s.many(Op::ReadMsr, 8, count, [from, 0, 0], [1, 0]);
    s.many(Op::WriteMsr, 8, count, [from, 0, 0], [1, 0]);
    s.step(Op::Counts, 8, [0; 3]).seen(!0, 2 * u64::from(count));
}

/// Calls an address.
fn jump(s: &mut Script, to: u64) {
    s.step(Op::Call, 8, [to, 0, 0]);
}
