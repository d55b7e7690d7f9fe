//! Error numbers of WASI preview 1.

use core::fmt;

/// The error numbers this implementation answers, with their numbers in the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are POSIX's")]
pub enum Errno {
    BadF = 8,
    Busy = 10,
    Exist = 20,
    Fault = 21,
    FBig = 22,
    IlSeq = 25,
    Inval = 28,
    IsDir = 31,
    Loop = 32,
    MLink = 34,
    MFile = 33,
    NameTooLong = 37,
    NoEnt = 44,
    NoMem = 48,
    NoSpc = 51,
    NotDir = 54,
    NotEmpty = 55,
    NotSock = 57,
    NotSup = 58,
    Overflow = 61,
    Perm = 63,
    RoFs = 69,
    SPipe = 70,
    XDev = 75,
    NotCapable = 76,
}

impl Errno {
    /// The number as a call returns it.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    /// The POSIX name: `ENOENT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E")?;
        let name = alloc::format!("{self:?}");
        f.write_str(&name.to_ascii_uppercase())
    }
}
