//! Counting what passed: test programs, their `test result:` lines, and commands that are one case.

use crate::{lanes::Ended, programs::TestProgram, shell};
use anyhow::{Context, Result};
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

/// What the parts counted.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) broken: Vec<String>,
}

impl Tally {
    /// Runs test programs one after the other as one part.
    pub(crate) fn programs<'a>(&mut self, name: &str, programs: impl Iterator<Item = &'a TestProgram>) {
        println!("==> {name}");
        let begin = Instant::now();
        for program in programs {
            self.command(&program.label(), &mut program.command());
        }
        println!("    {name}: {}", shell::short(begin.elapsed()));
    }

    /// One test command as a part of its own.
    pub(crate) fn part(&mut self, name: &str, command: &mut Command) {
        println!("==> {name}");
        let begin = Instant::now();
        self.command(name, command);
        println!("    {name}: {}", shell::short(begin.elapsed()));
    }

    /// Runs a test command, shows its output, and counts the `test result:` lines of libtest.
    fn command(&mut self, name: &str, command: &mut Command) {
        let before = self.failed;
        match self.count(command) {
            Ok(true) => {}
            Ok(false) => {
                self.failed = self.failed.max(before + 1);
                self.broken.push(name.to_owned());
            }
            Err(error) => self.fail(format!("{name} ({error:#})")),
        }
    }

    /// One program that was one case.
    pub(crate) fn case(&mut self, Ended { name, failure, .. }: Ended) {
        match failure {
            None => self.passed += 1,
            Some(why) => self.fail(format!("{name}: {why}")),
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        eprintln!("    FAILED {what}");
        self.failed += 1;
        self.broken.push(what);
    }

    fn count(&mut self, command: &mut Command) -> Result<bool> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start it")?;
        let out = child.stdout.take().context("no output")?;
        for line in BufReader::new(out).lines() {
            let line = line?;
            let quiet = line.starts_with("running 0 tests") || line.ends_with("... ok") || line.is_empty();
            if let Some(counts) = line.strip_prefix("test result: ") {
                self.add(counts);
            } else if line.starts_with("warren-skipped: ") {
                self.skipped += 1;
                println!("{line}");
            } else if !quiet {
                println!("{line}");
            }
        }
        Ok(child.wait()?.success())
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; ...`
    fn add(&mut self, counts: &str) {
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(number), Some(what)) = (words.next(), words.next()) {
                let number = number.parse::<u64>().unwrap_or(0);
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }
}
