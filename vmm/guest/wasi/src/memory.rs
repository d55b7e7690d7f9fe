//! Checked access to the function's linear memory.

use crate::Errno;

/// A linear memory. Every access is by the function's own 32-bit address and answers EFAULT outside.
#[derive(Debug)]
pub struct Memory<'m>(&'m mut [u8]);

/// A validated array of buffers in linear memory: the array itself lies inside, its buffers are checked when taken.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    array: u32,
    count: u32,
}

/// One buffer: address and length, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Address of the first byte.
    pub address: u32,
    /// Bytes.
    pub len: u32,
}

/// Bytes of an `iovec`.
const BUFFER_SIZE: u32 = 8;

impl<'m> Memory<'m> {
    /// Wraps the bytes of a linear memory.
    #[must_use]
    pub const fn new(bytes: &'m mut [u8]) -> Self {
        Self(bytes)
    }

    /// The `len` bytes at `address`.
    pub fn slice(&self, address: u32, len: u32) -> Result<&[u8], Errno> {
        let start = address as usize;
        let end = start.checked_add(len as usize).ok_or(Errno::Fault)?;
        self.0.get(start..end).ok_or(Errno::Fault)
    }

    /// The `len` bytes at `address`, to be written.
    pub fn slice_mut(&mut self, address: u32, len: u32) -> Result<&mut [u8], Errno> {
        let start = address as usize;
        let end = start.checked_add(len as usize).ok_or(Errno::Fault)?;
        self.0.get_mut(start..end).ok_or(Errno::Fault)
    }

    /// The text at `address`: EILSEQ if it is not UTF-8.
    pub fn text(&self, address: u32, len: u32) -> Result<&str, Errno> {
        core::str::from_utf8(self.slice(address, len)?).map_err(|_| Errno::IlSeq)
    }

    /// Writes `bytes` at `address`.
    pub fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Errno> {
        let len = u32::try_from(bytes.len()).map_err(|_| Errno::Fault)?;
        self.slice_mut(address, len)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads an array of `N` bytes.
    pub fn read<const N: usize>(&self, address: u32) -> Result<[u8; N], Errno> {
        let len = u32::try_from(N).map_err(|_| Errno::Fault)?;
        self.slice(address, len)?.try_into().map_err(|_| Errno::Fault)
    }

    /// Reads a little-endian number.
    pub fn read_u32(&self, address: u32) -> Result<u32, Errno> {
        Ok(u32::from_le_bytes(self.read(address)?))
    }

    /// Writes a little-endian number.
    pub fn write_u32(&mut self, address: u32, value: u32) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// Writes a little-endian number.
    pub fn write_u64(&mut self, address: u32, value: u64) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// An `iovec` array of `count` entries.
    pub fn buffers(&self, array: u32, count: u32) -> Result<Buffers, Errno> {
        self.slice(array, count.checked_mul(BUFFER_SIZE).ok_or(Errno::Fault)?)?;
        Ok(Buffers { array, count })
    }

    /// Takes the next buffer off `buffers`.
    pub fn next_buffer(&self, buffers: &mut Buffers) -> Result<Option<Buffer>, Errno> {
        if buffers.count == 0 {
            return Ok(None);
        }
        let address = self.read_u32(buffers.array)?;
        let len = self.read_u32(buffers.array.wrapping_add(4))?;
        buffers.array = buffers.array.wrapping_add(BUFFER_SIZE);
        buffers.count -= 1;
        Ok(Some(Buffer { address, len }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_are_faults() {
        let mut bytes = [0; 64];
        let mut memory = Memory::new(&mut bytes);
        assert!(memory.slice(0, 64).is_ok());
        assert!(memory.slice(64, 0).is_ok());
        for (address, len) in [(0, 65), (64, 1), (u32::MAX, 1), (u32::MAX, u32::MAX), (1, u32::MAX)] {
            assert_eq!(memory.slice(address, len), Err(Errno::Fault), "{address} {len}");
            assert_eq!(memory.slice_mut(address, len).err(), Some(Errno::Fault), "{address} {len}");
        }
        assert_eq!(memory.write_u64(57, 1), Err(Errno::Fault));
        assert_eq!(memory.write_u64(56, 1), Ok(()));
        assert_eq!(memory.buffers(0, 9).err(), Some(Errno::Fault));
        assert_eq!(memory.buffers(8, u32::MAX).err(), Some(Errno::Fault));
    }

    #[test]
    fn buffers_are_taken_in_order() {
        let mut bytes = [0; 32];
        let mut memory = Memory::new(&mut bytes);
        for (at, value) in [(8, 1), (12, 2), (16, 3), (20, 4)] {
            assert_eq!(memory.write_u32(at, value), Ok(()));
        }
        let mut buffers = memory.buffers(8, 2).ok();
        let mut seen = alloc::vec::Vec::new();
        while let Some(buffer) = buffers.as_mut().and_then(|list| memory.next_buffer(list).ok().flatten()) {
            seen.push((buffer.address, buffer.len));
        }
        assert_eq!(seen, [(1, 2), (3, 4)]);
    }
}
