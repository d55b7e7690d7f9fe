//! `warren-vmm linux`: from inherited descriptors to the end of one Linux guest.

use super::disk::Disk;
use super::machine::{LinuxOptions, Machine};
use super::network::Network;
use super::paged::{Pages, listen};
use super::rest::Rest;
use super::service::{Queues, Service};
use super::worker::Worker;
use crate::end::End;
use crate::log;
use crate::orders::queue;
use crate::progress::monotonic_ns;
use crate::run::{Descriptors, open_kvm, open_loop, take};
use crate::seal::{LinuxSeal, ThreadFilter};
use crate::sys::{install_kick_handler, userfault::Userfault};
use anyhow::{Context, Result, bail};
use event_manager::SubscriberOps;
use rustix::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// The descriptors of a Linux machine.
#[derive(Debug)]
pub struct LinuxDescriptors {
    /// The listening control socket.
    pub listener: OwnedFd,
    /// /dev/kvm.
    pub kvm: OwnedFd,
    /// /dev/userfaultfd, of a machine whose memory a pager may bring.
    pub userfaultfd: Option<OwnedFd>,
}

impl LinuxDescriptors {
    /// Takes them over, for a machine that may be paged or not. To be called once, first.
    pub fn inherit(paged: bool) -> Result<Self> {
        let (listener, kvm) = Descriptors::inherit_first()?;
        let userfaultfd = paged.then(|| take(5, "/dev/userfaultfd")).transpose()?;
        Ok(Self { listener, kvm, userfaultfd })
    }
}

/// Runs one guest to its end.
#[must_use]
pub fn run(descriptors: LinuxDescriptors, options: &LinuxOptions) -> End {
    match live(descriptors, options) {
        Ok(end) => end,
        Err(error) => End::Host(error),
    }
}

fn live(descriptors: LinuxDescriptors, options: &LinuxOptions) -> Result<End> {
    let begin = monotonic_ns();
    let seal = LinuxSeal::begin().context("seal the process")?;
    log!("sealed; Landlock {:?}", seal.landlock);
    install_kick_handler().context("install the signal handler")?;
    let kvm = open_kvm(descriptors.kvm)?;
    let (machine, vcpus) = Machine::create(&kvm, options).context("make the VM")?;
    let device = descriptors.userfaultfd.as_ref().map(AsFd::as_fd);
    // One for memory, one for a disk.
    let both = |device| Ok::<_, std::io::Error>([Userfault::new(device)?, Userfault::new(device)?]);
    let userfaults = device.map(both).transpose().context("make a userfaultfd")?;
    drop((kvm, descriptors.userfaultfd));
    if !machine.filters_msrs() {
        bail!(
            "this KVM has no MSR filter, without which a Linux guest would reach registers that are not its own"
        );
    }
    let (end, ends) = queue().context("make an event descriptor")?;
    let end = Arc::new(end);
    let mut starts = Vec::new();
    let (sealed, narrowed) = channel();
    let rest = Rest::new(vcpus.len());
    for (id, vcpu) in vcpus.into_iter().enumerate() {
        let (start, waits) = channel();
        starts.push(start);
        let (filter, end, rest) = (seal.vcpu, Arc::clone(&end), Arc::clone(&rest));
        spawn(&format!("vcpu{id}"), filter, &sealed, move || vcpu.live(&waits, &end, &rest))?;
    }
    let (work, orders) = queue().context("make an event descriptor")?;
    let (worker, ended) = (Worker::new(orders)?, Arc::clone(&end));
    spawn("worker", seal.worker, &sealed, move || ended.send(End::Host(worker.work())))?;
    let disk = |id| -> Result<_> {
        let (work, orders) = queue().context("make an event descriptor")?;
        let (disk, end) = (Disk::new(orders).context("make a disk's event loop")?, Arc::clone(&end));
        spawn(&format!("disk{id}"), seal.disk, &sealed, move || end.send(End::Host(disk.work())))?;
        Ok(work)
    };
    let disks = (0..options.disks).map(disk).collect::<Result<Vec<_>>>()?;
    let (network, orders) = queue().context("make an event descriptor")?;
    let streams = Network::new(orders).context("make the network thread's event loop")?;
    spawn("network", seal.network, &sealed, move || end.send(End::Host(streams.work())))?;
    let pages = userfaults.map(|userfaults| -> Result<_> {
        let (listener, served) = channel();
        spawn("pager", seal.pager, &sealed, move || listen(&served))?;
        Ok(Pages::new(userfaults, listener))
    });
    let pages = pages.transpose()?;
    drop(sealed);
    // Ends when every thread has narrowed itself: nothing is read before.
    for () in narrowed {}
    let listener = UnixListener::from(descriptors.listener);
    let queues = Queues { starts, work, disks, network, ends, rest, pages };
    let service = Service::new(listener, machine, queues).context("use the control socket")?;
    serve(service, seal.main, begin)
}

/// A thread that narrows itself first. One that cannot is a defect, and ends the process.
fn spawn(
    name: &str,
    filter: ThreadFilter,
    sealed: &Sender<()>,
    body: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let sealed = sealed.clone();
    let body = move || match filter.put_on() {
        Ok(()) => {
            drop(sealed);
            body();
        }
        Err(error) => {
            log!("{error}");
            std::process::abort();
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(body).with_context(|| format!("start {name}"))?;
    Ok(())
}

fn serve(service: Service, filter: ThreadFilter, begin: u64) -> Result<End> {
    let (mut manager, id) = open_loop(service, filter, begin)?;
    loop {
        let service = manager.subscriber_mut(id).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        if let Some(end) = service.take_end() {
            service.finish(&end);
            return Ok(end);
        }
        manager.run().map_err(|error| anyhow::anyhow!("event loop: {error:?}"))?;
    }
}
