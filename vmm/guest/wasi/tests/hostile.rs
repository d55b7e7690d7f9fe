//! Every function with every kind of number: an answer, never a panic, and memory bounded.
#![allow(missing_docs, reason = "tests")]

mod support;

use proptest::prelude::*;
use support::*;
use warren_wasi::{Open, Stop, abi::rights};

/// Numbers as a hostile function chooses them.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..12_u32,
        Just(0x1000),
        Just(0x2000),
        (0..1_u32 << 20),
        any::<u32>(),
        Just(u32::MAX),
        Just(1 << 20)
    ]
}

fn wide() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..100_u64,
        any::<u64>(),
        Just(u64::MAX),
        Just(rights::FILE),
        Just(rights::DIRECTORY),
        Just(1 << 63)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn anything_is_answered(
        calls in prop::collection::vec((0..45_u8, prop::array::uniform8(number()), prop::array::uniform2(wide())), 1..12),
        noise in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let mut guest = Guest::with(&[], 1 << 20);
        guest.wasi.host.event = vec![1; 100];
        guest.file("file", b"abc");
        guest.mkdir(TMP, "dir").unwrap();
        let held = [
            guest.open(TMP, "file", READ_WRITE).unwrap(),
            guest.open(TMP, "dir", How { rights: rights::DIRECTORY, ..READ_WRITE }).unwrap_or(0),
        ];
        prop_assert!(held[0] > 4);
        guest.put(0x2000, &noise);
        guest.put(0x1000, b"dir/file/../x\0");
        for (which, [a, b, c, d, e, f, g, h], [p, q]) in calls {
            let answer = {
                let mut memory = warren_wasi::Memory::new(&mut guest.bytes);
                let (w, m) = (&mut guest.wasi, &mut memory);
                match which {
                    0 => w.args_get(m, a, b),
                    1 => w.args_sizes_get(m, a, b),
                    2 => w.clock_res_get(m, a, b),
                    3 => w.clock_time_get(m, a, p, b),
                    4 => w.environ_get(m, a, b),
                    5 => w.environ_sizes_get(m, a, b),
                    6 => w.fd_advise(m, a, p, q, b),
                    7 => w.fd_allocate(m, a, p, q),
                    8 => w.fd_close(m, a),
                    9 => w.fd_datasync(m, a),
                    10 => w.fd_fdstat_get(m, a, b),
                    11 => w.fd_fdstat_set_flags(m, a, b),
                    12 => w.fd_fdstat_set_rights(m, a, p, q),
                    13 => w.fd_filestat_get(m, a, b),
                    14 => w.fd_filestat_set_size(m, a, p),
                    15 => w.fd_filestat_set_times(m, a, p, q, b),
                    16 => w.fd_pread(m, a, b, c, p, d),
                    17 => w.fd_prestat_dir_name(m, a, b, c),
                    18 => w.fd_prestat_get(m, a, b),
                    19 => w.fd_pwrite(m, a, b, c, p, d),
                    20 => w.fd_read(m, a, b, c, d),
                    21 => w.fd_readdir(m, a, b, c, p, d),
                    22 => w.fd_renumber(m, a, b),
                    23 => w.fd_seek(m, a, p, b, c),
                    24 => w.fd_sync(m, a),
                    25 => w.fd_tell(m, a, b),
                    26 => w.fd_write(m, a, b, c, d),
                    27 => w.path_create_directory(m, a, b, c),
                    28 => w.path_filestat_get(m, a, b, c, d, e),
                    29 => w.path_filestat_set_times(m, a, b, c, d, p, q, e),
                    30 => w.path_link(m, a, b, c, d, e, f, g),
                    31 => w.path_open(m, a, b, c, d, Open { oflags: e, rights: p, inheriting: q, flags: f }, h),
                    32 => w.path_readlink(m, a, b, c, d, e, f),
                    33 => w.path_remove_directory(m, a, b, c),
                    34 => w.path_rename(m, a, b, c, d, e, f),
                    35 => w.path_symlink(m, a, b, c, d, e),
                    36 => w.path_unlink_file(m, a, b, c),
                    37 => w.proc_raise(m, a),
                    38 => w.random_get(m, a, b),
                    39 => w.sched_yield(m),
                    40 => w.sock_accept(m, a, b, c),
                    41 => w.sock_recv(m, a, b, c, d, e, f),
                    42 => w.sock_send(m, a, b, c, d, e),
                    43 => w.sock_shutdown(m, a, b),
                    // Few subscriptions, or the clocks in the noise are waited for too long.
                    _ => w.poll_oneoff(m, 0x8000, b, c.min(4), d),
                }
            };
            prop_assert!(!matches!(answer, Err(Stop::Halt(warren_wasi::Halt::Exit(_)))));
            let quota = guest.wasi.fs().quota();
            prop_assert!(quota.used() <= quota.limit());
        }
        guest.wasi.begin_event();
    }
}
