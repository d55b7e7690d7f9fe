//! A guest written down and brought back, as the main thread does it. It waits for vCPUs and devices meanwhile, no longer than
//! they have to come to rest.

use super::{NO_GUEST, Service, load_error, not_told};
use crate::end::End;
use crate::linux::again::{self, NotPutBack};
use crate::linux::machine::Machine;
use crate::linux::rest::NotAtRest;
use crate::linux::snapshot::{self, PATIENCE, Resumed};
use crate::linux::vcpu::First;
use crate::log;
use crate::orders::Outgoing;
use crate::progress::monotonic_ns;
use crate::snapshot::{Taken, target};
use rustix::fd::OwnedFd;
use warren_vmm_protocol::linux::LinuxRestore;
use warren_vmm_protocol::{ControlReply, LoadError};

impl Service {
    pub(super) fn snapshot(&self, descriptors: Vec<OwnedFd>) -> ControlReply {
        let Some(running) = &self.running else {
            return ControlReply::NoSnapshot { reason: NO_GUEST.into() };
        };
        let taken = target(descriptors).and_then(|file| {
            snapshot::take(&running.kept, &running.events, &self.queues.rest, file)
                .map_err(|error| error.to_string())
        });
        match taken {
            Ok(Taken { state, memory_len }) => ControlReply::Snapshot { memory_len, state },
            Err(reason) => ControlReply::NoSnapshot { reason },
        }
    }

    pub(super) fn resume(&self) -> ControlReply {
        let Some(running) = &self.running else { return not_told(NO_GUEST) };
        snapshot::go_on(&running.kept, &self.queues.rest);
        ControlReply::Told
    }

    /// Puts the guest back to the snapshot it was brought back from.
    pub(super) fn reset(&mut self) -> ControlReply {
        let began = monotonic_ns();
        let Some(running) = &mut self.running else { return not_told(NO_GUEST) };
        // The log tells one life's lines from another's.
        let held = || running.console.pass_on(|line| log!("console: {line}"));
        match again::put_back(&running.kept, &mut running.events, &self.queues.rest, held) {
            Ok(()) => {
                let build_us = monotonic_ns().saturating_sub(began) / 1000;
                log!("guest put back in {build_us} us");
                ControlReply::Started { build_us }
            }
            Err(NotPutBack::Goes(why)) => not_told(why),
            // Half of it is done: it is nobody's guest any more.
            Err(NotPutBack::Half(why)) => {
                self.end = Some(End::Host(anyhow::anyhow!("the guest cannot be put back: {why}")));
                not_told("the guest cannot be put back")
            }
        }
    }

    pub(super) fn restore(
        &mut self,
        machine: Machine,
        bell: Outgoing<()>,
        (spec, by_pager): (&LinuxRestore, bool),
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), LoadError> {
        let admitted = snapshot::admit(spec, by_pager, descriptors, &machine.room())
            .map_err(|refusal| LoadError::Refused(refusal.to_string()))?;
        let Resumed { mut loaded, vcpus, clock_ns } =
            machine.resume(admitted, self.queues.pages.as_ref(), bell).map_err(load_error)?;
        let mut firsts = vcpus.into_iter().map(|vcpu| First::Resume(Box::new(vcpu)));
        loaded.start.first = firsts.next().unwrap_or(First::Wait);
        // They hold as soon as they have their registers. Nobody raises an interrupt before: it would not be in them.
        self.queues.rest.ask();
        self.start(&loaded.start, firsts);
        self.queues.rest.wait(PATIENCE).map_err(|error| match error {
            NotAtRest::Gone { why: Some(why) } => LoadError::Refused(why),
            other => LoadError::Host(other.to_string()),
        })?;
        snapshot::wake(&loaded.kept, &mut loaded.events, clock_ns, loaded.kept.fresh)
            .map_err(|error| LoadError::Host(format!("{:#}", anyhow::Error::from(error))))?;
        self.hand_out(loaded, &spec.label);
        self.queues.rest.go_on();
        Ok(())
    }
}
