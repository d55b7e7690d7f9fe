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

fn call(w: &mut Wasi<World>, m: &mut Memory<'_>, input: &mut Input<'_>) -> Result<(), Stop> {
    let which = input.byte() % 44;
    let mut n = || number(input);
    match which {
        0 => w.args_get(m, n(), n()),
        1 => w.args_sizes_get(m, n(), n()),
        2 => w.clock_res_get(m, n(), n()),
        3 => w.clock_time_get(m, n(), 0, n()),
        4 => w.environ_get(m, n(), n()),
        5 => w.environ_sizes_get(m, n(), n()),
        6 => w.fd_close(m, n()),
        7 => w.fd_datasync(m, n()),
        8 => w.fd_fdstat_get(m, n(), n()),
        9 => w.fd_fdstat_set_flags(m, n(), n()),
        10 => w.fd_filestat_get(m, n(), n()),
        11 => w.fd_prestat_dir_name(m, n(), n(), n()),
        12 => w.fd_prestat_get(m, n(), n()),
        13 => w.fd_read(m, n(), n(), n(), n()),
        14 => w.fd_renumber(m, n(), n()),
        15 => w.fd_sync(m, n()),
        16 => w.fd_tell(m, n(), n()),
        17 => w.fd_write(m, n(), n(), n(), n()),
        18 => w.path_create_directory(m, n(), n(), n()),
        19 => w.path_filestat_get(m, n(), n(), n(), n(), n()),
        20 => w.path_link(m, n(), n(), n(), n(), n(), n(), n()),
        21 => w.path_readlink(m, n(), n(), n(), n(), n(), n()),
        22 => w.path_remove_directory(m, n(), n(), n()),
        23 => w.path_rename(m, n(), n(), n(), n(), n(), n()),
        24 => w.path_symlink(m, n(), n(), n(), n(), n()),
        25 => w.path_unlink_file(m, n(), n(), n()),
        26 => w.poll_oneoff(m, n(), n(), n(), n()),
        27 => w.proc_raise(m, n()),
        28 => w.random_get(m, n(), n()),
        29 => w.sched_yield(m),
        30 => w.sock_accept(m, n(), n(), n()),
        31 => w.sock_recv(m, n(), n(), n(), n(), n(), n()),
        32 => w.sock_send(m, n(), n(), n(), n(), n()),
        33 => w.sock_shutdown(m, n(), n()),
        which => {
            let (a, b, c, d, e) = (n(), n(), n(), n(), n());
            let (p, q) = (wide(input), wide(input));
            match which {
                34 => w.fd_advise(m, a, p, q, b),
                35 => w.fd_allocate(m, a, p, q),
                36 => w.fd_fdstat_set_rights(m, a, p, q),
                37 => w.fd_filestat_set_size(m, a, p),
                38 => w.fd_filestat_set_times(m, a, p, q, b),
                39 => w.fd_pread(m, a, b, c, p, d),
                40 => w.fd_pwrite(m, a, b, c, p, d),
                41 => w.fd_readdir(m, a, b, c, p, d),
                42 => w.fd_seek(m, a, p, b, c),
                _ => {
                    let how = Open { oflags: e, rights: p, inheriting: q, flags: number(input) };
                    w.path_open(m, a, b, c, d, how, number(input))
                }
            }
        }
    }
}
