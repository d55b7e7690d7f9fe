//! The file-size report: nothing over 400 lines without a reason in its header.

use crate::{paths, shell};
use anyhow::{Result, bail};
use std::process::Command;

const LIMIT: usize = 400;
/// A header line that begins so gives the reason.
const REASON: &str = "long because";

/// Prints the spread and every long file; fails for a long file that says no reason in its first 30 lines.
pub(crate) fn report() -> Result<()> {
    let root = paths::root();
    let listing = shell::output(Command::new("git").current_dir(&root).args([
        "ls-files",
        "-co",
        "--exclude-standard",
        "*.rs",
        "*.proto",
        "*.wit",
    ]))?;
    let mut sizes: Vec<(usize, String, bool)> = listing
        .lines()
        .filter_map(|name| {
            let text = std::fs::read_to_string(root.join(name)).ok()?;
            let reason = text.lines().take(30).any(|line| line.to_lowercase().contains(REASON));
            Some((text.lines().count(), name.to_owned(), reason))
        })
        .collect();
    sizes.sort();
    let at = |share: usize| sizes.get(sizes.len().saturating_sub(1) * share / 100).map_or(0, |entry| entry.0);
    println!(
        "==> file sizes: {} files, median {} lines, 90 % under {}, longest {}",
        sizes.len(),
        at(50),
        at(90),
        at(100)
    );
    let long: Vec<_> = sizes.iter().rev().filter(|entry| entry.0 > LIMIT).collect();
    for (lines, name, reason) in &long {
        println!("    {lines:5} {name}{}", if *reason { " (reason given)" } else { " NO REASON" });
    }
    let bad = long.iter().filter(|entry| !entry.2).count();
    if bad > 0 {
        bail!("{bad} files over {LIMIT} lines whose header does not say `{REASON} ...`");
    }
    Ok(())
}
