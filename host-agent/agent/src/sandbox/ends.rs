//! How sandboxes ended, by reasons with short stable names, and how many of each.
//!
//! A cause is what the agent saw first; where that is only that the process is gone, how the process ended says more.

use super::machine::Cause;
use crate::jailer::Ending;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use warren_sandbox_plan::request::ExitStatus;

/// Counts since this agent started.
#[derive(Debug, Default)]
pub struct Ends(Mutex<BTreeMap<&'static str, u64>>);

impl Ends {
    /// One more.
    pub fn count(&self, reason: &'static str) {
        // Whole between any two statements.
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = ends.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The name of an end.
#[must_use]
pub const fn reason(cause: &Cause, ending: Ending) -> &'static str {
    match cause {
        Cause::Destroyed(_) => "destroyed",
        Cause::Expired => "expired",
        Cause::Stopping => "stopping",
        Cause::TimedOut => "timed-out",
        Cause::GuestFault(_) => "guest-fault",
        Cause::NotCreated => of_process(ending, "not-created"),
        Cause::Lost(_) => of_process(ending, "lost"),
    }
}

/// What the process says, if it says anything; the statuses are those of `warren-vmm`.
const fn of_process(ending: Ending, otherwise: &'static str) -> &'static str {
    match ending.exit {
        _ if ending.out_of_memory => "out-of-memory",
        Some(ExitStatus::Code(10)) => "powered-off",
        Some(ExitStatus::Code(11)) => "reset",
        Some(ExitStatus::Code(20)) => "timed-out",
        Some(ExitStatus::Code(21)) => "guest-fault",
        Some(ExitStatus::Code(22)) => "load-failed",
        Some(ExitStatus::Code(23)) => "host-fault",
        Some(ExitStatus::Code(24)) => "pager-lost",
        Some(ExitStatus::Signal(31)) => "forbidden-call",
        Some(ExitStatus::Signal(_)) => "killed",
        Some(ExitStatus::Code(_)) | None => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let exit = |exit| Ending { exit: Some(exit), out_of_memory: false };
        let lost = || Cause::Lost("it exited".into());
        let starved = Ending { exit: Some(ExitStatus::Signal(9)), out_of_memory: true };
        for (cause, ending, expect) in [
            (lost(), exit(ExitStatus::Code(11)), "reset"),
            (lost(), exit(ExitStatus::Code(10)), "powered-off"),
            (lost(), exit(ExitStatus::Code(21)), "guest-fault"),
            (lost(), exit(ExitStatus::Code(24)), "pager-lost"),
            (lost(), exit(ExitStatus::Code(0)), "lost"),
            (lost(), exit(ExitStatus::Signal(9)), "killed"),
            (lost(), exit(ExitStatus::Signal(31)), "forbidden-call"),
            (lost(), starved, "out-of-memory"),
            (lost(), Ending::default(), "lost"),
            (Cause::NotCreated, Ending::default(), "not-created"),
            (Cause::NotCreated, exit(ExitStatus::Code(22)), "load-failed"),
            // The agent's own kill says nothing new.
            (Cause::Expired, exit(ExitStatus::Signal(9)), "expired"),
            (Cause::TimedOut, exit(ExitStatus::Signal(9)), "timed-out"),
            (Cause::Stopping, starved, "stopping"),
        ] {
            assert_eq!(reason(&cause, ending), expect, "{cause}, {ending}");
        }
    }

    #[test]
    fn counts() {
        let ends = Ends::default();
        for reason in ["reset", "killed", "reset"] {
            ends.count(reason);
        }
        assert_eq!(ends.all().into_iter().collect::<Vec<_>>(), [("killed", 1), ("reset", 2)]);
    }
}
