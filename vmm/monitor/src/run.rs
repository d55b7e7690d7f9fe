//! `warren-vmm run`: from inherited descriptors to the end of one sandbox.

use crate::bare::Bare;
use crate::end::End;
use crate::log;
use crate::machine::{Machine, MachineOptions};
use crate::orders::queue;
use crate::progress::{Progress, monotonic_ns};
use crate::seal::{Seal, ThreadFilter};
use crate::service::{Service, Vessel};
use crate::sys::{self, userfault::Userfault};
use crate::vcpu::Life;
use anyhow::{Context, Result, bail};
use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use kvm_ioctls::Kvm;
use rustix::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// The API version every KVM since 2007 speaks.
const KVM_API: i32 = 12;
/// How long the peer has to take the last words.
const LAST_WORDS_MS: u64 = 500;
/// How long a told vCPU thread has to come to its end.
const STOP_MS: i32 = 2_000;

/// The descriptors of `warren_sandbox_plan::request::Program::Vmm`.
#[derive(Debug)]
pub struct Descriptors {
    /// The listening control socket.
    pub listener: OwnedFd,
    /// /dev/kvm.
    pub kvm: OwnedFd,
    /// The guest program.
    pub image: OwnedFd,
    /// /dev/userfaultfd, of a VMM whose memory a pager may bring.
    pub userfaultfd: Option<OwnedFd>,
}

impl Descriptors {
    /// Takes them over, for a machine that may be paged or not. To be called once, first.
    pub fn inherit(paged: bool) -> Result<Self> {
        let (listener, kvm) = Self::inherit_first()?;
        let image = take(5, "the guest program")?;
        let userfaultfd = paged.then(|| take(6, "/dev/userfaultfd")).transpose()?;
        Ok(Self { listener, kvm, image, userfaultfd })
    }

    /// The two that every machine has: control socket and /dev/kvm.
    pub(crate) fn inherit_first() -> Result<(OwnedFd, OwnedFd)> {
        Ok((take(3, "the control socket")?, take(4, "/dev/kvm")?))
    }
}

pub(crate) fn take(number: RawFd, what: &str) -> Result<OwnedFd> {
    sys::inherited(number).with_context(|| format!("descriptor {number} must be {what}"))
}

/// Runs one sandbox to its end.
#[must_use]
pub fn run(descriptors: Descriptors, options: MachineOptions) -> End {
    match live(descriptors, options) {
        Ok(end) => end,
        Err(error) => End::Host(error),
    }
}

fn live(descriptors: Descriptors, options: MachineOptions) -> Result<End> {
    let begin = monotonic_ns();
    let seal = Seal::begin().context("seal the process")?;
    log!("sealed; Landlock {:?}", seal.landlock);
    sys::install_kick_handler().context("install the signal handler")?;
    let kvm = open_kvm(descriptors.kvm)?;
    let mut rehearsal = None;
    let (vessel, cpu, filters_msrs) = if options.bare {
        let image = &descriptors.image;
        let (mut bare, cpu) = Bare::with_program(&kvm, image, options).context("make the VM")?;
        if descriptors.userfaultfd.is_none() {
            rehearsal = bare.rehearse().context("prepare the VM")?;
        }
        let filters = bare.filters_msrs();
        (Vessel::Bare(bare), cpu, filters)
    } else {
        let (machine, cpu) = Machine::create(&kvm, &descriptors.image, options).context("make the VM")?;
        let filters = machine.bare().filters_msrs();
        (Vessel::Built(Box::new(machine)), cpu, filters)
    };
    let device = descriptors.userfaultfd.as_ref().map(AsFd::as_fd);
    let userfault = device.map(Userfault::new).transpose().context("make a userfaultfd")?;
    drop((kvm, descriptors.image, descriptors.userfaultfd));
    if !filters_msrs {
        log!("this KVM has no MSR filter; the guest runs in user mode and reaches none");
    }
    let progress = Arc::new(Progress::new().context("make the deadline timer")?);
    let (order, orders) = queue().context("make an event descriptor")?;
    let (reports, report) = queue().context("make an event descriptor")?;
    let (performed, rehearsed) = channel();
    let rehearsal = rehearsal.map(|rehearsal| (rehearsal, performed));
    let life = Life::new((cpu, rehearsal), orders, reports, Arc::clone(&progress));
    let filter = seal.vcpu;
    let body = move || match filter.put_on() {
        Ok(()) => life.live(),
        Err(error) => life.refuse(error.into()),
    };
    std::thread::Builder::new().name("vcpu".into()).spawn(body).context("start the vCPU thread")?;
    // Nobody says anything: when there is nobody left to, it was performed, or there was none.
    let _ = rehearsed.recv();
    let listener = UnixListener::from(descriptors.listener);
    let service = Service::new(listener, (vessel, userfault), order, report, progress)
        .context("use the control socket")?;
    serve(service, seal.main, begin)
}

/// The descriptor that is to be /dev/kvm.
pub(crate) fn open_kvm(descriptor: OwnedFd) -> Result<Kvm> {
    let kvm = sys::kvm(descriptor);
    let version = kvm.get_api_version();
    if version != KVM_API {
        bail!("descriptor 4 is not /dev/kvm, or speaks API version {version}");
    }
    Ok(kvm)
}

/// The event loop of a service, on a main thread that is narrowed from now on.
pub(crate) fn open_loop<S: MutEventSubscriber>(
    service: S,
    filter: ThreadFilter,
    begin: u64,
) -> Result<(EventManager<S>, SubscriberId)> {
    let mut manager =
        EventManager::new().map_err(|error| anyhow::anyhow!("make the event loop: {error:?}"))?;
    let id = manager.add_subscriber(service);
    filter.put_on().context("narrow the main thread")?;
    log!("ready after {} us", monotonic_ns().saturating_sub(begin) / 1000);
    Ok((manager, id))
}

fn serve(service: Service, filter: ThreadFilter, begin: u64) -> Result<End> {
    let (mut manager, id) = open_loop(service, filter, begin)?;
    loop {
        let service = manager.subscriber_mut(id).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        if let Some(end) = service.take_end() {
            service.finish(LAST_WORDS_MS);
            return Ok(end);
        }
        let timeout = if service.is_stopping() { STOP_MS } else { -1 };
        let count =
            manager.run_with_timeout(timeout).map_err(|error| anyhow::anyhow!("event loop: {error:?}"))?;
        if count == 0 && timeout >= 0 {
            log!("the vCPU thread does not come to its end");
            return Ok(End::Shutdown);
        }
    }
}
