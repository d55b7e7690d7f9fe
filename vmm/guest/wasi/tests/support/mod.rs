//! A function without a machine: a `Wasi` over a small linear memory, and one method for each thing a test does.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by test files, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::new_without_default, reason = "test code")]

use warren_wasi::{
    Errno, Fs, Halt, Host, Memory, Open, ResponseTooLarge, Stop, Wasi,
    abi::{FileType, oflags, rights},
    fs::Quota,
};

/// `/var/task` and `/tmp`, as every instance starts.
pub const TASK: u32 = 3;
pub const TMP: u32 = 4;
/// Where the helpers put paths, buffers and results.
const PATH: u32 = 0x1000;
const OTHER: u32 = 0x3000;
const DATA: u32 = 0x1_0000;
const IOV: u32 = 0x100;
const OUT: u32 = 0x200;
pub const MEMORY: usize = 1 << 20;

/// The world around a test: a clock that ticks a microsecond a look.
#[derive(Debug, Default)]
pub struct World {
    pub now: u64,
    pub pauses: u64,
    pub event: Vec<u8>,
    pub response: Vec<u8>,
    pub response_max: usize,
    pub log: Vec<u8>,
}

impl Host for World {
    fn wall_ns(&mut self) -> u64 {
        self.now += 1000;
        1_700_000_000_000_000_000 + self.now
    }
    fn monotonic_ns(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }
    fn pause(&mut self) {
        self.pauses += 1;
    }
    fn fill_random(&mut self, out: &mut [u8]) {
        out.fill(0x5A);
    }
    fn stdin(&self) -> &[u8] {
        &self.event
    }
    fn write_response(&mut self, bytes: &[u8]) -> Result<(), ResponseTooLarge> {
        if self.response.len() + bytes.len() > self.response_max {
            return Err(ResponseTooLarge);
        }
        self.response.extend_from_slice(bytes);
        Ok(())
    }
    fn write_log(&mut self, bytes: &[u8]) {
        self.log.extend_from_slice(bytes);
    }
}

/// One instance.
pub struct Guest {
    pub wasi: Wasi<World>,
    pub bytes: Vec<u8>,
}

/// What a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub next: u64,
    pub inode: u64,
    pub filetype: u8,
    pub name: String,
}

/// The fields of a `filestat` that tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub filetype: u8,
    pub nlink: u64,
    pub size: u64,
    pub atim: u64,
    pub mtim: u64,
    pub ctim: u64,
}

pub const DIRECTORY: u8 = FileType::Directory as u8;
pub const REGULAR: u8 = FileType::RegularFile as u8;
pub const LINK: u8 = FileType::SymbolicLink as u8;

/// Everything `path_open` takes, with the usual values.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub follow: bool,
    pub oflags: u32,
    pub rights: u64,
    pub flags: u32,
}

/// Read and write, and all that belongs to it.
pub const READ_WRITE: How = How { follow: false, oflags: 0, rights: rights::FILE, flags: 0 };
pub const CREATE: How = How { oflags: oflags::CREAT, ..READ_WRITE };
/// No right at all.
pub const BARE: How = How { rights: 0, ..READ_WRITE };

impl Guest {
    pub fn new() -> Self {
        Self::with(&[], 64 << 20)
    }

    pub fn with(archive: &[u8], quota: u64) -> Self {
        let archive = Box::leak(archive.to_vec().into_boxed_slice());
        let fs = Fs::new(archive, Quota::new(quota, || u64::MAX)).unwrap();
        let world = World { response_max: 1 << 20, ..World::default() };
        let env = [("HOME".to_owned(), "/tmp".to_owned()), ("EMPTY".to_owned(), String::new())];
        let wasi = Wasi::new(world, fs, vec!["prog".into(), "two words".into()], &env);
        Self { wasi, bytes: vec![0; MEMORY] }
    }

    /// Calls with the memory.
    pub fn call(
        &mut self,
        call: impl FnOnce(&mut Wasi<World>, &mut Memory<'_>) -> Result<(), Stop>,
    ) -> Result<(), Errno> {
        match call(&mut self.wasi, &mut Memory::new(&mut self.bytes)) {
            Ok(()) => Ok(()),
            Err(Stop::Errno(errno)) => Err(errno),
            Err(Stop::Halt(halt)) => panic!("halted: {halt:?}"),
        }
    }

    pub fn halted(
        &mut self,
        call: impl FnOnce(&mut Wasi<World>, &mut Memory<'_>) -> Result<(), Stop>,
    ) -> Option<Halt> {
        match call(&mut self.wasi, &mut Memory::new(&mut self.bytes)) {
            Err(Stop::Halt(halt)) => Some(halt),
            _ => None,
        }
    }

    pub fn put(&mut self, at: u32, bytes: &[u8]) -> (u32, u32) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
        (at, u32::try_from(bytes.len()).unwrap())
    }

    fn path(&mut self, text: &str) -> (u32, u32) {
        self.put(PATH, text.as_bytes())
    }

    fn other(&mut self, text: &str) -> (u32, u32) {
        self.put(OTHER, text.as_bytes())
    }

    pub fn u32_at(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.bytes[at as usize..][..4].try_into().unwrap())
    }

    pub fn u64_at(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.bytes[at as usize..][..8].try_into().unwrap())
    }

    pub fn open(&mut self, dir: u32, path: &str, how: How) -> Result<u32, Errno> {
        let (at, len) = self.path(path);
        let open = Open { oflags: how.oflags, rights: how.rights, inheriting: u64::MAX, flags: how.flags };
        self.call(|w, m| w.path_open(m, dir, u32::from(how.follow), at, len, open, OUT))?;
        Ok(self.u32_at(OUT))
    }

    /// Makes a file with these bytes and closes it.
    pub fn file(&mut self, path: &str, bytes: &[u8]) {
        let fd = self.open(TMP, path, CREATE).unwrap();
        assert_eq!(self.write(fd, bytes), Ok(bytes.len()));
        assert_eq!(self.close(fd), Ok(()));
    }

    pub fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.call(|w, m| w.fd_close(m, fd))
    }

    fn iov(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap();
        self.put(IOV, &[DATA.to_le_bytes(), len.to_le_bytes()].concat());
    }

    pub fn write(&mut self, fd: u32, bytes: &[u8]) -> Result<usize, Errno> {
        self.put(DATA, bytes);
        self.iov(bytes.len());
        self.call(|w, m| w.fd_write(m, fd, IOV, 1, OUT))?;
        Ok(self.u32_at(OUT) as usize)
    }

    pub fn pwrite(&mut self, fd: u32, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        self.put(DATA, bytes);
        self.iov(bytes.len());
        self.call(|w, m| w.fd_pwrite(m, fd, IOV, 1, offset, OUT))?;
        Ok(self.u32_at(OUT) as usize)
    }

    pub fn read(&mut self, fd: u32, len: usize) -> Result<Vec<u8>, Errno> {
        self.iov(len);
        self.call(|w, m| w.fd_read(m, fd, IOV, 1, OUT))?;
        Ok(self.bytes[DATA as usize..][..self.u32_at(OUT) as usize].to_vec())
    }

    pub fn pread(&mut self, fd: u32, len: usize, offset: u64) -> Result<Vec<u8>, Errno> {
        self.iov(len);
        self.call(|w, m| w.fd_pread(m, fd, IOV, 1, offset, OUT))?;
        Ok(self.bytes[DATA as usize..][..self.u32_at(OUT) as usize].to_vec())
    }

    pub fn seek(&mut self, fd: u32, delta: i64, whence: u32) -> Result<u64, Errno> {
        self.call(|w, m| w.fd_seek(m, fd, delta.cast_unsigned(), whence, OUT))?;
        Ok(self.u64_at(OUT))
    }

    pub fn tell(&mut self, fd: u32) -> Result<u64, Errno> {
        self.call(|w, m| w.fd_tell(m, fd, OUT))?;
        Ok(self.u64_at(OUT))
    }

    fn stat_out(&self) -> Stat {
        let word = |index: u32| self.u64_at(OUT + 8 * index);
        Stat {
            dev: word(0),
            ino: word(1),
            filetype: self.bytes[OUT as usize + 16],
            nlink: word(3),
            size: word(4),
            atim: word(5),
            mtim: word(6),
            ctim: word(7),
        }
    }

    pub fn stat(&mut self, fd: u32) -> Result<Stat, Errno> {
        self.call(|w, m| w.fd_filestat_get(m, fd, OUT))?;
        Ok(self.stat_out())
    }

    pub fn stat_path(&mut self, dir: u32, path: &str, follow: bool) -> Result<Stat, Errno> {
        let (at, len) = self.path(path);
        self.call(|w, m| w.path_filestat_get(m, dir, u32::from(follow), at, len, OUT))?;
        Ok(self.stat_out())
    }

    /// File type, flags, rights, inheriting rights.
    pub fn fdstat(&mut self, fd: u32) -> Result<(u8, u16, u64, u64), Errno> {
        self.call(|w, m| w.fd_fdstat_get(m, fd, OUT))?;
        let head = self.u64_at(OUT).to_le_bytes();
        Ok((head[0], u16::from_le_bytes([head[2], head[3]]), self.u64_at(OUT + 8), self.u64_at(OUT + 16)))
    }

    pub fn mkdir(&mut self, dir: u32, path: &str) -> Result<(), Errno> {
        let (at, len) = self.path(path);
        self.call(|w, m| w.path_create_directory(m, dir, at, len))
    }

    pub fn rmdir(&mut self, dir: u32, path: &str) -> Result<(), Errno> {
        let (at, len) = self.path(path);
        self.call(|w, m| w.path_remove_directory(m, dir, at, len))
    }

    pub fn unlink(&mut self, dir: u32, path: &str) -> Result<(), Errno> {
        let (at, len) = self.path(path);
        self.call(|w, m| w.path_unlink_file(m, dir, at, len))
    }

    pub fn rename(&mut self, dir: u32, from: &str, to_dir: u32, to: &str) -> Result<(), Errno> {
        let ((a, a_len), (b, b_len)) = (self.path(from), self.other(to));
        self.call(|w, m| w.path_rename(m, dir, a, a_len, to_dir, b, b_len))
    }

    pub fn link(&mut self, dir: u32, from: &str, to_dir: u32, to: &str) -> Result<(), Errno> {
        let ((a, a_len), (b, b_len)) = (self.path(from), self.other(to));
        self.call(|w, m| w.path_link(m, dir, 0, a, a_len, to_dir, b, b_len))
    }

    pub fn symlink(&mut self, target: &str, dir: u32, path: &str) -> Result<(), Errno> {
        let ((a, a_len), (b, b_len)) = (self.path(target), self.other(path));
        self.call(|w, m| w.path_symlink(m, a, a_len, dir, b, b_len))
    }

    pub fn readlink(&mut self, dir: u32, path: &str, room: u32) -> Result<Vec<u8>, Errno> {
        let (at, len) = self.path(path);
        self.call(|w, m| w.path_readlink(m, dir, at, len, DATA, room, OUT))?;
        Ok(self.bytes[DATA as usize..][..self.u32_at(OUT) as usize].to_vec())
    }

    /// One call: whole entries, and whether the end was reached.
    pub fn readdir(&mut self, fd: u32, room: u32, cookie: u64) -> Result<(Vec<Entry>, bool), Errno> {
        self.call(|w, m| w.fd_readdir(m, fd, DATA, room, cookie, OUT))?;
        let used = self.u32_at(OUT);
        let mut rest = &self.bytes[DATA as usize..][..used as usize];
        let mut entries = Vec::new();
        while rest.len() >= 24 {
            let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
            let name_len = usize::try_from(word(16) & 0xFFFF_FFFF).unwrap();
            let Some(name) = rest.get(24..24 + name_len) else { break };
            entries.push(Entry {
                next: word(0),
                inode: word(8),
                filetype: rest[20],
                name: String::from_utf8(name.to_vec()).unwrap(),
            });
            rest = &rest[24 + name_len..];
        }
        Ok((entries, used < room))
    }

    /// Every entry, through a small buffer.
    pub fn list(&mut self, fd: u32) -> Vec<Entry> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let (entries, end) = self.readdir(fd, 300, cookie).unwrap();
            cookie = entries.last().map_or(cookie, |entry| entry.next);
            all.extend(entries);
            if end {
                return all;
            }
        }
    }
}
