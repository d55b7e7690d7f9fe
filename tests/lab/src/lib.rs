//! The lab host: a whole worker machine in QEMU's software emulation, with AMD's virtualisation emulated too, so that
//! a stock kernel, KVM with nested paging, cgroup v2, Landlock and user namespaces can be had on any machine.
//!
//! It needs neither /dev/kvm nor root. A run is: a stock Debian kernel ([`kernel`]), an initramfs made of busybox and
//! our static binaries ([`initramfs`]), one QEMU process ([`machine`]), and a verdict read from its serial console
//! ([`console`]). A power cut is a `kill -9` of that process.
//!
//! It deliberately knows nothing of Warren: it runs a shell command on files that it is given.
#![forbid(unsafe_code)]

pub mod console;
pub mod disk;
pub mod emulator;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod machine;
