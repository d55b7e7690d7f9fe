//! A guest that begins: from its first instruction to its first doorbell.

use super::{Halted, Life, fault_of, hand_over};
use crate::end::End;
use crate::machine::Start;
use crate::orders::Report;
use crate::progress::{StopCause, monotonic_ns};
use warren_abi::mailbox::{EventHeader, ReplyBody};
use warren_vmm_protocol::{LoadError, VmState};

/// Most bytes of init log kept for the reply to `Load`.
const INIT_LOG_MAX: usize = 128 << 10;

impl Life {
    pub(super) fn initialising(&mut self, start: &Start) -> Result<(), End> {
        let mut log = Vec::new();
        let result = self.init_guest(start, &mut log);
        log.extend(start.mailbox.take_log().unwrap_or_default());
        log.truncate(INIT_LOG_MAX);
        let told = self.progress.end(VmState::Idle, self.cpu.exits());
        let result = told.map_or(result, |cause| Err(Halted::Told(cause)));
        let (reason, end) = match result {
            Ok(None) => {
                self.reports.send(Report::Loaded { at_ns: monotonic_ns(), log });
                return Ok(());
            }
            Ok(Some(failure)) => (failure, End::LoadFailed),
            Err(Halted::Told(StopCause::Deadline)) => (LoadError::TimedOut, End::TimedOut),
            Err(Halted::Told(StopCause::Shutdown)) => return Err(End::Shutdown),
            Err(Halted::Fault(fault)) => (LoadError::Guest(fault.to_string()), End::Guest(fault)),
            Err(Halted::Host(error)) => (LoadError::Host(format!("{error:#}")), End::Host(error)),
        };
        self.reports.send(Report::LoadFailed { reason, log });
        Err(end)
    }

    /// Runs the guest to its first doorbell: `None` when it is ready, or how the function failed.
    fn init_guest(&mut self, start: &Start, log: &mut Vec<u8>) -> Result<Option<LoadError>, Halted> {
        let now = monotonic_ns();
        let deadline_ns = now.saturating_add(u64::from(start.init_timeout_ms) * 1_000_000);
        self.progress.begin(VmState::Initialising, None, deadline_ns);
        // Sequence 0: no event, but clocks and seed are needed by init already.
        let generation = self.generation;
        let header = EventHeader { deadline_ns, generation, ..Default::default() };
        hand_over(&start.mailbox, &mut self.seeds, header)?;
        self.cpu.enter(start)?;
        loop {
            let reply = self.next_reply(&start.mailbox)?;
            match reply.body {
                ReplyBody::LogFlush => {
                    let more = start.mailbox.take_log()?;
                    let room = INIT_LOG_MAX.saturating_sub(log.len());
                    log.extend(more.into_iter().take(room));
                }
                ReplyBody::Ready { drew } => {
                    self.drew = drew;
                    return Ok(None);
                }
                ReplyBody::Error { error, detail_len, .. } => {
                    let detail = start.mailbox.detail(detail_len)?;
                    return Ok(Some(LoadError::Function { error, detail }));
                }
                body => return Err(Halted::Fault(fault_of(body, &start.mailbox)?)),
            }
        }
    }
}
