//! Guest memory that is brought page by page.

use super::Ram;
use crate::sys::userfault::Userfault;
use std::io;

impl Ram {
    /// Lets a pager bring a part of a bank that nobody has touched. Its address in this process.
    pub fn page(&self, userfault: &Userfault, gpa: u64, len: u64) -> io::Result<u64> {
        let (bank, at, len) = self.locate(gpa, len)?;
        userfault.register(&bank.reservation, at, len)
    }
}
