//! Descriptors, stdio, arguments, clocks, polling, limits: what is not a path.
#![allow(clippy::missing_panics_doc, missing_docs, reason = "tests")]

mod support;

use support::*;
use warren_wasi::{Errno, Halt, Wasi, abi::rights};

#[test]
fn arguments_and_environment() {
    let mut guest = Guest::new();
    assert_eq!(guest.call(|w, m| w.args_sizes_get(m, 0, 4)), Ok(()));
    assert_eq!((guest.u32_at(0), guest.u32_at(4)), (2, 15));
    assert_eq!(guest.call(|w, m| w.args_get(m, 0x100, 0x200)), Ok(()));
    assert_eq!((guest.u32_at(0x100), guest.u32_at(0x104)), (0x200, 0x205));
    assert_eq!(guest.bytes[0x200..0x20F], *b"prog\0two words\0");
    assert_eq!(guest.call(|w, m| w.environ_sizes_get(m, 0, 4)), Ok(()));
    assert_eq!((guest.u32_at(0), guest.u32_at(4)), (2, 17));
    assert_eq!(guest.call(|w, m| w.environ_get(m, 0x100, 0x200)), Ok(()));
    assert_eq!(guest.bytes[0x200..0x211], *b"HOME=/tmp\0EMPTY=\0");
    let end = u32::try_from(MEMORY).unwrap();
    assert_eq!(guest.call(|w, m| w.args_get(m, 0x100, end - 8)), Err(Errno::Fault));
}

#[test]
fn stdio_streams() {
    let mut guest = Guest::new();
    guest.wasi.host.event = b"the event".to_vec();
    assert_eq!(guest.read(0, 4), Ok(b"the ".to_vec()));
    assert_eq!(guest.read(0, 99), Ok(b"event".to_vec()));
    assert_eq!(guest.read(0, 99), Ok(vec![]));
    assert_eq!(guest.write(1, b"response"), Ok(8));
    assert_eq!(guest.write(2, b"log"), Ok(3));
    assert_eq!(
        (guest.wasi.host.response.as_slice(), guest.wasi.host.log.as_slice()),
        (&b"response"[..], &b"log"[..])
    );
    assert_eq!(guest.write(0, b"x"), Err(Errno::BadF));
    assert_eq!(guest.read(1, 1), Err(Errno::BadF));
    for fd in 0..3 {
        assert_eq!(guest.seek(fd, 0, 1), Err(Errno::SPipe));
        assert_eq!(guest.fdstat(fd).unwrap().0, 0, "neither file nor terminal");
        assert_eq!(guest.call(|w, m| w.sock_shutdown(m, fd, 0)), Err(Errno::NotSock));
        assert_eq!(guest.call(|w, m| w.fd_prestat_get(m, fd, 0)), Err(Errno::BadF));
    }
    assert_eq!(guest.call(|w, m| w.sock_accept(m, 77, 0, 0)), Err(Errno::BadF));
}

#[test]
fn a_response_that_outgrows_its_limit_ends_the_instance() {
    let mut guest = Guest::new();
    guest.wasi.host.response_max = 10;
    assert_eq!(guest.write(1, b"12345678"), Ok(8));
    guest.put(0x100, &[0x1_0000_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat());
    let halt = guest.halted(|w, m| w.fd_write(m, 1, 0x100, 1, 0x200));
    assert_eq!(halt, Some(Halt::ResponseTooLarge));
    assert_eq!(guest.halted(|w, _| w.proc_exit(7)), Some(Halt::Exit(7)));
}

#[test]
fn preopens() {
    let mut guest = Guest::new();
    for (fd, name) in [(TASK, "/var/task"), (TMP, "/tmp")] {
        assert_eq!(guest.call(|w, m| w.fd_prestat_get(m, fd, 0)), Ok(()));
        assert_eq!((guest.u32_at(0), guest.u32_at(4) as usize), (0, name.len()));
        assert_eq!(guest.call(|w, m| w.fd_prestat_dir_name(m, fd, 0x100, 0)), Err(Errno::NameTooLong));
        assert_eq!(guest.call(|w, m| w.fd_prestat_dir_name(m, fd, 0x100, 50)), Ok(()));
        assert_eq!(&guest.bytes[0x100..0x100 + name.len()], name.as_bytes());
    }
    assert_eq!(guest.call(|w, m| w.fd_prestat_get(m, 5, 0)), Err(Errno::BadF));
    assert_eq!(guest.close(TASK), Ok(()));
    assert_eq!(guest.close(TASK), Err(Errno::BadF));
    assert_eq!(guest.fdstat(TMP).unwrap().0, DIRECTORY);
    guest.wasi.begin_event();
    assert_eq!(guest.fdstat(TASK).unwrap().0, DIRECTORY);
}

#[test]
fn renumbering() {
    let mut guest = Guest::new();
    let (a, b) = (guest.open(TMP, "a", CREATE).unwrap(), guest.open(TMP, "b", CREATE).unwrap());
    let inode = guest.stat(a).unwrap().ino;
    assert_eq!(guest.call(|w, m| w.fd_renumber(m, a, b)), Ok(()));
    assert_eq!(guest.close(a), Err(Errno::BadF));
    assert_eq!(guest.stat(b).unwrap().ino, inode);
    assert_eq!(guest.call(|w, m| w.fd_renumber(m, b, a)), Err(Errno::BadF));
    assert_eq!(guest.call(|w, m| w.fd_renumber(m, b, b)), Ok(()));
    // stdout leads into a file, then over a preopen.
    assert_eq!(guest.call(|w, m| w.fd_renumber(m, b, 1)), Ok(()));
    assert_eq!(guest.write(1, b"into the file"), Ok(13));
    assert!(guest.wasi.host.response.is_empty());
    assert_eq!(guest.call(|w, m| w.fd_renumber(m, TMP, TASK)), Ok(()));
    assert_eq!(guest.stat_path(TASK, "a", false).unwrap().size, 13);
}

#[test]
fn descriptors_are_bounded_and_the_lowest_is_taken() {
    let mut guest = Guest::new();
    guest.file("file", b"");
    let mut opened = Vec::new();
    let refusal = loop {
        match guest.open(TMP, "file", READ_WRITE) {
            Ok(fd) => opened.push(fd),
            Err(errno) => break errno,
        }
    };
    assert_eq!((refusal, opened.len()), (Errno::MFile, 1024 - 5));
    assert_eq!(guest.close(100), Ok(()));
    assert_eq!(guest.open(TMP, "file", READ_WRITE), Ok(100));
}

#[test]
fn clocks_and_randomness() {
    let mut guest = Guest::new();
    for (clock, expect) in [(0, Ok(())), (1, Ok(())), (2, Err(Errno::NotSup)), (9, Err(Errno::Inval))] {
        assert_eq!(guest.call(|w, m| w.clock_time_get(m, clock, 0, 8)), expect, "{clock}");
        assert_eq!(guest.call(|w, m| w.clock_res_get(m, clock, 16)), expect, "{clock}");
    }
    assert_eq!(guest.u64_at(16), 1);
    assert_eq!(guest.call(|w, m| w.random_get(m, 0, 64)), Ok(()));
    assert_eq!(guest.bytes[..64], [0x5A; 64]);
    assert_eq!(guest.call(|w, m| w.random_get(m, 1, 1 << 20)), Err(Errno::Fault));
    assert_eq!(guest.call(Wasi::sched_yield), Ok(()));
    assert_eq!(guest.call(|w, m| w.proc_raise(m, 9)), Err(Errno::NotSup));
}

/// A subscription: user data, tag, and two words of its kind.
fn subscription(userdata: u64, tag: u8, first: u64, timeout: u64, flags: u16) -> Vec<u8> {
    let words = [userdata, tag.into(), first, timeout, 0, flags.into()];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn polling() {
    let mut guest = Guest::new();
    let mut poll = |subscriptions: &[Vec<u8>]| {
        guest.put(0x1000, &subscriptions.concat());
        let count = u32::try_from(subscriptions.len()).unwrap();
        guest.call(|w, m| w.poll_oneoff(m, 0x1000, 0x3000, count, 0x500))?;
        let events = (0..guest.u32_at(0x500)).map(|index| {
            let at = 0x3000 + 32 * index;
            (guest.u64_at(at), guest.u32_at(at + 8) & 0xFFFF, guest.bytes[at as usize + 10])
        });
        Ok::<Vec<_>, Errno>(events.collect())
    };
    assert_eq!(poll(&[]), Err(Errno::Inval));
    // Only a clock: waits for it.
    assert_eq!(poll(&[subscription(5, 0, 1, 50_000, 0)]), Ok(vec![(5, 0, 0)]));
    // Streams are ready at once, so the clock does not fire.
    let streams =
        [subscription(1, 0, 1, 1 << 60, 0), subscription(2, 1, 0, 0, 0), subscription(3, 2, 1, 0, 0)];
    assert_eq!(poll(&streams), Ok(vec![(2, 0, 1), (3, 0, 2)]));
    assert_eq!(poll(&[subscription(4, 1, 99, 0, 0)]), Ok(vec![(4, Errno::BadF as u32, 1)]));
    assert_eq!(poll(&[subscription(4, 2, 0, 0, 0)]), Ok(vec![(4, Errno::NotCapable as u32, 2)]));
    assert_eq!(poll(&[subscription(4, 9, 0, 0, 0)]), Err(Errno::Inval));
    assert_eq!(poll(&[subscription(4, 0, 3, 0, 0)]), Ok(vec![(4, Errno::NotSup as u32, 0)]));
    // An absolute time that has passed; of two clocks the earlier.
    assert_eq!(poll(&[subscription(6, 0, 1, 1, 1)]), Ok(vec![(6, 0, 0)]));
    let two = [subscription(7, 0, 1, 1 << 50, 0), subscription(8, 0, 0, 20_000, 0)];
    assert_eq!(poll(&two), Ok(vec![(8, 0, 0)]));
    assert!(guest.wasi.host.pauses > 0);
    assert_eq!(guest.call(|w, m| w.poll_oneoff(m, 0, 0, u32::MAX, 0)), Err(Errno::Fault));
}

#[test]
fn tmp_is_bounded_in_bytes_and_in_entries() {
    let mut guest = Guest::with(&[], 1 << 20);
    let fd = guest.open(TMP, "big", CREATE).unwrap();
    let mut written = 0;
    let refusal = loop {
        match guest.write(fd, &vec![1; 64 << 10]) {
            Ok(len) => written += len,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refusal, Errno::NoSpc);
    assert!((900 << 10..1 << 20).contains(&written), "{written}");
    assert_eq!(guest.pwrite(fd, &[1], 1 << 30), Err(Errno::FBig));
    assert_eq!(guest.close(fd), Ok(()));
    assert_eq!(guest.unlink(TMP, "big"), Ok(()));
    let mut count = 0;
    let refusal = loop {
        match guest.mkdir(TMP, &format!("d{count}")) {
            Ok(()) => count += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refusal, Errno::NoSpc);
    assert!((1000..2048).contains(&count), "{count}");
    assert_eq!(guest.symlink("x", TMP, "link"), Err(Errno::NoSpc));
    assert_eq!(guest.open(TMP, "file", CREATE), Err(Errno::NoSpc));
    assert_eq!(guest.rename(TMP, "d0", TMP, "a longer name than before"), Err(Errno::NoSpc));
    assert!(guest.open(TMP, "d0", BARE).is_ok(), "a refused rename leaves the name");
    for index in 0..count {
        assert_eq!(guest.rmdir(TMP, &format!("d{index}")), Ok(()));
    }
    assert_eq!(guest.wasi.fs().quota().used(), 0);
}

#[test]
fn rights_of_stdio() {
    let mut guest = Guest::new();
    let (_, _, base, _) = guest.fdstat(1).unwrap();
    assert_eq!(base & (rights::FD_WRITE | rights::FD_READ | rights::FD_SEEK), rights::FD_WRITE);
}
