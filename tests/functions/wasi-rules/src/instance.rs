//! Descriptors, stdio, arguments, environment, clocks, randomness, polling.

use crate::{Case, Verdict, abi::*, get, is};

pub const CASES: &[Case] = &[
    ("rust/big_random_buf", much_randomness),
    ("rust/clock_time_get", time_goes_on),
    ("rust/close_preopen", a_preopen_can_be_closed),
    ("rust/isatty", a_file_is_no_terminal),
    ("rust/overwrite_preopen", a_preopen_can_be_replaced),
    ("rust/poll_oneoff_stdio", streams_are_ready),
    ("rust/renumber", descriptors_move),
    ("rust/sched_yield", giving_way),
    ("rust/stdio", streams_move),
    ("c/clock_getres-monotonic", the_monotonic_clocks_grain),
    ("c/clock_getres-realtime", the_wall_clocks_grain),
    ("c/clock_gettime-monotonic", the_monotonic_clock_moves),
    ("c/clock_gettime-realtime", the_wall_clock_is_read),
    ("c/sock_shutdown-invalid_fd", no_descriptor_no_socket),
    ("c/sock_shutdown-not_sock", streams_are_no_sockets),
    ("assemblyscript/args_get-multiple-arguments", arguments_come_whole),
    ("assemblyscript/args_sizes_get-multiple-arguments", arguments_are_measured),
    ("assemblyscript/args_sizes_get-no-arguments", no_arguments),
    ("assemblyscript/environ_sizes_get-no-variables", no_variables),
    ("assemblyscript/environ_get-multiple-variables", variables_come_whole),
    ("assemblyscript/environ_sizes_get-multiple-variables", variables_are_measured),
    ("assemblyscript/fd_write-to-invalid-fd", nothing_is_written_nowhere),
    ("assemblyscript/fd_write-to-stdout", stdout_takes_bytes),
    ("assemblyscript/proc_exit-failure", exit_with_33),
    ("assemblyscript/proc_exit-success", exit_with_0),
    ("assemblyscript/random_get-non-zero-length", some_randomness),
    ("assemblyscript/random_get-zero-length", no_randomness),
];

fn much_randomness(_: Fd) -> Verdict {
    let mut buffer = vec![0; 64 << 10];
    get!(random(&mut buffer));
    // Every quarter has changed; that one would stay zero by chance has no likelihood worth a name.
    is!(buffer.chunks(16 << 10).all(|part| part.iter().any(|byte| *byte != 0)), true);
    Ok(())
}

fn time_goes_on(_: Fd) -> Verdict {
    get!(time(1, 1));
    let first = get!(time(1, 0));
    is!(first <= get!(time(1, 0)), true);
    Ok(())
}

fn a_preopen_can_be_closed(dir: Fd) -> Verdict {
    get!(close(TASK));
    is!(filetype(dir), Ok(TYPE_DIRECTORY));
    is!(fdstat(TASK), Err(BADF));
    is!(close(TASK), Err(BADF));
    Ok(())
}

fn a_file_is_no_terminal(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, rights::SEEK | rights::TELL)));
    // A terminal is a character device without a place.
    let stat = get!(fdstat(fd));
    is!((stat.filetype, stat.rights & rights::SEEK), (TYPE_FILE, rights::SEEK));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn a_preopen_can_be_replaced(dir: Fd) -> Verdict {
    let again = get!(open(dir, ".", DIRECTORY));
    let before = get!(stat(again));
    get!(renumber(again, TASK));
    let after = get!(stat(TASK));
    is!((after.dev, after.ino), (before.dev, before.ino));
    is!(fdstat(again), Err(BADF));
    Ok(())
}

fn streams_are_ready(_: Fd) -> Verdict {
    const LATER: u64 = 200_000_000;
    let clock = Subscription { userdata: 1, tag: 0, subject: 1, timeout: LATER, precision: 0, flags: 0 };
    let stream = |userdata, tag, fd| Subscription { userdata, tag, subject: fd, ..clock };
    for event in get!(poll(&[clock, stream(2, 1, 0)])) {
        is!((event.error, event.userdata), (0, u64::from(event.tag) + 1));
    }
    let mut waiting = vec![(3, 1), (4, 2)];
    while !waiting.is_empty() {
        let wishes: Vec<_> =
            waiting.iter().map(|(userdata, fd)| stream(*userdata, 2, *fd)).chain([clock]).collect();
        for event in get!(poll(&wishes)) {
            is!((event.error, event.tag), (0, 2));
            waiting.retain(|(userdata, _)| *userdata != event.userdata);
        }
    }
    is!(poll(&[]), Err(INVAL));
    Ok(())
}

fn descriptors_move(dir: Fd) -> Verdict {
    let how = able(CREAT, rights::READ | rights::WRITE);
    let (from, to) = (get!(open(dir, "a", how)), get!(open(dir, "b", how)));
    let before = get!(fdstat(from));
    get!(renumber(from, to));
    is!(close(from), Err(BADF));
    is!(get!(fdstat(to)), before);
    is!(renumber(to, from), Err(BADF));
    get!(close(to));
    get!(unlink(dir, "a"));
    Ok(get!(unlink(dir, "b")))
}

fn giving_way(_: Fd) -> Verdict {
    Ok(get!(give_way()))
}

fn streams_move(dir: Fd) -> Verdict {
    for stream in 0..3 {
        let place = get!(open(dir, "f", bare(CREAT)));
        get!(renumber(stream, place));
        get!(fdstat(place));
        is!(fdstat(stream), Err(BADF));
        get!(unlink(dir, "f"));
        // The answer still has to leave by it: the lowest free number is this one again.
        let again = get!(open(dir, ".", bare(OPEN_DIRECTORY)));
        is!(again, stream);
        get!(renumber(place, stream));
    }
    Ok(())
}

/// The resolution of a clock is told, and finer than a second.
fn grain(clock: u32) -> Verdict {
    is!((1..1_000_000_000).contains(&get!(resolution(clock))), true);
    Ok(())
}

fn the_monotonic_clocks_grain(_: Fd) -> Verdict {
    grain(1)
}

fn the_wall_clocks_grain(_: Fd) -> Verdict {
    grain(0)
}

fn the_monotonic_clock_moves(_: Fd) -> Verdict {
    let first = get!(time(1, 1));
    is!(first < get!(time(1, 1)), true);
    Ok(())
}

fn the_wall_clock_is_read(_: Fd) -> Verdict {
    // After the year 2020.
    is!(get!(time(0, 1)) > 1_577_836_800_000_000_000, true);
    Ok(())
}

fn no_descriptor_no_socket(_: Fd) -> Verdict {
    is!(shut_down(99, 1), Err(BADF));
    Ok(())
}

fn streams_are_no_sockets(_: Fd) -> Verdict {
    is!(shut_down(1, 1), Err(NOTSOCK));
    Ok(())
}

const ARGUMENTS: &[u8] = b"rules\0first\0the \"second\" arg\0\0";
const VARIABLES: &[u8] = b"A=text\0B=escap \" ing\0C=new\nline\0D=\0";

fn arguments_come_whole(_: Fd) -> Verdict {
    is!(get!(arguments()).2, ARGUMENTS.to_vec());
    Ok(())
}

fn arguments_are_measured(_: Fd) -> Verdict {
    let (count, size, _) = get!(arguments());
    is!((count, size as usize), (4, ARGUMENTS.len()));
    Ok(())
}

fn variables_come_whole(_: Fd) -> Verdict {
    is!(get!(environment()).2, VARIABLES.to_vec());
    Ok(())
}

fn variables_are_measured(_: Fd) -> Verdict {
    let (count, size, _) = get!(environment());
    is!((count, size as usize), (4, VARIABLES.len()));
    Ok(())
}

fn no_arguments(_: Fd) -> Verdict {
    is!(get!(arguments()), (0, 0, Vec::new()));
    Ok(())
}

fn no_variables(_: Fd) -> Verdict {
    is!(get!(environment()), (0, 0, Vec::new()));
    Ok(())
}

fn nothing_is_written_nowhere(_: Fd) -> Verdict {
    is!(write(1_000_000, &[b"x"]), Err(BADF));
    Ok(())
}

fn stdout_takes_bytes(_: Fd) -> Verdict {
    is!(write(1, &[b"he", b"", b"llo "]), Ok(6));
    Ok(())
}

fn exit_with_33(_: Fd) -> Verdict {
    std::process::exit(33)
}

fn exit_with_0(_: Fd) -> Verdict {
    std::process::exit(0)
}

fn some_randomness(_: Fd) -> Verdict {
    let (mut first, mut second) = ([0; 32], [0; 32]);
    get!(random(&mut first));
    get!(random(&mut second));
    is!(first == second, false);
    Ok(())
}

fn no_randomness(_: Fd) -> Verdict {
    Ok(get!(random(&mut [])))
}
