//! What a guest that was written down saw of its processor, which is part of the name under which others look for it.

use super::MakeError;
use warren_artefact::{Digest, Processor};
use warren_state::linux::LinuxState;

/// Fails if it saw another one than this: the VMM is not the one that was asked (`warren-vmm probe`), or its host's KVM changed since.
pub(super) fn is_of(processor: &Processor, state: &[u8]) -> Result<(), MakeError> {
    let state: LinuxState = warren_state::open(state).map_err(|_| MakeError::Processor)?;
    let is_said = state.template == processor.template && Digest(state.processor()) == processor.seen;
    if is_said { Ok(()) } else { Err(MakeError::Processor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_state::linux::{Leaf, device::Devices};

    fn state(template: &str, eax: u32) -> LinuxState {
        LinuxState {
            memory_bytes: 64 << 20,
            guest_bytes: 64 << 20,
            template: template.to_owned(),
            leaves: vec![Leaf { registers: [eax, 0, 0, 0], ..Leaf::default() }],
            clock_ns: 0,
            vcpus: Vec::new(),
            devices: Devices::default().write().unwrap(),
            runs: Vec::new(),
            generation: 1,
        }
    }

    #[test]
    fn a_guest_of_another_processor_is_not_kept_under_this_ones_name() {
        let host = state("host", 1);
        let said = Processor { template: "host".to_owned(), seen: Digest(host.processor()) };
        let judged = |state: &LinuxState| is_of(&said, &warren_state::seal(state).unwrap());
        assert!(judged(&host).is_ok());
        for other in [state("host", 2), state("amd-v3", 1)] {
            assert!(matches!(judged(&other), Err(MakeError::Processor)), "{other:?}");
        }
        assert!(is_of(&said, b"no state").is_err());
    }
}
