//! Writing a guest down, bringing one back, once or again, and listening to whoever brings its memory.

use super::{LoadTimes, Service, Vessel, load_error};
use crate::end::End;
use crate::load;
use crate::orders::Order;
use crate::paging::Paging;
use crate::progress::monotonic_ns;
use crate::snapshot::{self, Source, Taken};
use crate::vcpu::FIRST_GENERATION;
use event_manager::{EventOps, EventSet, Events};
use rustix::fd::OwnedFd;
use warren_state::wasm::CpuState;
use warren_vmm_protocol::{ControlReply, LoadError, RestoreSpec};

/// The pager's socket, in the event loop.
pub(super) const PAGER: u32 = 3;

impl Service {
    pub(super) fn restore(
        &mut self,
        spec: &RestoreSpec,
        paged: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Order, LoadError> {
        load::label(&spec.label).map_err(LoadError::Refused)?;
        let admitted = snapshot::admit(&spec.state, paged, descriptors).map_err(LoadError::Refused)?;
        let Vessel::Bare(bare) = &mut self.vessel else {
            return Err(LoadError::Refused("this VMM was started to load a function".into()));
        };
        let (resume, source) =
            snapshot::restore(bare, admitted, self.userfault.as_ref()).map_err(load_error)?;
        match source {
            Source::Image(image) => self.image = Some(image),
            Source::Pager(paging) => self.paging = Some(paging),
        }
        Ok(Order::Resume(Box::new(resume)))
    }

    pub(super) fn begin_reset(&mut self) -> Result<(), &'static str> {
        if self.paging.is_some() {
            return Err("a guest whose memory a pager brings is not reset");
        }
        if self.image.is_none() {
            return Err("no guest was restored here");
        }
        if self.resets {
            return Err("a reset is under way");
        }
        self.resets = true;
        self.load = Some(LoadTimes { arrived_ns: monotonic_ns(), build_us: 0 });
        self.orders.send(Order::Reset);
        Ok(())
    }

    /// The vCPU is held, and nothing of its guest is left in it.
    pub(super) fn reset(&mut self) {
        let began = monotonic_ns();
        let (Vessel::Bare(bare), Some(image)) = (&self.vessel, &mut self.image) else { return };
        match image.again(bare) {
            Ok(resume) => {
                if let Some(times) = &mut self.load {
                    times.build_us = monotonic_ns().saturating_sub(began) / 1000;
                }
                self.resets = false;
                self.orders.send(Order::Resume(Box::new(resume)));
            }
            // Half of it may be done: it is nobody's guest any more.
            Err(error) => self.end = Some(End::Host(error.into())),
        }
    }

    pub(super) fn begin_snapshot(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        if !matches!(self.vessel, Vessel::Built(_)) {
            return Err("a guest that was restored is not written down again".into());
        }
        if self.snapshot.is_some() {
            return Err("a snapshot is being taken".into());
        }
        self.snapshot = Some(snapshot::target(descriptors)?);
        self.orders.send(Order::Hold);
        Ok(())
    }

    /// The vCPU is held, so nothing has a deadline and this thread may take the time it takes.
    pub(super) fn end_snapshot(&mut self, held: Result<CpuState, String>) -> ControlReply {
        let taken = match (self.snapshot.take(), &self.vessel, held) {
            (Some(file), Vessel::Built(machine), Ok(cpu)) => {
                snapshot::take(machine, cpu, FIRST_GENERATION + 1, file).map_err(|error| error.to_string())
            }
            (_, _, Err(reason)) => Err(reason),
            (_, _, Ok(_)) => Err("no snapshot was asked for".into()),
        };
        self.orders.send(Order::Release);
        match taken {
            Ok(Taken { state, memory_len }) => ControlReply::Snapshot { memory_len, state },
            Err(reason) => ControlReply::NoSnapshot { reason },
        }
    }

    /// Listens to the pager once there is one.
    pub(super) fn watch_pager(&mut self, ops: &mut EventOps<'_>) {
        let Some(paging) = self.paging.as_ref().filter(|_| !self.listens) else { return };
        match ops.add(Events::with_data_raw(paging.raw_fd(), PAGER, EventSet::IN)) {
            Ok(()) => self.listens = true,
            Err(error) => {
                self.end = Some(End::Host(anyhow::anyhow!("cannot listen to the pager: {error:?}")));
            }
        }
    }

    /// Whatever the vCPU thread waits for may never come: the process ends without it.
    pub(super) fn pager_ready(&mut self) {
        if let Some(why) = self.paging.as_ref().and_then(Paging::hear) {
            self.end = Some(End::Pager(why));
        }
    }
}
