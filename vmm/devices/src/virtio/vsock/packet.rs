//! A packet's header (virtio 1.2, 5.10.6, `virtio_vsock_hdr`).

/// Bytes of a header.
pub const HEADER_LEN: u32 = 44;

/// Stream sockets, the one type offered.
pub const TYPE_STREAM: u16 = 1;
/// The peer asks for a connection.
pub const OP_REQUEST: u16 = 1;
/// The peer accepts one.
pub const OP_RESPONSE: u16 = 2;
/// There is no such connection, or no longer.
pub const OP_RST: u16 = 3;
/// The peer sends or receives no more, by the flags.
pub const OP_SHUTDOWN: u16 = 4;
/// Bytes.
pub const OP_RW: u16 = 5;
/// Nothing but the credit fields, which every packet has.
pub const OP_CREDIT_UPDATE: u16 = 6;
/// The peer wants to see them.
pub const OP_CREDIT_REQUEST: u16 = 7;

/// Of a shutdown: its sender receives nothing more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// Of a shutdown: its sender sends nothing more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// A header. Holding one proves nothing but its length: every field is what its sender wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub src_cid: u64,
    /// For whom.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// Bytes behind the header.
    pub len: u32,
    /// Stream or not.
    pub kind: u16,
    /// What the packet is.
    pub op: u16,
    /// Of a shutdown.
    pub flags: u32,
    /// How much its sender can hold for this connection.
    pub buf_alloc: u32,
    /// How much of it its sender has passed on, ever, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads one.
    #[must_use]
    pub fn read(bytes: &[u8; HEADER_LEN as usize]) -> Self {
        let word = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
            u32::from_le_bytes(field.copied().unwrap_or_default())
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let half = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
            u16::from_le_bytes(field.copied().unwrap_or_default())
        };
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_LEN as usize] {
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let mut out = [0; HEADER_LEN as usize];
        for (byte, value) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *value;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let header = Header {
            src_cid: 0x0807_0605_0403_0201,
            dst_cid: 2,
            src_port: 0x1413_1211,
            dst_port: 3,
            len: 4,
            kind: 5,
            op: 6,
            flags: 7,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let bytes = header.bytes();
        assert_eq!(bytes[..9], [1, 2, 3, 4, 5, 6, 7, 8, 2]);
        assert_eq!(bytes[16..32], [0x11, 0x12, 0x13, 0x14, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 6, 0]);
        assert_eq!(bytes[32..], [7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(bytes: [u8; 32], rest: [u8; 12]) {
            let mut all = [0; HEADER_LEN as usize];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::read(&all).bytes(), all);
        }
    }
}
