//! One run of the lab host: a QEMU process, its console, its end.

use crate::{
    console::{self, Line},
    emulator::Emulator,
    kernel::Kernel,
};
use anyhow::{Context as _, Result};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// How the machine keeps time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Wall time; several CPUs run in parallel.
    Wall,
    /// One instruction is one virtual nanosecond: repeatable figures, one CPU.
    Virtual,
}

/// The machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// CPUs; 1 under [`Time::Virtual`].
    pub cpus: u32,
    /// Clock.
    pub time: Time,
    /// Who emulates it.
    pub emulator: Emulator,
    /// Wall time after which the machine is ended.
    pub limit: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job's exit code.
    Exited(i32),
    /// The machine ended (panic, power cut) without saying so.
    Died,
    /// The limit passed and the machine was ended.
    TimedOut,
}

impl Machine {
    /// The QEMU command line (the peers' figures in README were measured with exactly the [`Time::Virtual`] one).
    fn command(&self, kernel: &Kernel, initramfs: &Path, cache: &Path) -> Result<Command> {
        let mut qemu = self.emulator.command(cache)?;
        qemu.args([
            "-M",
            "q35",
            "-cpu",
            "EPYC-v3,+svm,+npt",
            "-nodefaults",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ]);
        qemu.args(["-serial", "stdio", "-m", &self.memory_mib.to_string()]);
        let mut append = "console=ttyS0 panic=-1 quiet nokaslr mitigations=off".to_owned();
        match self.time {
            Time::Wall => {
                qemu.args(["-accel", "tcg,thread=multi", "-smp", &self.cpus.to_string()]);
            }
            Time::Virtual => {
                qemu.args([
                    "-accel",
                    "tcg,thread=single",
                    "-icount",
                    "shift=0,sleep=off",
                    "-smp",
                    "1",
                    "-seed",
                    "1",
                ]);
                qemu.args(["-rtc", "base=2026-01-01,clock=vm"]);
                append.push_str(" tsc=reliable random.trust_cpu=on");
            }
        }
        qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs).args(["-append", &append]);
        Ok(qemu)
    }

    /// Runs to the end. Each console line that is not the lab's own goes to `show` as it comes. What has to be built first is
    /// kept in `cache`.
    pub fn run(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        cache: &Path,
        mut show: impl FnMut(&str),
    ) -> Result<Verdict> {
        let mut command = self.command(kernel, initramfs, cache)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("setpriv does not start (Debian package util-linux)")?;
        let console = child.stdout.take().context("the console is a pipe")?;
        let complaints = child.stderr.take().context("the errors are a pipe")?;
        let complaints = thread::spawn(move || relay_complaints(BufReader::new(complaints)));
        let watchdog = Watchdog::start(child, self.limit);

        let mut verdict = None;
        let mut reader = BufReader::new(console);
        let mut raw = Vec::new();
        while reader.read_until(b'\n', &mut raw)? > 0 {
            match console::parse(&console::plain(&raw)) {
                Line::Exit(code) => verdict = Some(Verdict::Exited(code)),
                Line::Up(uptime) => show(&format!("lab: host is up after {uptime} s of its time")),
                Line::Text("") => {}
                Line::Text(line) => show(line),
            }
            raw.clear();
        }
        let timed_out = watchdog.finish();
        // It only prints; a panic there would have been printed too.
        let _ = complaints.join();
        Ok(verdict.unwrap_or(if timed_out { Verdict::TimedOut } else { Verdict::Died }))
    }
}

/// Shows what QEMU complains of, but for the processor features of the model that software emulation lacks.
fn relay_complaints(lines: impl std::io::BufRead) {
    for line in lines.lines().map_while(Result::ok) {
        if !line.contains("TCG doesn't support requested feature") {
            eprintln!("{line}");
        }
    }
}

/// Ends QEMU when the limit passes or the owner is gone; always reaps it.
struct Watchdog {
    done: mpsc::Sender<()>,
    fired: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    fn start(mut child: Child, limit: Duration) -> Self {
        let (done, waits) = mpsc::channel();
        let fired = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&fired);
        let thread = thread::spawn(move || {
            if waits.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                // The only failure is that it ended by itself in this moment.
                let _ = child.kill();
            }
            let _ = child.wait();
        });
        Self { done, fired, thread: Some(thread) }
    }

    fn finish(mut self) -> bool {
        let _ = self.done.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.fired.load(Ordering::SeqCst)
    }
}
