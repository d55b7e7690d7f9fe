//! The filters do what the table says: a call outside a thread's column kills the process, there and then.
//!
//! Each case runs this test program again as a child that seals itself and makes one raw call.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use warren_sandbox_plan::monitor::SYSTEM_CALLS;
use warren_vmm::seal::Seal;

/// Tells the child which filter and which call.
const CASE: &str = "WARREN_SEAL_CASE";
/// The child's status when the call came back.
const SURVIVED: i32 = 77;

#[derive(Clone, Copy, Debug)]
enum Filter {
    Start,
    Main,
    Vcpu,
}

/// Makes the call under the filter in a child: the signal that ended it, or none if the call came back.
fn signal(filter: Filter, number: i64, arguments: [u64; 3]) -> Option<i32> {
    let [a, b, c] = arguments;
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CASE, format!("{filter:?} {number} {a} {b} {c}"))
        .output()
        .unwrap()
        .status;
    assert!(status.signal().is_some() || status.code() == Some(SURVIVED), "{filter:?} {number}: {status}");
    status.signal()
}

#[test]
#[allow(unsafe_code, reason = "one raw call, which the filter is to judge")]
fn child() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let words: Vec<&str> = case.split(' ').collect();
    let [number, a, b, c] = [1, 2, 3, 4].map(|at| words[at].parse::<u64>().unwrap());
    let seal = Seal::begin().unwrap();
    match words[0] {
        "Main" => seal.main.put_on().unwrap(),
        "Vcpu" => seal.vcpu.put_on().unwrap(),
        _ => {}
    }
    // SAFETY: 1. the cases pass numbers and null pointers only, so the kernel can at worst refuse; 2. a call that
    // creates a process or replaces this one is what the filter must prevent, and this process is made to be lost.
    unsafe {
        libc::syscall(number.cast_signed(), a, b, c, 0_u64, 0_u64, 0_u64);
        libc::_exit(SURVIVED);
    }
}

#[test]
fn calls_outside_the_table_kill() {
    for (name, number) in [
        ("open", libc::SYS_open),
        ("openat", libc::SYS_openat),
        ("openat2", libc::SYS_openat2),
        ("socket", libc::SYS_socket),
        ("connect", libc::SYS_connect),
        ("fork", libc::SYS_fork),
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("mount", libc::SYS_mount),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("keyctl", libc::SYS_keyctl),
        ("bpf", libc::SYS_bpf),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("memfd_create", libc::SYS_memfd_create),
        ("kill", libc::SYS_kill),
        ("setuid", libc::SYS_setuid),
        ("getdents64", libc::SYS_getdents64),
        ("perf_event_open", libc::SYS_perf_event_open),
    ] {
        assert_eq!(signal(Filter::Start, number, [0; 3]), Some(libc::SIGSYS), "{name}");
    }
}

#[test]
fn arguments_outside_the_table_kill() {
    for (what, number, arguments) in [
        ("mmap of executable memory", libc::SYS_mmap, [0, 4096, 5]),
        ("mprotect to executable", libc::SYS_mprotect, [0, 4096, 4]),
        ("ioctl TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0]),
        ("ioctl KVM_CREATE_DEVICE", libc::SYS_ioctl, [0, 0xC00C_AEE0, 0]),
        ("ioctl with high bits is the same ioctl", libc::SYS_ioctl, [0, 0xFFFF_FFFF_0000_5412, 0]),
        ("prctl PR_SET_DUMPABLE", libc::SYS_prctl, [4, 1, 0]),
        ("fcntl F_SETFL", libc::SYS_fcntl, [0, 4, 0]),
        ("clone of a process", libc::SYS_clone, [17, 0, 0]),
        ("clone into a user namespace", libc::SYS_clone, [0x1000_0000, 0, 0]),
    ] {
        assert_eq!(signal(Filter::Start, number, arguments), Some(libc::SIGSYS), "{what}");
    }
}

#[test]
fn each_thread_keeps_its_own_column_only() {
    for row in SYSTEM_CALLS.iter().filter(|row| row.call.name == "ioctl") {
        let warren_sandbox_plan::compiler::ArgumentRule::Equals { value, .. } = row.call.rule else {
            continue;
        };
        let arguments = [u64::from(u32::MAX), value, 0];
        for (filter, keeps) in [
            (Filter::Start, true),
            (Filter::Main, row.thread.is_main()),
            (Filter::Vcpu, row.thread.is_vcpu()),
        ] {
            let expect = (!keeps).then_some(libc::SIGSYS);
            assert_eq!(signal(filter, libc::SYS_ioctl, arguments), expect, "{filter:?} {}", row.call.why);
        }
    }
    for (filter, number) in [
        (Filter::Vcpu, libc::SYS_accept4),
        (Filter::Vcpu, libc::SYS_recvmsg),
        (Filter::Vcpu, libc::SYS_tgkill),
        (Filter::Vcpu, libc::SYS_epoll_ctl),
        (Filter::Main, libc::SYS_recvfrom),
        (Filter::Main, libc::SYS_getrandom),
        (Filter::Main, libc::SYS_seccomp),
        (Filter::Vcpu, libc::SYS_seccomp),
        (Filter::Main, libc::SYS_pread64),
        (Filter::Main, libc::SYS_eventfd2),
    ] {
        assert_eq!(signal(Filter::Start, number, [u64::from(u32::MAX); 3]), None, "{number} at the start");
        assert_eq!(signal(filter, number, [0; 3]), Some(libc::SIGSYS), "{filter:?} {number}");
    }
}
