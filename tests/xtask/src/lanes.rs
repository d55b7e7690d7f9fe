//! Long programs that are a case each, two at once: an emulated machine seldom keeps more than one processor busy.
//!
//! Every line is marked with its part and the time since the first began; a part that fails stops no other, so that one run tells
//! all.

use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Emulated machines at once: each has up to 5 GiB of this machine's memory.
const LANES: usize = 2;

/// How `warren-lab` and timeout(1) end what came to no end.
const NO_END: i32 = 124;

/// A part's name, and its program.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) command: Command,
    /// Linux guests on the installed emulator: one that comes to no end gets a second try. That QEMU delivers an interrupt to a guest
    /// of its guest twice now and then, which may stop it for ever (tests/README.md); what stands still by itself does so again.
    pub(crate) on_installed_emulator: bool,
}

/// How a part ended.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// Its first try came to no end.
    pub(crate) again: bool,
    pub(crate) failure: Option<String>,
}

/// Runs all of them to their ends, in this order as far as there are lanes: the longest first, so that the lanes end together.
pub(crate) fn run(what: &str, parts: Vec<Part>) -> Vec<Ended> {
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(LANES);
    let queue = Mutex::new(VecDeque::from(parts));
    follow_all(what, &vec![&queue; lanes])
}

/// Runs all of every queue, a lane each, sums up, and fails if one did.
pub(crate) fn all_of(what: &str, queues: Vec<Vec<Part>>) -> Result<()> {
    let (begin, all) = (Instant::now(), queues.iter().map(Vec::len).sum());
    let queues: Vec<_> = queues.into_iter().map(|parts| Mutex::new(VecDeque::from(parts))).collect();
    sum_up(what, all, begin, &follow_all(what, &queues.iter().collect::<Vec<_>>()))
}

/// The last lines of a soak of so many parts; an error names those that failed.
pub(crate) fn sum_up(what: &str, all: usize, begin: Instant, ended: &[Ended]) -> Result<()> {
    let failed: Vec<_> =
        ended.iter().filter(|end| end.failure.is_some()).map(|end| end.name.as_str()).collect();
    let passed = ended.len() - failed.len();
    println!("==> {what}: {passed} of {all} parts passed, in {}", shell::short(begin.elapsed()));
    if !failed.is_empty() || ended.len() != all {
        bail!("{what} failed: {}", failed.join(", "));
    }
    Ok(())
}

/// A lane for each of these queues; two of them may be one.
fn follow_all(what: &str, lanes: &[&Mutex<VecDeque<Part>>]) -> Vec<Ended> {
    let begin = Instant::now();
    let mut parts = 0;
    for (at, queue) in lanes.iter().enumerate() {
        let is_new = !lanes.iter().take(at).any(|other| std::ptr::eq(*other, *queue));
        parts += queue.lock().map_or(0, |queue| if is_new { queue.len() } else { 0 });
    }
    println!("==> {what}: {parts} parts, {} at once", lanes.len());
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for queue in lanes {
            scope.spawn(|| {
                while let Some(part) = next(queue) {
                    let end = part.run(begin);
                    if let Ok(mut ended) = ended.lock() {
                        ended.push(end);
                    }
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap_or_default();
    for Ended { name, took, again, failure } in &ended {
        let again = if *again { ", at the second try: the first came to NO END" } else { "" };
        let failure = failure.as_deref().map_or(String::new(), |why| format!(", {why}"));
        println!("    {name}: {}{again}{failure}", shell::short(*took));
    }
    ended
}

fn next(waiting: &Mutex<VecDeque<Part>>) -> Option<Part> {
    waiting.lock().ok()?.pop_front()
}

impl Part {
    /// Runs it to its end, and shows what it says as it says it.
    fn run(mut self, since: Instant) -> Ended {
        let begin = Instant::now();
        let mut status = self.follow(since);
        let no_end = status.as_ref().is_ok_and(|status| status.code() == Some(NO_END));
        let again = no_end && self.on_installed_emulator;
        if again {
            println!("{} NO END after {}: once more", self.mark(since), shell::short(begin.elapsed()));
            status = self.follow(since);
        }
        let failure = match status {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("FAILED ({status})")),
            Err(error) => Some(format!("{error:#}")),
        };
        let took = begin.elapsed();
        let said = failure.as_deref().unwrap_or("passed");
        println!("{} {said} after {}", self.mark(since), shell::short(took));
        Ended { name: self.name, took, again, failure }
    }

    fn follow(&mut self, since: Instant) -> Result<ExitStatus> {
        println!("{} begins", self.mark(since));
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().context("it does not start")?;
        let (out, complaints) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| self.show(since, out));
            self.show(since, complaints);
        });
        Ok(child.wait()?)
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
