//! What tests/README.md says shows a thing: the test is there. A row that outlives its test is a promise nobody keeps.

use crate::{paths, shell};
use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeSet, process::Command};

/// Where tests are named in tables, as `place::test`.
const TABLES: &str = "tests/README.md";

/// Fails for every test that a table names and no source has.
pub(crate) fn report() -> Result<()> {
    let root = paths::root();
    let text = std::fs::read_to_string(root.join(TABLES)).context(TABLES)?;
    let listing = ["ls-files", "-co", "--exclude-standard", "*.rs"];
    let listing = shell::output(Command::new("git").current_dir(&root).args(listing))?;
    let mut there = BTreeSet::new();
    for file in listing.lines() {
        there.extend(
            functions(&std::fs::read_to_string(root.join(file)).unwrap_or_default()).map(str::to_owned),
        );
    }
    let named = named(&text);
    println!("==> tests named in {TABLES}: {}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !there.contains(*name)).collect();
    if !missing.is_empty() {
        bail!("{TABLES} names tests that are not there: {}", missing.join(", "));
    }
    Ok(())
}

/// The last parts of what stands in a table between backticks with `::` in it, or is that part alone, which has a `_`.
fn named(text: &str) -> BTreeSet<&str> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names = quoted.filter(|word| {
        word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
    });
    names
        .filter(|word| word.contains("::") || word.contains('_'))
        .filter_map(|word| word.rsplit("::").next())
        .collect()
}

/// The names of functions in a source.
fn functions(source: &str) -> impl Iterator<Item = &str> {
    let after = source.split("fn ").skip(1);
    after
        .filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_rows_and_sources() {
        let text = "Not here: `a::gone`.\n| x | `limits::here`, `also_here` (`warm`) | `--flag`, `A::B`, NO_REASON |\n";
        assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["also_here", "here"]);
        let source = "async fn here(x: u8) {}\n    pub(crate) fn also_here<T>() {}\n// a fn\n";
        assert_eq!(functions(source).collect::<Vec<_>>(), ["here", "also_here"]);
    }
}
