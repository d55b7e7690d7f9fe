//! The door to guest memory.

/// Guest-physical memory that can be read and written by address.
pub trait GuestMemory {
    /// Writes all of `bytes` at `gpa`, or nothing it promises.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange>;
    /// Fills `bytes` from `gpa`.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutOfRange>;
}

/// The range does not lie in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-physical range at {gpa:#x} of {len} bytes is not memory")]
pub struct OutOfRange {
    /// Its first byte.
    pub gpa: u64,
    /// Its length.
    pub len: usize,
}

/// Memory from address 0, for tests and tools.
impl GuestMemory for alloc::vec::Vec<u8> {
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let range = range_in(gpa, bytes.len());
        let target =
            range.and_then(|range| self.get_mut(range)).ok_or(OutOfRange { gpa, len: bytes.len() })?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let range = range_in(gpa, bytes.len());
        let source = range.and_then(|range| self.get(range)).ok_or(OutOfRange { gpa, len: bytes.len() })?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

fn range_in(gpa: u64, len: usize) -> Option<core::ops::Range<usize>> {
    let start = usize::try_from(gpa).ok()?;
    Some(start..start.checked_add(len)?)
}
