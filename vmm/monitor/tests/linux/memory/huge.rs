//! Guests of huge pages that the lab host sets aside.

use super::super::support::linux::{Guest, guests};
use super::super::support::vmm::{Vmm, memfd, receive, send_with};
use super::super::{HOST, LOAD_FAILED, POWERED_OFF, linux_spec, support};
use super::{held, run_with};
use warren_vmm_protocol::linux::DeviceSpec;
use warren_vmm_protocol::{ControlReply, ControlRequest};

/// Huge pages that the lab host sets aside, until dropped.
struct SetAside;

impl SetAside {
    fn new(count: u64) -> Self {
        std::fs::write("/proc/sys/vm/nr_hugepages", count.to_string()).unwrap();
        assert_eq!(Self::free(), count);
        Self
    }

    fn free() -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find(|line| line.starts_with("HugePages_Free:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        let _ = std::fs::write("/proc/sys/vm/nr_hugepages", "0");
    }
}

/// For a guest and a little more.
const COUNT: u64 = 140;

/// A guest's memory is of the pages that were set aside: they are taken as it touches them, and free again at its end.
#[test]
fn a_guest_of_huge_pages_takes_those_that_were_set_aside() {
    if !support::has_kvm() || guests().is_none() {
        return;
    }
    let _set_aside = SetAside::new(COUNT);
    let change = |guest: &mut Guest| guest.flags = vec!["--reserved-pages", "2M"];
    let ended = run_with("6.1", "fill $(room); wait", change, |steps| {
        steps.arrive();
        let taken = COUNT - SetAside::free();
        assert!((80..=128).contains(&taken), "{taken} pages");
        assert!(held(steps.running) < 64, "{} MiB of small pages", held(steps.running));
        steps.go_on();
    });
    ended.unwrap().with(POWERED_OFF, &["console: filled ", "end: powered-off"]);
    assert_eq!(SetAside::free(), COUNT);
}

#[test]
fn a_host_without_as_many_huge_pages_says_how_many_it_has() {
    if !support::has_kvm() || guests().is_none() {
        return;
    }
    let _set_aside = SetAside::new(40);
    for (memory, size, said) in [
        (
            "128",
            "2M",
            "the host has 40 free pages of 2 MiB, and 64 are needed: write more to /proc/sys/vm/nr_hugepages",
        ),
        ("1024", "1G", "the host has 0 free pages of 1 GiB, and 1 are needed"),
        ("65", "2M", "68157440 bytes are no multiple of 2 MiB"),
    ] {
        let flags = ["--memory-mib", memory, "--reserved-pages", size];
        Vmm::launch("linux", &flags, None).ends(HOST, said);
    }
    // They are there, and not for lending.
    let vmm = Vmm::launch("linux", &["--memory-mib", "64", "--reserved-pages", "2M"], None);
    let mut control = vmm.control();
    let mut spec = linux_spec();
    spec.devices = vec![DeviceSpec::Balloon { reports_free: false }];
    send_with(&mut control, &ControlRequest::LoadLinux(spec), &[&memfd(b"a")]);
    let reply = format!("{:?}", receive::<ControlReply>(&mut control));
    assert!(reply.contains("huge pages that were set aside are not lent"), "{reply}");
    vmm.ends(LOAD_FAILED, "load failed");
    assert_eq!(SetAside::free(), 40);
}
