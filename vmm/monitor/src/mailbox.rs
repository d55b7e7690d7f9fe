//! The monitor's side of the mailbox. Whatever the guest wrote is copied once, then validated, then believed no more
//! than it was validated for.

use crate::ram::Ram;
use std::io;
use vm_memory::{ReadVolatile, WriteVolatile};
use warren_abi::mailbox::{
    CONTEXT_MAX, DETAIL_MAX, DETAIL_OFFSET, EVENT_HEADER_OFFSET, EVENT_OFFSET, EventHeader, LOG_MAX,
    LOG_OFFSET, PAYLOAD_MAX, REPLY_HEADER_OFFSET, REPLY_OFFSET, Reply, ReplyFault, ReplyHeader,
};
use warren_boot::OutOfRange;
use zerocopy::{FromBytes, IntoBytes};

/// Access to one guest's mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    ram: Ram,
    gpa: u64,
}

/// What a doorbell announced, or how it broke the contract.
pub type Rung = Result<Reply, ReplyFault>;

impl Mailbox {
    /// Over the mailbox at `gpa`.
    pub(crate) fn new(ram: Ram, gpa: u64) -> Self {
        Self { ram, gpa }
    }

    /// The guest's memory, for the exception frame.
    pub(crate) fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Writes the context to the start of the event area; at most [`CONTEXT_MAX`] bytes.
    pub fn put_context(&self, context: &[u8]) -> Result<(), OutOfRange> {
        let gpa = self.gpa + EVENT_OFFSET;
        if context.len() as u64 > CONTEXT_MAX {
            return Err(OutOfRange { gpa, len: context.len() });
        }
        self.ram.put(gpa, context)
    }

    /// Writes part of the payload, `done` bytes into it, after a context of `context_len` bytes.
    pub fn put_payload(&self, context_len: u32, done: u32, bytes: &[u8]) -> Result<(), OutOfRange> {
        self.ram.put(self.payload_at(context_len, done), bytes)
    }

    /// One read from `source` straight into the payload; how many bytes came.
    pub fn fill_payload(
        &self,
        context_len: u32,
        done: u32,
        len: u32,
        source: &mut impl ReadVolatile,
    ) -> io::Result<usize> {
        let left = len.saturating_sub(done).min(u32::try_from(PAYLOAD_MAX).unwrap_or(0));
        self.ram.fill_from(self.payload_at(context_len, done), left as usize, source)
    }

    /// Hands the event over: what the guest finds when it runs again.
    pub fn put_event(&self, header: &EventHeader) -> Result<(), OutOfRange> {
        self.ram.put(self.gpa + EVENT_HEADER_OFFSET, header.as_bytes())
    }

    /// Copies the reply header once and judges the copy.
    pub fn reply(&self) -> Result<Rung, OutOfRange> {
        let raw = self.raw_reply()?;
        Ok(Reply::validate(&raw))
    }

    /// Takes what the guest has logged, up to its own word and the size of the area, and marks it taken. For use when
    /// the vCPU is held.
    pub fn take_log(&self) -> Result<Vec<u8>, OutOfRange> {
        let len = u64::from(self.raw_reply()?.log_len).min(LOG_MAX);
        if len == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.bytes(LOG_OFFSET, len)?;
        let field = std::mem::offset_of!(ReplyHeader, log_len) as u64;
        self.ram.put(self.gpa + REPLY_HEADER_OFFSET + field, &0_u32.to_le_bytes())?;
        Ok(bytes)
    }

    /// The peak of memory in use, as the guest says.
    pub fn memory_peak(&self) -> Result<u64, OutOfRange> {
        Ok(self.raw_reply()?.memory_peak_bytes)
    }

    /// The error text, with what is not UTF-8 replaced.
    pub fn detail(&self, len: u32) -> Result<String, OutOfRange> {
        let bytes = self.bytes(DETAIL_OFFSET, u64::from(len).min(DETAIL_MAX))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Copies a response out.
    pub fn response(&self, len: u32) -> Result<Vec<u8>, OutOfRange> {
        self.bytes(REPLY_OFFSET, u64::from(len).min(PAYLOAD_MAX))
    }

    /// One write of the response straight to `target`, from `done` on; how many bytes went.
    pub fn send_response(&self, done: u32, len: u32, target: &mut impl WriteVolatile) -> io::Result<usize> {
        let left = len.min(u32::try_from(PAYLOAD_MAX).unwrap_or(0)).saturating_sub(done);
        self.ram.send_to(self.gpa + REPLY_OFFSET + u64::from(done), left as usize, target)
    }

    fn payload_at(&self, context_len: u32, done: u32) -> u64 {
        self.gpa + EVENT_OFFSET + u64::from(context_len) + u64::from(done)
    }

    fn raw_reply(&self) -> Result<ReplyHeader, OutOfRange> {
        let mut bytes = [0; size_of::<ReplyHeader>()];
        self.ram.get(self.gpa + REPLY_HEADER_OFFSET, &mut bytes)?;
        Ok(ReplyHeader::read_from_bytes(&bytes).unwrap_or_default())
    }

    fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, OutOfRange> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.ram.get(self.gpa + offset, &mut bytes)?;
        Ok(bytes)
    }
}
