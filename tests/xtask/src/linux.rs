//! `soak linux`: the full form of everything about Linux guests, as one command.
//!
//! Its parts are programs that emulate one processor each, so two run side by side where there are two. Every line is marked
//! with its part; a part that fails stops no other, so that one run tells all.

use crate::{guests, network, paths, programs::TestProgram, runtimes, setup, shell};
use anyhow::{Context as _, Result, bail};
use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Emulated machines at once: each has up to 5 GiB of this machine's memory.
const LANES: usize = 2;

/// A part's name, and its program.
struct Part {
    name: &'static str,
    command: Command,
}

/// What makes a part's program, or nothing where this machine cannot run it.
type Maker<'a> = &'a dyn Fn() -> Result<Option<Command>>;

/// How a part ended.
struct Ended {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// Every part, or those whose names begin so.
pub(crate) fn soak(programs: &[TestProgram], only: &str) -> Result<()> {
    setup::for_emulator()?;
    let parts = parts(programs, only)?;
    if parts.is_empty() {
        bail!("no part of soak linux begins with {only:?}");
    }
    let (begin, all) = (Instant::now(), parts.len());
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(LANES);
    println!("==> soak linux: {all} parts, {lanes} at once");
    let waiting = Mutex::new(parts);
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(part) = next(&waiting) {
                    let end = part.run(begin);
                    if let Ok(mut ended) = ended.lock() {
                        ended.push(end);
                    }
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap_or_default();
    for Ended { name, took, failure } in &ended {
        println!(
            "    {name}: {}{}",
            shell::short(*took),
            failure.as_deref().map_or(String::new(), |why| format!(", {why}"))
        );
    }
    let failed: Vec<_> = ended.iter().filter(|end| end.failure.is_some()).map(|end| end.name).collect();
    println!(
        "==> soak linux: {} of {all} parts passed, in {}",
        ended.len() - failed.len(),
        shell::short(begin.elapsed())
    );
    if !failed.is_empty() || ended.len() != all {
        bail!("soak linux failed: {}", failed.join(", "));
    }
    Ok(())
}

fn next(waiting: &Mutex<VecDeque<Part>>) -> Option<Part> {
    waiting.lock().ok()?.pop_front()
}

/// The longest first, so that the lanes end together.
fn parts(programs: &[TestProgram], only: &str) -> Result<VecDeque<Part>> {
    const FULL: &str = "WARREN_SOAK=1 ";
    let root = paths::root();
    let own = |name: &str, beside: bool, words: &[&str]| -> Result<Option<Command>> {
        let program = programs.iter().find(|program| program.beside == beside && program.name == name);
        let mut command = program.with_context(|| format!("there is no test program {name}"))?.command();
        command.args(words).env("WARREN_SOAK", "1");
        Ok(Some(command))
    };
    let makers: [(&'static str, Maker<'_>); 7] = [
        ("runtimes", &|| runtimes::every(&root, programs, true)),
        ("monitor", &|| guests::monitor(programs, FULL).map(Some)),
        ("supervisor", &|| guests::supervisor(programs, FULL).map(Some)),
        ("network, kernel 6.12", &|| network::lab(&root, "6.12", true)),
        ("lives of functions", &|| runtimes::lives(&root, true)),
        ("clients", &|| own("clients", true, &[])),
        ("hostile drivers", &|| own("warren_vmm", false, &["hostile"])),
    ];
    let wanted = makers.iter().filter(|(name, _)| name.starts_with(only));
    let mut parts = VecDeque::new();
    for (name, make) in wanted {
        match make()? {
            Some(command) => parts.push_back(Part { name, command }),
            None => bail!("{name} cannot run here"),
        }
    }
    Ok(parts)
}

impl Part {
    /// Runs it to its end, and shows what it says as it says it.
    fn run(mut self, since: Instant) -> Ended {
        let begin = Instant::now();
        let failure = self.follow(since).unwrap_or_else(|error| Some(format!("{error:#}")));
        let took = begin.elapsed();
        let said = failure.as_deref().unwrap_or("passed");
        println!("{} {said} after {}", self.mark(since), shell::short(took));
        Ended { name: self.name, took, failure }
    }

    fn follow(&mut self, since: Instant) -> Result<Option<String>> {
        println!("{} begins", self.mark(since));
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().context("it does not start")?;
        let (out, complaints) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| self.show(since, out));
            self.show(since, complaints);
        });
        let status = child.wait()?;
        Ok((!status.success()).then(|| format!("FAILED ({status})")))
    }

    fn show(&self, since: Instant, from: Option<impl Read>) {
        let Some(from) = from else { return };
        let lines = BufReader::new(from).split(b'\n');
        for line in lines.map_while(Result::ok).filter(|line| !line.is_empty()) {
            println!("{} {}", self.mark(since), String::from_utf8_lossy(&line));
        }
    }

    /// Minutes since all began, and the part's name.
    fn mark(&self, since: Instant) -> String {
        let s = since.elapsed().as_secs();
        format!("{:3}:{:02} {} |", s / 60, s % 60, self.name)
    }
}
