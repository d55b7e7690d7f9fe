//! KVM's structures as the bytes they are, and back: what a snapshot keeps of them.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// A structure that is its bytes.
///
/// # Safety
/// `repr(C)`, of integers alone, without padding between or behind them; any bytes are one.
pub unsafe trait Plain: Default {}

// SAFETY: kvm-bindings makes them from the kernel's headers, which pad by fields of their own (`const`s below: their sizes are
// the sums of their fields').
unsafe impl Plain for kvm_regs {}
// SAFETY: as above.
unsafe impl Plain for kvm_sregs {}
// SAFETY: as above; the array at its end has no elements.
unsafe impl Plain for kvm_xsave {}
// SAFETY: as above.
unsafe impl Plain for kvm_xcrs {}
// SAFETY: as above.
unsafe impl Plain for kvm_debugregs {}
// SAFETY: as above.
unsafe impl Plain for kvm_lapic_state {}
// SAFETY: as above.
unsafe impl Plain for kvm_vcpu_events {}

const _: () = {
    assert!(size_of::<kvm_regs>() == 18 * 8);
    assert!(size_of::<kvm_sregs>() == 8 * (8 + 4 + 2 + 10) + 2 * (8 + 2 + 6) + 7 * 8 + 4 * 8);
    assert!(size_of::<kvm_xsave>() == 1024 * 4);
    assert!(size_of::<kvm_xcrs>() == 4 + 4 + 16 * (4 + 4 + 8) + 16 * 8);
    assert!(size_of::<kvm_debugregs>() == (4 + 1 + 1 + 1 + 9) * 8);
    assert!(size_of::<kvm_lapic_state>() == 1024);
    assert!(size_of::<kvm_vcpu_events>() == 8 + 4 + 4 + 4 + 4 + 4 + 1 + 26 + 1 + 8);
};

/// Its bytes.
#[must_use]
pub fn bytes<T: Plain>(value: &T) -> Vec<u8> {
    // SAFETY: 1. the range is the value, which lives through the call; 2. no padding, so every byte is initialised (`Plain`).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

/// The structure of some bytes; `None` if there are not as many as it has.
#[must_use]
pub fn value<T: Plain>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: 1. both ranges are of the value's size and do not overlap: one is a new local; 2. any bytes are one (`Plain`).
    unsafe {
        std::ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            std::ptr::from_mut(&mut value).cast::<u8>(),
            bytes.len(),
        );
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_comes_back() {
        let regs = kvm_regs { rax: 1, rflags: u64::MAX, ..Default::default() };
        assert_eq!(value::<kvm_regs>(&bytes(&regs)), Some(regs));
        assert_eq!(bytes(&regs).len(), 144);
        assert!(value::<kvm_regs>(&[0; 143]).is_none() && value::<kvm_sregs>(&[0; 144]).is_none());
    }
}
