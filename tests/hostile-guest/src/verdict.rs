//! From what was seen of a case to its verdict.
//!
//! ```text
//!  the host, its files, its other sandboxes are not as they were ─▶ BROKE
//!  a signal, an end without a name, the host's own fault ─────────▶ BROKE
//!  no end, not even when told to; a device that answers no more ──▶ WEDGED
//!  an end with a name ────────────────────────────────────────────▶ KILLED
//!  powered off, or ended when told to ────────────────────────────▶ PASS
//! ```

use core::fmt::{Display, Formatter, Result as FmtResult};
use warren_sandbox_plan::request::ExitStatus;

/// What was seen of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How the VMM ended, if it did.
    pub exit: Option<ExitStatus>,
    /// It was killed because its cgroup had no memory left.
    pub out_of_memory: bool,
    /// Its log.
    pub log: String,
    /// What of the host is not as it was.
    pub host: Vec<String>,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The guest went on, and its devices answer.
    Pass,
    /// The VMM ended by design: its last words.
    Killed(String),
    /// It neither goes on nor ends, or a device of it.
    Wedged(String),
    /// The host was reached, or the VMM ended otherwise than by design.
    Broke(String),
}

/// Exit statuses of `warren-vmm` that a guest may bring about, and how its last line begins then.
const BY_DESIGN: [(i32, &str); 4] =
    [(11, "end: reset"), (20, "end: timed-out"), (21, "end: guest: "), (22, "end: load-failed")];
/// What a guest says whose device did not answer as it must.
const REFUSED: &str = "console: REFUSED ";

/// Judges.
#[must_use]
pub fn judge(seen: &Seen) -> Verdict {
    if !seen.host.is_empty() {
        return Verdict::Broke(seen.host.join("; "));
    }
    if seen.out_of_memory {
        return Verdict::Broke("used up the memory of its cgroup".into());
    }
    let end =
        seen.log.lines().rev().find_map(|line| line.split_once("warren-vmm: end: ")).map(|(_, end)| end);
    match (seen.exit, end) {
        (None, _) => Verdict::Wedged("no end".into()),
        (Some(ExitStatus::Signal(signal)), _) => Verdict::Broke(format!("signal {signal}")),
        (Some(ExitStatus::Code(_)), _) if seen.log.contains(REFUSED) => {
            let said = seen.log.lines().find(|line| line.contains(REFUSED)).unwrap_or_default();
            Verdict::Wedged(said.into())
        }
        (Some(ExitStatus::Code(0)), Some("shutdown")) | (Some(ExitStatus::Code(10)), Some("powered-off")) => {
            Verdict::Pass
        }
        (Some(ExitStatus::Code(code)), Some(end)) => {
            let named =
                BY_DESIGN.iter().any(|(of, words)| *of == code && format!("end: {end}").starts_with(words));
            if named { Verdict::Killed(end.into()) } else { Verdict::Broke(format!("status {code}, {end}")) }
        }
        (Some(ExitStatus::Code(code)), None) => Verdict::Broke(format!("status {code}, without a last word")),
    }
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Killed(_) => "KILLED",
            Self::Wedged(_) => "WEDGED",
            Self::Broke(_) => "BROKE",
        }
    }

    /// Whether it is a defect.
    #[must_use]
    pub const fn is_defect(&self) -> bool {
        matches!(self, Self::Wedged(_) | Self::Broke(_))
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Pass => f.write_str("PASS"),
            Self::Killed(why) | Self::Wedged(why) | Self::Broke(why) => write!(f, "{}: {why}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let code = |code, log: &str| Seen {
            exit: Some(ExitStatus::Code(code)),
            log: format!("warren-vmm: sealed\n{log}"),
            ..Seen::default()
        };
        let by_signal = |signal| Seen { exit: Some(ExitStatus::Signal(signal)), ..Seen::default() };
        for (seen, name) in [
            (code(10, "warren-vmm: end: powered-off\n"), "PASS"),
            (code(0, "warren-vmm: end: shutdown\n"), "PASS"),
            (code(21, "warren-vmm: end: guest: triple fault\n"), "KILLED"),
            (code(11, "warren-vmm: end: reset\n"), "KILLED"),
            (code(20, "warren-vmm: end: timed-out\n"), "KILLED"),
            // A device that does not answer, however the guest ended.
            (code(11, "warren-vmm: console: REFUSED 00 00\nwarren-vmm: end: reset\n"), "WEDGED"),
            (Seen::default(), "WEDGED"),
            // What the status says and what the log says are not the same; nothing is said; the host's fault.
            (code(21, "warren-vmm: end: powered-off\n"), "BROKE"),
            (code(10, ""), "BROKE"),
            (code(23, "warren-vmm: end: host: no memory\n"), "BROKE"),
            (by_signal(6), "BROKE"),
            (by_signal(31), "BROKE"),
            (Seen { out_of_memory: true, ..by_signal(9) }, "BROKE"),
            (Seen { host: vec!["a file".into()], ..code(10, "warren-vmm: end: powered-off\n") }, "BROKE"),
        ] {
            assert_eq!(judge(&seen).name(), name, "{seen:?}");
        }
    }
}
