//! Interrupts of a Linux guest: each device has a line of its own, and a line that is raised is a message to a local APIC.
//!
//! The local APICs are KVM's, the I/O APIC is ours ([`IoApic`]): it has as many lines as the guest has devices, where
//! KVM's has 24; and its message reaches the vCPU in the very call that raises it, where KVM hands an edge of its own I/O
//! APIC to a kernel thread first.

use crate::log;
use crate::log::Seldom;
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_msi};
use kvm_ioctls::VmFd;
use std::sync::Arc;
use warren_devices::ioapic::{IoApic, IoApicState, Message};

/// Where messages go.
pub trait Messages: Send + Sync + std::fmt::Debug {
    /// Delivers one; any thread, never waits.
    fn send(&self, message: Message);
}

/// All interrupt lines of a guest.
#[derive(Debug)]
pub struct Interrupts {
    controller: IoApic,
    to: Arc<dyn Messages>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Line {
    all: Arc<Interrupts>,
    number: usize,
}

/// Makes a VM's local APICs KVM's, and nothing else.
pub fn local_controllers(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    // The argument is how many routes KVM keeps for our lines: we use none.
    vm.enable_cap(&kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() })
}

impl Interrupts {
    /// So many lines.
    #[must_use]
    pub fn new(lines: usize, to: Arc<dyn Messages>) -> Arc<Self> {
        Arc::new(Self { controller: IoApic::new(lines), to })
    }

    /// The lines of a guest that was written down.
    #[must_use]
    pub fn resumed(state: &IoApicState, to: Arc<dyn Messages>) -> Arc<Self> {
        Arc::new(Self { controller: state.into(), to })
    }

    /// The same lines go on where they were written down, while nobody raises or programs one.
    pub fn resume(&self, state: &IoApicState) {
        self.controller.resume(state);
    }

    /// As they stand, while nobody raises or programs one.
    #[must_use]
    pub fn state(&self) -> IoApicState {
        self.controller.state()
    }

    /// A line by its number.
    #[must_use]
    pub fn line(self: &Arc<Self>, number: u32) -> Line {
        Line { all: Arc::clone(self), number: usize::try_from(number).unwrap_or(usize::MAX) }
    }

    /// A read of the controller's window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.controller.read(offset, data);
    }

    /// A write of it.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(message) = self.controller.write(offset, data) {
            self.to.send(message);
        }
    }
}

impl Line {
    /// Raises it.
    pub fn raise(&self) {
        if let Some(message) = self.all.controller.raise(self.number) {
            self.all.to.send(message);
        }
    }
}

/// A VM as the goal of messages.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    refused: Seldom,
}

impl Vm {
    /// Of a VM with [`local_controllers`].
    #[must_use]
    pub fn new(fd: Arc<VmFd>) -> Self {
        Self { fd, refused: Seldom::default() }
    }
}

impl Messages for Vm {
    fn send(&self, Message { address, data }: Message) {
        let message = kvm_msi { address_lo: address, data, ..Default::default() };
        // A guest may name a processor that is not there, or whose controller is off.
        if let Err(error) = self.fd.signal_msi(message)
            && let Some(times) = self.refused.count()
        {
            log!("an interrupt that KVM does not take: {error} (time {times})");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts messages.
    #[derive(Debug, Default)]
    pub(crate) struct Counted(pub(crate) AtomicUsize);

    impl Messages for Counted {
        fn send(&self, _: Message) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Lines that are all unmasked, and their count of messages.
    pub(crate) fn counted(lines: u32) -> (Arc<Interrupts>, Arc<Counted>) {
        let count = Arc::<Counted>::default();
        let all = Interrupts::new(lines as usize, count.clone());
        for line in 0..lines {
            all.write(0, &(0x10 + 2 * line).to_le_bytes());
            all.write(0x10, &0x30_u32.to_le_bytes());
        }
        (all, count)
    }

    #[test]
    fn each_line_is_told_by_itself() {
        let (all, count) = counted(3);
        all.line(2).raise();
        all.line(2).raise();
        all.line(0).raise();
        all.line(3).raise();
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
    }
}
