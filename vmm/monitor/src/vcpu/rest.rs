//! A guest at rest: brought back, once or again, or held still to be written down.

use super::{Guest, Life};
use crate::end::End;
use crate::orders::{Order, Report};
use crate::progress::{StopCause, monotonic_ns};
use crate::snapshot::Resume;
use crate::waiting::wait;
use warren_vmm_protocol::VmState;

/// Why some guests are not written down.
const DREW: &str = "the function drew random bytes in init, which every copy would have";

impl Life {
    /// A guest that was at rest is at rest again.
    pub(super) fn resume(&mut self, resume: Resume) -> Result<Guest, End> {
        self.cpu.resume(&resume).map_err(|error| End::Host(error.into()))?;
        (self.generation, self.sequence) = (resume.generation, 0);
        let _ = self.progress.end(VmState::Idle, self.cpu.exits());
        self.reports.send(Report::Loaded { at_ns: monotonic_ns(), log: Vec::new() });
        let Resume { entry, mailbox, memory_bytes, .. } = resume;
        Ok(Guest { entry, mailbox, memory_bytes })
    }

    /// Forgets the guest, and holds still until it is back.
    pub(super) fn again(&mut self) -> Result<Guest, End> {
        self.cpu.forget().map_err(|error| End::Host(error.into()))?;
        self.not_stopped()?;
        self.reports.send(Report::Forgotten);
        loop {
            wait(&self.orders, None, &self.progress)?;
            while let Some(order) = self.orders.next() {
                match order {
                    Order::Resume(resume) => return self.resume(*resume),
                    Order::Link(link) => self.link = Some(link),
                    Order::Start(_) | Order::Hold | Order::Release | Order::Reset => {}
                }
            }
        }
    }

    /// Holds still for a snapshot.
    pub(super) fn hold(&mut self, guest: &Guest) -> Result<(), End> {
        let saved = if self.drew {
            Err(DREW.to_owned())
        } else {
            self.cpu.save(&guest.entry).map_err(|error| error.to_string())
        };
        self.not_stopped()?;
        self.reports.send(Report::Held(saved));
        loop {
            wait(&self.orders, None, &self.progress)?;
            while let Some(order) = self.orders.next() {
                match order {
                    Order::Release => return Ok(()),
                    Order::Link(link) => self.link = Some(link),
                    Order::Start(_) | Order::Resume(_) | Order::Hold | Order::Reset => {}
                }
            }
        }
    }

    /// A word to stop that came while the vCPU was entered to no end is lost on it, not here.
    fn not_stopped(&self) -> Result<(), End> {
        self.progress.stop_cause().map_or(Ok(()), |cause| Err(end_of(cause)))
    }
}

fn end_of(cause: StopCause) -> End {
    match cause {
        StopCause::Deadline => End::TimedOut,
        StopCause::Shutdown => End::Shutdown,
    }
}
