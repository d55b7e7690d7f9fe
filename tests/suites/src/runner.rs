//! Runs the cases of a suite one after the other, with the output of libtest, so that every tool that reads one reads
//! the other.

use crate::{Installation, Options};
use anyhow::Result;
use std::{
    future::Future,
    path::Path,
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

/// A case that takes longer hangs.
const LONGEST: Duration = Duration::from_mins(10);

/// A running case.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Starts it.
    pub run: for<'a> fn(&'a Installation) -> Running<'a>,
}

/// Makes a [`Case`] of an `async fn(&Installation) -> Result<()>`.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$($crate::Case { name: stringify!($name), run: |warren| Box::pin($name(warren)) }),*]
    };
}

/// One suite: an installation and its cases.
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// How its Warren is started.
    pub options: Options,
    /// What runs on it, in this order.
    pub cases: &'static [Case],
}

/// Whether the full form was asked for (`cargo xtask soak`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

impl Suite {
    /// Runs it as a test program.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let names = names(&arguments);
        let wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| case.name.contains(name));
        let cases: Vec<&Case> = self.cases.iter().filter(wanted).collect();
        if arguments.iter().any(|word| word == "--list") {
            for case in cases {
                println!("{}::{}: test", self.name, case.name);
            }
            return ExitCode::SUCCESS;
        }
        if cases.is_empty() {
            // A filter meant for another suite; said, so that nobody takes it for a run.
            println!(
                "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; {} filtered out",
                self.cases.len()
            );
            return ExitCode::SUCCESS;
        }
        if let Some(why) = unable() {
            for case in &cases {
                println!("warren-skipped: {}::{}: {why}", self.name, case.name);
            }
            println!("test result: ok. 0 passed; 0 failed; {} ignored; 0 measured", cases.len());
            return ExitCode::SUCCESS;
        }
        println!("\nrunning {} tests ({})", cases.len(), self.name);
        let begin = Instant::now();
        let failed = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(run(&self, &cases)),
            Err(error) => vec![(self.name, error.into())],
        };
        for (name, error) in &failed {
            println!("\n---- {}::{name} ----\n{error:#}", self.name);
        }
        let word = if failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
            cases.len().saturating_sub(failed.len()),
            failed.len(),
            self.cases.len() - cases.len(),
            begin.elapsed().as_secs_f64()
        );
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A case that needs no installation.
pub type Plain<'a> = (&'a str, &'a dyn Fn() -> Result<()>);

/// Runs cases that make their own circumstances, before or after those of a [`Suite`]. Says whether all went well.
#[must_use]
pub fn plain(suite: &str, cases: &[Plain<'_>]) -> bool {
    let mut failed = 0;
    for (name, run) in cases {
        let begin = Instant::now();
        let result = run();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {suite}::{name} ... {word} ({:.1} s)", begin.elapsed().as_secs_f64());
        if let Err(error) = result {
            failed += 1;
            println!("\n---- {suite}::{name} ----\n{error:#}\n");
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured", cases.len() - failed);
    failed == 0
}

async fn run(suite: &Suite, cases: &[&Case]) -> Vec<(&'static str, anyhow::Error)> {
    let warren = match Installation::start(suite.name, &suite.options).await {
        Ok(warren) => warren,
        Err(error) => return vec![("start", error)],
    };
    let mut failed = Vec::new();
    for case in cases {
        let begin = Instant::now();
        let result = match tokio::time::timeout(LONGEST, (case.run)(&warren)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("hangs: not done after {} s", LONGEST.as_secs())),
        };
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {}::{} ... {word} ({:.1} s)", suite.name, case.name, begin.elapsed().as_secs_f64());
        if let Err(error) = result {
            failed.push((case.name, error));
        }
    }
    if !failed.is_empty() {
        println!("{}", warren.log_tails());
    }
    if let Err(error) = warren.stop().await {
        failed.push(("stop", error));
    }
    failed
}

/// The words that are filters: neither flags nor the values of libtest's flags.
fn names(arguments: &[String]) -> Vec<&str> {
    const WITH_VALUE: [&str; 4] = ["--test-threads", "--color", "--format", "--skip"];
    let mut names = Vec::new();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            names.push(word);
        }
    }
    names
}

/// Why no suite can run here.
fn unable() -> Option<&'static str> {
    if !Path::new("/dev/kvm").exists() {
        return Some("this machine has no /dev/kvm");
    }
    if !rustix::process::geteuid().is_root() && !prepared() {
        return Some("not root, and this machine is not prepared for this user (warren host status)");
    }
    None
}

/// Whether `warren up` of this user finds a jailer.
fn prepared() -> bool {
    let mut asked = std::process::Command::new(crate::collected().join("bin/warren"));
    asked.args(["host", "status", "--json"]).stdout(std::process::Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn values_of_flags_are_no_filters() {
        for (line, expected) in
            [("", vec![]), ("--test-threads 2", vec![]), ("a --nocapture b", vec!["a", "b"])]
        {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(names(&words), expected, "{line}");
        }
    }
}
