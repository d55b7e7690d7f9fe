//! The interface's numbers and records, as the specification lays them out.

/// A descriptor.
pub type Fd = u32;
/// An answer: a value, or the interface's error number.
pub type Answer<T> = Result<T, Errno>;

/// An error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u16);

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

pub const BADF: Errno = Errno(8);
pub const EXIST: Errno = Errno(20);
pub const INVAL: Errno = Errno(28);
pub const ISDIR: Errno = Errno(31);
pub const LOOP: Errno = Errno(32);
pub const NAMETOOLONG: Errno = Errno(37);
pub const NOENT: Errno = Errno(44);
pub const NOTDIR: Errno = Errno(54);
pub const NOTEMPTY: Errno = Errno(55);
pub const NOTSOCK: Errno = Errno(57);
pub const PERM: Errno = Errno(63);
pub const NOTCAPABLE: Errno = Errno(76);

/// The preopens of every instance.
pub const TASK: Fd = 3;
pub const TMP: Fd = 4;

pub mod rights {
    pub const READ: u64 = 1 << 1;
    pub const SEEK: u64 = 1 << 2;
    pub const SET_FLAGS: u64 = 1 << 3;
    pub const TELL: u64 = 1 << 5;
    pub const WRITE: u64 = 1 << 6;
    pub const ADVISE: u64 = 1 << 7;
    pub const ALLOCATE: u64 = 1 << 8;
    pub const PATH_SET_SIZE: u64 = 1 << 19;
    pub const STAT: u64 = 1 << 21;
    pub const SET_SIZE: u64 = 1 << 22;
    pub const SET_TIMES: u64 = 1 << 23;
    pub const POLL: u64 = 1 << 27;
    /// Bits 9 to 13, 15 to 20 and 24 to 26: everything with a path.
    pub const PATHS: u64 = 0x71F_BE00;
    pub const READDIR: u64 = 1 << 14;
}

pub const APPEND: u16 = 1;
pub const NONBLOCK: u16 = 4;
pub const SYNC: u16 = 16;

pub const CREAT: u16 = 1;
pub const OPEN_DIRECTORY: u16 = 2;
pub const EXCL: u16 = 4;
pub const TRUNC: u16 = 8;

pub const TYPE_DIRECTORY: u8 = 3;
pub const TYPE_FILE: u8 = 4;
pub const TYPE_LINK: u8 = 7;

pub const SET_ATIM: u16 = 1;
pub const ATIM_NOW: u16 = 2;
pub const SET_MTIM: u16 = 4;
pub const MTIM_NOW: u16 = 8;

/// What `path_open` takes beside the path.
#[derive(Clone, Copy)]
pub struct How {
    pub follow: u32,
    pub oflags: u16,
    pub rights: u64,
    pub inheriting: u64,
    pub flags: u16,
}

/// No flag, no right.
pub const BARE: How = How { follow: 0, oflags: 0, rights: 0, inheriting: 0, flags: 0 };
/// A directory with what can be done in one, and everything to pass on.
pub const DIRECTORY: How = How {
    oflags: OPEN_DIRECTORY,
    rights: rights::PATHS | rights::READDIR | rights::STAT | rights::SET_TIMES,
    inheriting: u64::MAX,
    ..BARE
};

pub const fn bare(oflags: u16) -> How {
    How { oflags, ..BARE }
}

pub const fn able(oflags: u16, rights: u64) -> How {
    How { oflags, rights, ..BARE }
}

pub const fn follow(oflags: u16) -> How {
    How { follow: 1, oflags, ..BARE }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileStat {
    pub dev: u64,
    pub ino: u64,
    pub filetype: u64,
    pub nlink: u64,
    pub size: u64,
    pub atim: u64,
    pub mtim: u64,
    pub ctim: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FdStat {
    pub filetype: u8,
    pub flags: u16,
    pub rights: u64,
    pub inheriting: u64,
}

/// A `subscription` of a clock or a descriptor.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Subscription {
    pub userdata: u64,
    pub tag: u64,
    /// A clock's number, or a descriptor.
    pub subject: u64,
    pub timeout: u64,
    pub precision: u64,
    pub flags: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    pub userdata: u64,
    pub error: u16,
    pub tag: u8,
    pub bytes: u64,
    pub flags: u64,
}
