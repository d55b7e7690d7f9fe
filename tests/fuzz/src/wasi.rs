//! What a Wasm module gives the WASI of its guest: addresses, lengths, lists of buffers, paths, flags, descriptors.

use crate::Input;
use warren_wasi::{
    Fs, Halt, Host, Memory, Open, ResponseTooLarge, Stop, Wasi,
    abi::FileType,
    fs::{NodeId, Quota},
};

/// Of the module's memory: small, so that its edges are near.
const MEMORY_BYTES: usize = 8 << 10;
const QUOTA_BYTES: u64 = 64 << 10;
const RESPONSE_BYTES: usize = 4 << 10;
const TMP: &str = "/tmp";
/// Most calls of one input.
const CALLS: usize = 64;
/// Deeper than any input makes them.
const DEPTH: usize = 4 * CALLS;

/// The module's surroundings, bounded as the real ones are.
#[derive(Debug, Default)]
struct World {
    now: u64,
    written: usize,
}

impl Host for World {
    fn wall_ns(&mut self) -> u64 {
        self.monotonic_ns()
    }

    fn monotonic_ns(&mut self) -> u64 {
        self.now = self.now.saturating_add(1);
        self.now
    }

    /// Whoever waits for a clock has waited long enough, whenever that is.
    fn pause(&mut self) {
        self.now = u64::MAX;
    }

    fn fill_random(&mut self, out: &mut [u8]) {
        out.fill(0x5a);
    }

    fn stdin(&self) -> &[u8] {
        b"an event of some length"
    }

    fn write_response(&mut self, bytes: &[u8]) -> Result<(), ResponseTooLarge> {
        self.written = self.written.saturating_add(bytes.len());
        if self.written > RESPONSE_BYTES { Err(ResponseTooLarge) } else { Ok(()) }
    }

    fn write_log(&mut self, _: &[u8]) {}
}

/// A module that makes these calls. Every one is answered; `/tmp` keeps to its quota, and once all in it is removed it holds
/// nothing: what a module opened, linked, renamed over or wrote is never charged for longer than it is there.
pub(crate) fn wasi(bytes: &[u8]) {
    let mut input = Input(bytes);
    let Ok(fs) = Fs::new(&[], Quota::new(QUOTA_BYTES, || u64::MAX)) else { return };
    let mut wasi = Wasi::new(World::default(), fs, vec!["program".into()], &[("HOME".into(), TMP.into())]);
    let mut memory = vec![0; MEMORY_BYTES];
    let given = usize::from(input.half()) % 1024;
    let (head, rest) = input.0.split_at(given.min(input.0.len()));
    memory[..head.len()].copy_from_slice(head);
    input.0 = rest;
    for _ in 0..CALLS {
        if input.is_empty() {
            break;
        }
        let answer = call(&mut wasi, &mut Memory::new(&mut memory), &mut input);
        assert!(!matches!(answer, Err(Stop::Halt(Halt::Exit(_)))));
        let quota = wasi.fs().quota();
        assert!(quota.used() <= quota.limit());
    }
    // The instance ends; another one removes what it left.
    wasi.begin_event();
    let Some((tmp, _)) = Fs::split_absolute(TMP) else { return };
    empty(wasi.fs(), tmp, DEPTH);
    assert_eq!(wasi.fs().quota().used(), 0, "/tmp is empty and charged for");
}

fn empty(fs: &mut Fs, folder: NodeId, depth: usize) {
    assert!(depth > 0, "folders go round in a circle");
    // `.` and `..` are the first two.
    let entries = |fs: &Fs| {
        let (mut cookie, mut found) = (0, None);
        while let Ok(Some(entry)) = fs.list(folder, cookie) {
            cookie = entry.cookie;
            if ![".", ".."].contains(&entry.name) {
                found = Some((entry.name.to_owned(), entry.filetype));
                break;
            }
        }
        found
    };
    while let Some((name, kind)) = entries(fs) {
        let removed = if kind == FileType::Directory {
            let below = fs.find(folder, &name, false);
            below.and_then(|below| {
                empty(fs, below, depth - 1);
                fs.remove_directory(folder, &name, 0)
            })
        } else {
            fs.unlink(folder, &name, 0)
        };
        assert_eq!(removed, Ok(()), "{name:?} is listed and cannot be removed");
    }
}

/// Small ones in a byte, for they are what descriptors, lengths and addresses mostly are; all others in five.
fn number(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        small @ 0..=0xef => small.into(),
        0xf0 => u32::try_from(MEMORY_BYTES).unwrap_or(u32::MAX),
        _ => input.word(),
    }
}

fn wide(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        small @ 0..=0xef => small.into(),
        // Every right.
        0xf0 => u64::MAX,
        0xf1 => QUOTA_BYTES,
        _ => input.long(),
    }
}

fn call(wasi: &mut Wasi<World>, mem: &mut Memory<'_>, input: &mut Input<'_>) -> Result<(), Stop> {
    let which = input.byte() % 44;
    let mut next = || number(input);
    match which {
        0 => wasi.args_get(mem, next(), next()),
        1 => wasi.args_sizes_get(mem, next(), next()),
        2 => wasi.clock_res_get(mem, next(), next()),
        3 => wasi.clock_time_get(mem, next(), 0, next()),
        4 => wasi.environ_get(mem, next(), next()),
        5 => wasi.environ_sizes_get(mem, next(), next()),
        6 => wasi.fd_close(mem, next()),
        7 => wasi.fd_datasync(mem, next()),
        8 => wasi.fd_fdstat_get(mem, next(), next()),
        9 => wasi.fd_fdstat_set_flags(mem, next(), next()),
        10 => wasi.fd_filestat_get(mem, next(), next()),
        11 => wasi.fd_prestat_dir_name(mem, next(), next(), next()),
        12 => wasi.fd_prestat_get(mem, next(), next()),
        13 => wasi.fd_read(mem, next(), next(), next(), next()),
        14 => wasi.fd_renumber(mem, next(), next()),
        15 => wasi.fd_sync(mem, next()),
        16 => wasi.fd_tell(mem, next(), next()),
        17 => wasi.fd_write(mem, next(), next(), next(), next()),
        18 => wasi.path_create_directory(mem, next(), next(), next()),
        19 => wasi.path_filestat_get(mem, next(), next(), next(), next(), next()),
        20 => wasi.path_link(mem, next(), next(), next(), next(), next(), next(), next()),
        21 => wasi.path_readlink(mem, next(), next(), next(), next(), next(), next()),
        22 => wasi.path_remove_directory(mem, next(), next(), next()),
        23 => wasi.path_rename(mem, next(), next(), next(), next(), next(), next()),
        24 => wasi.path_symlink(mem, next(), next(), next(), next(), next()),
        25 => wasi.path_unlink_file(mem, next(), next(), next()),
        26 => wasi.poll_oneoff(mem, next(), next(), next(), next()),
        27 => wasi.proc_raise(mem, next()),
        28 => wasi.random_get(mem, next(), next()),
        29 => wasi.sched_yield(mem),
        30 => wasi.sock_accept(mem, next(), next(), next()),
        31 => wasi.sock_recv(mem, next(), next(), next(), next(), next(), next()),
        32 => wasi.sock_send(mem, next(), next(), next(), next(), next()),
        33 => wasi.sock_shutdown(mem, next(), next()),
        which => {
            let (a, b, c, d, oflags) = (next(), next(), next(), next(), next());
            let (first, second) = (wide(input), wide(input));
            match which {
                34 => wasi.fd_advise(mem, a, first, second, b),
                35 => wasi.fd_allocate(mem, a, first, second),
                36 => wasi.fd_fdstat_set_rights(mem, a, first, second),
                37 => wasi.fd_filestat_set_size(mem, a, first),
                38 => wasi.fd_filestat_set_times(mem, a, first, second, b),
                39 => wasi.fd_pread(mem, a, b, c, first, d),
                40 => wasi.fd_pwrite(mem, a, b, c, first, d),
                41 => wasi.fd_readdir(mem, a, b, c, first, d),
                42 => wasi.fd_seek(mem, a, first, b, c),
                _ => {
                    let how = Open { oflags, rights: first, inheriting: second, flags: number(input) };
                    wasi.path_open(mem, a, b, c, d, how, number(input))
                }
            }
        }
    }
}
