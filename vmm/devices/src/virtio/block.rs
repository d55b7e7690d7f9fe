//! The block device (virtio 1.2, 5.2): what a request asks for.
//!
//! Disks are raw: the bytes of the file are the bytes of the disk, and nothing in them is ever looked at.

use super::chain::{Chain, Memory, Range, slice};
use alloc::vec::Vec;

/// Device id (5).
pub const ID: u32 = 2;
/// Its queues' largest sizes.
pub const QUEUES: [u16; 1] = [256];
/// Bytes of a sector, whatever the block size (5.2.4).
pub const SECTOR: u64 = 512;
/// Bytes of the number of sectors, with which the configuration space begins (5.2.4).
pub const SECTORS_LEN: usize = 8;
/// Bytes of the id string (5.2.6).
pub const ID_LEN: u32 = 20;
/// Most sectors of one discard or zeroing.
pub const EXTENT_MAX: u32 = 1 << 21;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;
const HEADER_LEN: u32 = 16;
const EXTENT_LEN: u32 = 16;
/// The zeroed sectors may be unmapped.
const FLAG_UNMAP: u32 = 1;

/// A disk as its requests are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Sectors.
    pub sectors: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a request asks for; offsets and lengths are bytes and lie on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the ranges from the disk.
    Read {
        /// From where.
        offset: u64,
        /// Into which ranges.
        into: Vec<Range>,
    },
    /// Write the ranges to the disk.
    Write {
        /// To where.
        offset: u64,
        /// From which ranges.
        from: Vec<Range>,
    },
    /// Make what was written durable.
    Flush,
    /// Forget an extent: it reads as anything afterwards.
    Discard(Extent),
    /// Make an extent read as zeroes; it may be unmapped.
    WriteZeroes {
        /// Which.
        extent: Extent,
        /// Whether it may lose its blocks.
        unmap: bool,
    },
    /// Write the id string.
    Id(Vec<Range>),
}

impl Request {
    /// Bytes that go from or to the disk, for limits.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        match self {
            Self::Read { into: ranges, .. } | Self::Write { from: ranges, .. } => {
                ranges.iter().map(|range| u64::from(range.len)).sum()
            }
            // The host moves nothing for these, or its own zeroes.
            Self::Flush | Self::Discard(_) | Self::WriteZeroes { .. } | Self::Id(_) => 0,
        }
    }
}

/// A run of bytes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// How a request ended, as its last byte says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed, or out of bounds.
    IoError = 1,
    /// Not offered.
    Unsupported = 2,
}

/// A request with the place of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What to do, or what to answer at once.
    pub request: Result<Request, Status>,
    /// Where the status byte goes.
    pub status_at: u64,
    /// Bytes the device may write before the status byte.
    pub data_len: u32,
}

/// The request has no room for a status byte: nothing can be said to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block request without a header or without a byte for its status")]
pub struct Malformed;

impl Disk {
    /// Features of this disk, without those of the transport.
    #[must_use]
    pub fn features(&self) -> u64 {
        let common = F_SEG_MAX | F_BLK_SIZE | F_FLUSH;
        common | if self.read_only { F_RO } else { F_DISCARD | F_WRITE_ZEROES }
    }

    /// The configuration space (5.2.4).
    #[must_use]
    pub fn config(&self) -> Vec<u8> {
        let mut config = alloc::vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(target) = config.get_mut(at..at + bytes.len()) {
                target.copy_from_slice(bytes);
            }
        };
        put(0, &self.sectors.to_le_bytes());
        put(12, &u32::from(QUEUES[0] - 2).to_le_bytes()); // seg_max: header and status take two
        put(20, &512_u32.to_le_bytes()); // blk_size
        put(36, &EXTENT_MAX.to_le_bytes()); // max_discard_sectors
        put(40, &1_u32.to_le_bytes()); // max_discard_seg
        put(44, &8_u32.to_le_bytes()); // discard_sector_alignment
        put(48, &EXTENT_MAX.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &1_u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        config
    }

    /// Reads a request's header, once, and judges it.
    pub fn parse(&self, chain: &Chain, memory: &impl Memory) -> Result<Parsed, Malformed> {
        let last = chain.writable().last().ok_or(Malformed)?;
        let status_at = last.gpa + u64::from(last.len - 1);
        let data_len = chain.writable_len() - 1;
        let header: [u8; HEADER_LEN as usize] = chain.copy_head(memory).ok_or(Malformed)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let sector = u64::from_le_bytes(sector);
        let out_len = chain.readable_len() - HEADER_LEN;
        let request = match kind {
            T_IN => self.offset(sector, data_len).map(|offset| {
                let into = slice(chain.writable(), 0, data_len);
                Request::Read { offset, into }
            }),
            T_OUT => self.writable().and_then(|()| self.offset(sector, out_len)).map(|offset| {
                let from = slice(chain.readable(), HEADER_LEN, out_len);
                Request::Write { offset, from }
            }),
            T_FLUSH => Ok(Request::Flush),
            T_GET_ID if data_len < ID_LEN => Err(Status::IoError),
            T_GET_ID => Ok(Request::Id(slice(chain.writable(), 0, ID_LEN))),
            T_DISCARD | T_WRITE_ZEROES => self.writable().and_then(|()| self.extent(kind, chain, memory)),
            _ => Err(Status::Unsupported),
        };
        Ok(Parsed { request, status_at, data_len })
    }

    fn writable(&self) -> Result<(), Status> {
        if self.read_only { Err(Status::IoError) } else { Ok(()) }
    }

    /// Where `len` bytes from a sector lie, if all of them are on the disk.
    fn offset(&self, sector: u64, len: u32) -> Result<u64, Status> {
        let len = u64::from(len);
        let end = sector.checked_add(len / SECTOR).ok_or(Status::IoError)?;
        if !len.is_multiple_of(SECTOR) || len == 0 || end > self.sectors {
            return Err(Status::IoError);
        }
        sector.checked_mul(SECTOR).ok_or(Status::IoError)
    }

    /// The one extent of a discard or zeroing (5.2.6, `virtio_blk_discard_write_zeroes`).
    fn extent(&self, kind: u32, chain: &Chain, memory: &impl Memory) -> Result<Request, Status> {
        if chain.readable_len() != HEADER_LEN + EXTENT_LEN {
            return Err(Status::IoError);
        }
        let bytes: [u8; 32] = chain.copy_head(memory).ok_or(Status::IoError)?;
        let (_, bytes) = bytes.split_at(HEADER_LEN as usize);
        let field = |at: usize| -> u32 {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
            u32::from_le_bytes(field.copied().unwrap_or_default())
        };
        let sector = u64::from(field(0)) | u64::from(field(4)) << 32;
        let (sectors, flags) = (field(8), field(12));
        let known = if kind == T_WRITE_ZEROES { FLAG_UNMAP } else { 0 };
        if flags & !known != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > EXTENT_MAX {
            return Err(Status::IoError);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = self.offset(sector, u32::try_from(len).map_err(|_| Status::IoError)?)?;
        let extent = Extent { offset, len };
        Ok(match kind {
            T_DISCARD => Request::Discard(extent),
            _ => Request::WriteZeroes { extent, unmap: flags & FLAG_UNMAP != 0 },
        })
    }
}

#[cfg(test)]
mod tests;
