//! What the worker's own records say of who ran when: START and END of every invocation, to the microsecond.
//!
//! The agent stamps START after its state machine has let the invocation in, and END before it lets the sandbox go. So two
//! invocations of one sandbox whose intervals overlap were in it at once; and so many intervals at one moment are so many
//! handlers that ran at that moment, or fewer.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// One invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its function.
    pub function: String,
    /// Where it ran.
    pub sandbox: String,
    /// Its id.
    pub request: String,
    /// START.
    pub begin_us: u64,
    /// END.
    pub end_us: u64,
}

/// Reads every log file below a directory. Each START must have its END: nothing may be lost.
pub fn read(logs: &Path) -> Result<Vec<Interval>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(logs).with_context(|| logs.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(function) = name.strip_suffix(".jsonl") {
            // The older file first, if there is one.
            let older = fs::read_to_string(path.with_extension("jsonl.1")).unwrap_or_default();
            let text = older + &fs::read_to_string(&path)?;
            all.extend(of_one(function, &text)?);
        }
    }
    Ok(all)
}

fn of_one(function: &str, text: &str) -> Result<Vec<Interval>> {
    let mut open: HashMap<(String, String), u64> = HashMap::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("{function}: {line}"))?;
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (request, sandbox, said) = (word("r"), word("s"), word("x"));
        let at = line["t"].as_u64().context("a line without time")?;
        if said.starts_with("START RequestId: ") {
            let before = open.insert((sandbox, request.clone()), at);
            ensure!(before.is_none(), "{function}: {request} started twice");
        } else if said.starts_with("END RequestId: ") {
            let begin_us = open
                .remove(&(sandbox.clone(), request.clone()))
                .with_context(|| format!("END of {request}"))?;
            all.push(Interval { function: function.to_owned(), sandbox, request, begin_us, end_us: at });
        }
    }
    ensure!(open.is_empty(), "{function}: without END: {open:?}");
    Ok(all)
}

/// Two invocations that were in one sandbox at once, if there are any.
#[must_use]
pub fn overlap(all: &[Interval]) -> Option<(&Interval, &Interval)> {
    let mut of: BTreeMap<&str, Vec<&Interval>> = BTreeMap::new();
    for one in all {
        of.entry(&one.sandbox).or_default().push(one);
    }
    of.into_values().find_map(|mut those| {
        those.sort_by_key(|one| (one.begin_us, one.end_us));
        those.windows(2).find_map(|pair| match pair {
            [first, second] if second.begin_us < first.end_us => Some((*first, *second)),
            _ => None,
        })
    })
}

/// Most of these at one moment.
pub fn most_at_once<'a>(all: impl Iterator<Item = &'a Interval>) -> usize {
    let mut edges: Vec<(u64, bool)> =
        all.flat_map(|one| [(one.begin_us, true), (one.end_us, false)]).collect();
    // At one and the same moment, whoever ends makes room for whoever begins.
    edges.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in edges {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(sandbox: &str, begin_us: u64, end_us: u64) -> Interval {
        let (function, request) = ("f".to_owned(), format!("{sandbox}-{begin_us}"));
        Interval { function, sandbox: sandbox.to_owned(), request, begin_us, end_us }
    }

    #[test]
    fn table() {
        let apart = [interval("a", 1, 5), interval("a", 5, 9), interval("b", 2, 8)];
        assert_eq!((overlap(&apart), most_at_once(apart.iter())), (None, 2));
        let together = [interval("a", 1, 5), interval("b", 0, 9), interval("a", 4, 6)];
        let (first, second) = overlap(&together).unwrap();
        assert_eq!((first.begin_us, second.begin_us), (1, 4));
        assert_eq!(most_at_once(together.iter()), 3);
        assert_eq!(most_at_once([].iter()), 0);
    }

    #[test]
    fn lines() {
        let line = |at: u64, text: &str| format!(r#"{{"t":{at},"n":1,"r":"r1","s":"s1","x":"{text}"}}"#);
        let good = [line(3, "START RequestId: r1"), line(4, "hello"), line(9, "END RequestId: r1")];
        let found = of_one("f", &good.join("\n")).unwrap();
        assert_eq!(found, [Interval { request: "r1".into(), ..interval("s1", 3, 9) }]);
        assert!(of_one("f", &good[..2].join("\n")).is_err(), "an END is missing");
        assert!(of_one("f", &good[1..].join("\n")).is_err(), "a START is missing");
    }

    proptest! {
        /// The sweep counts as a look at every moment does.
        #[test]
        fn as_many_as_a_look_at_every_moment(pairs in proptest::collection::vec((0_u64..30, 1_u64..9), 0..20)) {
            let all: Vec<_> = pairs.iter().map(|(begin, long)| interval("s", *begin, begin + long)).collect();
            let at = |now: u64| all.iter().filter(|one| one.begin_us <= now && now < one.end_us).count();
            let most = (0..40).map(at).max().unwrap_or(0);
            prop_assert_eq!(most_at_once(all.iter()), most);
            prop_assert_eq!(overlap(&all).is_some(), most > 1);
        }
    }
}
