//! Which hosts have which bytes: code and files by digest, as far as this control process has seen them arrive.
//!
//! A hint for placement. What is not known here is fetched and compiled where it is wanted, so nothing depends on it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use warren_proto::v1::FunctionVersion;

/// All of it, as policies count: thousandths.
const ALL: u32 = 1000;

/// Hosts by digest.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Mutex<HashMap<Box<str>, BTreeSet<Arc<str>>>>);

impl Holdings {
    /// A host made this version startable.
    pub(crate) fn note(&self, host: &Arc<str>, version: &FunctionVersion) {
        let mut held = self.lock();
        for digest in digests(version) {
            held.entry(digest.into()).or_default().insert(Arc::clone(host));
        }
    }

    /// How much of a version's bytes a host has, thousandths: code and files count the same.
    pub(crate) fn locality(&self, host: &str, version: &FunctionVersion) -> u32 {
        let held = self.lock();
        let (mut all, mut here) = (0, 0);
        for digest in digests(version) {
            all += 1;
            here += u32::from(held.get(digest).is_some_and(|hosts| hosts.contains(host)));
        }
        (here * ALL).checked_div(all).unwrap_or(0)
    }

    /// Forgets what no version names any more.
    pub(crate) fn retain(&self, named: &BTreeSet<String>) {
        self.lock().retain(|digest, _| named.contains(&**digest));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, BTreeSet<Arc<str>>>> {
        // Sets of names, whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digests(version: &FunctionVersion) -> impl Iterator<Item = &str> {
    [version.code_digest.as_str(), version.task_digest.as_str()]
        .into_iter()
        .filter(|digest| !digest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(code: &str, task: &str) -> FunctionVersion {
        let (code_digest, task_digest) = (code.to_owned(), task.to_owned());
        FunctionVersion { code_digest, task_digest, ..FunctionVersion::default() }
    }

    #[test]
    fn thousandths_of_what_a_version_names() {
        let held = Holdings::default();
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        held.note(&one, &version("c", ""));
        held.note(&two, &version("c", "t"));
        let check = |host: &str, code: &str, task: &str, expect: u32| {
            assert_eq!(held.locality(host, &version(code, task)), expect, "{host} {code} {task}");
        };
        check("one", "c", "", 1000);
        check("one", "c", "t", 500);
        check("two", "c", "t", 1000);
        check("two", "x", "t", 500);
        check("three", "c", "t", 0);
        check("one", "", "", 0);
        held.retain(&["t".to_owned()].into());
        check("two", "c", "t", 500);
    }
}
