//! What became of every case, for people; and whether that is as it must be.

use super::soak;
use std::collections::BTreeMap;
use warren_agent::jailer::Ending;
use warren_agent::sandbox::{ends::reason, machine::Cause};
use warren_hostile_guest::verdict::{Seen, Verdict};

/// Verdicts in the order of the columns.
const COLUMNS: [&str; 4] = ["PASS", "KILLED", "WEDGED", "BROKE"];

/// The table.
#[derive(Default)]
pub(crate) struct Table {
    verdicts: BTreeMap<String, BTreeMap<&'static str, usize>>,
    reasons: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

/// What the agent reports for it.
pub(crate) fn reported(seen: &Seen) -> &'static str {
    let ending = Ending { exit: seen.exit, out_of_memory: seen.out_of_memory };
    match reason(&Cause::Lost(String::new()), ending) {
        // Who was told to end: the agent is who told it.
        "lost" if seen.log.contains("end: shutdown") => "destroyed",
        reason => reason,
    }
}

impl Table {
    /// A case.
    pub(crate) fn add(
        &mut self,
        on: &str,
        name: &str,
        seen: &Seen,
        verdict: &Verdict,
        differs: Option<String>,
    ) {
        let reported = reported(seen);
        if soak() {
            println!("{on:>9} {name}: {verdict} ({reported})");
        }
        *self.verdicts.entry(on.into()).or_default().entry(verdict.name()).or_default() += 1;
        *self.reasons.entry(reported).or_default() += 1;
        if let Some(why) = differs {
            self.wrong.push(format!("{on}: {name}: {why}; {}", last_lines(&seen.log)));
        } else if verdict.is_defect() || reported == "lost" {
            self.wrong
                .push(format!("{on}: {name}: {verdict}, reported as {reported}; {}", last_lines(&seen.log)));
        }
    }

    /// Prints it, and insists.
    pub(crate) fn end(self) {
        println!("{:>9} {:>6} {}", "on", "cases", COLUMNS.map(|name| format!("{name:>7}")).join(""));
        let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
        for (on, verdicts) in &self.verdicts {
            let row = COLUMNS.map(|name| {
                let count = verdicts.get(name).copied().unwrap_or_default();
                *sums.entry(name).or_default() += count;
                format!("{count:>7}")
            });
            println!("{on:>9} {:>6} {}", verdicts.values().sum::<usize>(), row.join(""));
        }
        let row = COLUMNS.map(|name| format!("{:>7}", sums.get(name).copied().unwrap_or_default()));
        println!("{:>9} {:>6} {}", "all", sums.values().sum::<usize>(), row.join(""));
        let reasons: Vec<_> =
            self.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        println!("reported by the agent as: {}", reasons.join(", "));
        assert!(self.wrong.is_empty(), "{} of them wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

/// Of a log.
fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
