use super::*;

#[test]
fn compilations_leave_half_of_the_host() {
    for (host_mib, memory_mib, at_once) in
        [(64 << 10, 1024, 2), (4096, 1024, 2), (4095, 1024, 1), (2048, 1024, 1), (1024, 512, 1), (1, 1, 1)]
    {
        let limits = CompileLimits::default().on_host_of(host_mib);
        assert_eq!((limits.memory_mib, limits.at_once), (memory_mib, at_once), "{host_mib} MiB");
    }
}

/// What is said of a compilation that ended so, after at most so many seconds of CPU.
fn check(status: ExitStatus, cpu_at_most: u64, log: &str, expect: Option<&str>) {
    check_ending(Ending { exit: Some(status), out_of_memory: false }, cpu_at_most, log, expect);
}

fn check_ending(ending: Ending, cpu_at_most: u64, log: &str, expect: Option<&str>) {
    let end = End::Exited { ending, cpu_at_most: Duration::from_secs(cpu_at_most) };
    let said = end.verdict(CompileLimits::default(), log).err().map(|error| error.to_string());
    match expect {
        None => assert_eq!(said, None),
        Some(words) => assert!(said.as_deref().is_some_and(|said| said.contains(words)), "{said:?}"),
    }
}

#[test]
fn a_kill_for_time_is_no_kill_for_memory() {
    let (time, memory) = (Some("longer than 60s"), Some("more than 1024 MiB"));
    check(ExitStatus::Signal(SIGKILL), 61, "", time);
    check(ExitStatus::Signal(SIGKILL), 60, "", time);
    // Neither: somebody stops.
    check(ExitStatus::Signal(SIGKILL), 59, "", None);
    let killed = Ending { exit: Some(ExitStatus::Signal(SIGKILL)), out_of_memory: true };
    check_ending(killed, 1, "", memory);
    check_ending(killed, 61, "", memory);
    check(ExitStatus::Signal(SIGXCPU), 61, "", time);
    check(ExitStatus::Signal(SIGABRT), 1, "memory allocation of 64 bytes failed", memory);
    check(ExitStatus::Signal(SIGABRT), 1, "thread panicked", None);
    check(ExitStatus::Code(0), 61, "", None);
}
