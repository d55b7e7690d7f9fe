//! `warren-vmm probe`: what this host's KVM can do, found out by trying, and what that means.
//!
//! Each trial is a guest of a few instructions in a VM of its own. Nothing is concluded from names or CPU flags.

mod report;
mod templates;
mod trial;

pub use report::{Finding, Probe, Verdict};
pub use templates::Offered;

use crate::machine::host_isa;
use kvm_ioctls::{Cap, Kvm};
use rustix::fs::{Mode, OFlags, open};
use warren_abi::isa::IsaSet;

/// Tries everything. Opens /dev/kvm itself: this is an operator's question, not a sandbox.
#[must_use]
pub fn probe() -> Probe {
    let mut probe = Probe::default();
    let device = match open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => device,
        Err(error) => {
            let help = match error {
                rustix::io::Errno::NOENT => {
                    "load the modules kvm and kvm_amd or kvm_intel, or enable virtualisation"
                }
                rustix::io::Errno::ACCESS => "run as root or join the group kvm",
                _ => "see dmesg",
            };
            probe.add("device", false, format!("/dev/kvm: {error}; {help}"));
            return probe;
        }
    };
    let kvm = crate::sys::kvm(device);
    probe.add("device", true, format!("/dev/kvm, API version {}", kvm.get_api_version()));
    let isa = host_isa();
    let names = isa.extensions().map(|extension| extension.detect_name).collect::<Vec<_>>().join(" ");
    probe.add("instruction sets", isa.covers(IsaSet::BASELINE), names);
    let user = trial::user_mode(&kvm);
    probe.add_result("user mode", &user, trial::Speed::to_string);
    probe.add_result("exit", &trial::exit_cost(&kvm), |micros| {
        format!("{micros:.1} us for one port exit and re-entry")
    });
    let supervisor = trial::supervisor_mode(&kvm);
    probe.add_result("supervisor mode", &supervisor, trial::Speed::to_string);
    let sse = trial::supervisor_sse(&kvm);
    probe.add_result("SSE in supervisor mode", &sse, |()| "works".into());
    probe.add_result("interrupt controller", &trial::irqchip(&kvm), |()| "in the kernel".into());
    probe.add_result("log of written pages", &trial::dirty_log(&kvm), |()| "works".into());
    match templates::offered(&kvm) {
        Ok(offered) => probe.templates = offered,
        Err(why) => probe.add("processor templates", false, why),
    }
    probe.add("MSR filter", kvm.check_extension(Cap::X86MsrFilter), "default-deny for guests");
    probe.add("immediate exit", kvm.check_extension(Cap::ImmediateExit), "a running guest can be stopped");
    conclude(&mut probe, &kvm, user.is_ok(), native(&user, &supervisor) && sse.is_ok());
    probe
}

/// Supervisor code counts as native when it is not an order of magnitude slower than user code.
fn native(user: &trial::Tried<trial::Speed>, supervisor: &trial::Tried<trial::Speed>) -> bool {
    match (user, supervisor) {
        (Ok(user), Ok(supervisor)) => supervisor.millions_a_second() * 10.0 > user.millions_a_second(),
        _ => false,
    }
}

fn conclude(probe: &mut Probe, kvm: &Kvm, user: bool, supervisor: bool) {
    let stoppable = kvm.check_extension(Cap::ImmediateExit);
    let baseline = host_isa().covers(IsaSet::BASELINE);
    probe.wasm = match (user && stoppable, baseline) {
        (true, true) => Verdict::yes("user-mode guest code runs and can be stopped"),
        (true, false) => Verdict::no("the processor lacks SSE4.2 or FMA, which function code needs"),
        (false, _) => Verdict::no("this KVM does not run or does not stop user-mode guest code"),
    };
    probe.linux = if supervisor {
        Verdict::yes("supervisor-mode guest code runs natively")
    } else {
        Verdict::no(
            "supervisor-mode guest code does not run natively here (no hardware virtualisation under this KVM): a \
             kernel would be interpreted, without SSE",
        )
    };
}
