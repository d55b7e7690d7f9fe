//! One watched process.
//!
//! ```text
//!              spawn            `ready` line
//!   Waiting ----------> Starting ----------> Ready
//!      ^    backoff         | exit             | exit
//!      +--------------------+------------------+
//!   Starting -- 3 exits without ever having been ready --> Failed
//!   any state -- stop --> SIGTERM -- exit, or SIGKILL after 15 s --> Stopped
//! ```
//! One task owns the machine; everybody else sees [`Status`] through a watch channel.

use super::log;
use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use warren_client::{Failure, Outcome};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A process that ran so long starts again without much of a pause.
const STEADY: Duration = Duration::from_secs(20);
const TRIES: u32 = 3;
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// What to run.
pub(crate) struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// What of this process's environment it gets, beside the path and what is logged.
    pub environment: &'static [&'static str],
    /// Passed as `--listen`; a port of 0 becomes the real one with the first ready line, and stays over restarts.
    pub listen: Option<SocketAddr>,
    /// User and group; none means this one's.
    pub uid: Option<u32>,
    /// Receives standard error, and standard output but for the ready line.
    pub log: PathBuf,
}

/// Where the machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Starting,
    Ready { listen: Option<SocketAddr> },
    Failed(String),
    Stopped,
}

/// A watched process.
pub(crate) struct Supervised {
    pub name: &'static str,
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts it and its watcher.
    pub(crate) fn start(spec: Spec) -> Self {
        let (status_writer, status) = watch::channel(Status::Starting);
        let (stop, stop_reader) = watch::channel(false);
        let name = spec.name;
        let machine = Machine { spec, status: status_writer, stop: stop_reader };
        Self { name, status, stop, task: tokio::spawn(machine.run()) }
    }

    /// Waits until it serves; gives the address it listens on.
    pub(crate) async fn ready(&mut self, within: Duration) -> Outcome<Option<SocketAddr>> {
        let name = self.name;
        let settled = self.status.wait_for(|status| *status != Status::Starting);
        match timeout(within, settled).await {
            Err(_) => Err(Failure::local(format!("{name} did not get ready within {} s", within.as_secs()))),
            Ok(Err(_)) => Err(Failure::local(format!("{name} is no longer watched"))),
            Ok(Ok(status)) => match &*status {
                Status::Ready { listen } => Ok(*listen),
                Status::Failed(why) => Err(Failure::local(why.clone())),
                Status::Starting | Status::Stopped => Err(Failure::local(format!("{name} was stopped"))),
            },
        }
    }

    /// Waits until the watcher has given up on it.
    pub(crate) async fn failed(&mut self) -> Failure {
        match self.status.wait_for(|status| matches!(status, Status::Failed(_))).await {
            Ok(status) => match &*status {
                Status::Failed(why) => Failure::local(why.clone()),
                _ => Failure::local(format!("{} ended", self.name)),
            },
            Err(_) => Failure::local(format!("{} is no longer watched", self.name)),
        }
    }

    /// Stops it; returns when it is gone.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        let _panicked = self.task.await;
    }
}

struct Machine {
    spec: Spec,
    status: watch::Sender<Status>,
    stop: watch::Receiver<bool>,
}

enum Ended {
    Stopped,
    Exited(ExitStatus),
}

impl Machine {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let (mut failures, mut ever_ready) = (0, false);
        loop {
            let began = Instant::now();
            let exit = match self.once().await {
                Ok(Ended::Stopped) => {
                    self.status.send_replace(Status::Stopped);
                    return;
                }
                Ok(Ended::Exited(exit)) => exit.to_string(),
                Err(error) => format!("could not start: {error}"),
            };
            ever_ready |= matches!(*self.status.borrow(), Status::Ready { .. });
            failures += 1;
            if !ever_ready && failures == TRIES {
                self.status.send_replace(Status::Failed(self.obituary(&exit)));
                return;
            }
            if began.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            self.status.send_replace(Status::Starting);
            crate::screen::tell(&format!(
                "{} ended ({exit}), starting it again in {} ms",
                self.spec.name,
                pause.as_millis()
            ));
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping(&mut self.stop) => {}
            }
            if *self.stop.borrow() {
                self.status.send_replace(Status::Stopped);
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One life of the process.
    async fn once(&mut self) -> std::io::Result<Ended> {
        let mut log = log::open(&self.spec.log)?;
        let mut child = self.spawn(&log)?;
        let output = child.stdout.take().ok_or_else(|| std::io::Error::other("no standard output"))?;
        let mut lines = BufReader::new(output).lines();
        let mut open = true;
        let mut looks = interval(log::LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let said = tokio::select! {
                line = lines.next_line(), if open => line?,
                _ = looks.tick() => {
                    self.keep_bounded();
                    continue;
                }
                exit = child.wait() => return Ok(Ended::Exited(exit?)),
                () = stopping(&mut self.stop) => {
                    end(&mut child).await?;
                    return Ok(Ended::Stopped);
                }
            };
            let Some(line) = said else {
                open = false;
                continue;
            };
            if let Some(said) = line.strip_prefix("ready") {
                self.became_ready(said);
            }
            // The process does not depend on it: a full disk takes its words, not its life.
            let _lost = writeln!(log, "{line}");
        }
    }

    fn keep_bounded(&self) {
        if let Err(error) = log::bound(&self.spec.log, log::LARGEST) {
            crate::screen::tell(&format!("the older part of {} is lost: {error}", self.spec.log.display()));
        }
    }

    fn became_ready(&mut self, said: &str) {
        let real = said.split_whitespace().find_map(|word| word.strip_prefix("listen=")?.parse().ok());
        if let (Some(wanted), Some(real)) = (&mut self.spec.listen, real) {
            *wanted = real;
        }
        self.status.send_replace(Status::Ready { listen: self.spec.listen });
    }

    fn spawn(&self, log: &File) -> std::io::Result<Child> {
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.arguments);
        if let Some(listen) = self.spec.listen {
            command.arg("--listen").arg(listen.to_string());
        }
        command.env_clear();
        for name in ["PATH", "WARREN_LOG"].iter().chain(self.spec.environment) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(uid) = self.spec.uid {
            // Also drops every supplementary group, since this process is root.
            command.uid(uid).gid(uid);
        }
        // A group of its own: Ctrl-C reaches only us, and we stop them in order.
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .process_group(0);
        // If this task is dropped, the process goes with it.
        command.kill_on_drop(true).spawn()
    }

    fn obituary(&self, exit: &str) -> String {
        let Spec { name, log, .. } = &self.spec;
        let last = log::last_lines(log, 8);
        format!(
            "{name} ended {TRIES} times before it was ready ({exit}); the end of {}:\n{last}",
            log.display()
        )
    }
}

/// Ends when somebody asks for the stop, or can no longer ask.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _asked_or_gone = stop.wait_for(|stop| *stop).await;
}

async fn end(child: &mut Child) -> std::io::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Not reaped yet, so the number is still this child's.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match timeout(STOP_WITHIN, child.wait()).await {
        Ok(exit) => exit.map(drop),
        Err(_) => child.kill().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn shell(script: &str, log: &Path) -> Supervised {
        Supervised::start(Spec {
            name: "test",
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: &[],
            listen: None,
            uid: None,
            log: log.to_owned(),
        })
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn gets_ready_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("echo hello; echo ready; exec sleep 600", &dir.path().join("log"));
        assert!(child.ready(LONG).await.is_ok());
        child.stop().await;
    }

    #[tokio::test]
    async fn starts_again_after_a_death() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let script = format!("echo ready; if mkdir {}; then exit 7; fi; exec sleep 600", mark.display());
        let mut child = shell(&script, &dir.path().join("log"));
        child.ready(LONG).await.unwrap();
        // The first life ends at once; the second one stays.
        while std::fs::read_to_string(dir.path().join("log")).unwrap().matches("ready").count() < 2 {
            child.status.changed().await.unwrap();
        }
        child.ready(LONG).await.unwrap();
        child.stop().await;
    }

    #[tokio::test]
    async fn gives_up_on_what_never_gets_ready_and_shows_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("echo no such thing >&2; exit 3", &dir.path().join("log"));
        let why = child.ready(LONG).await.unwrap_err();
        // `ready` may see one of the pauses between tries; the verdict comes last.
        let why = if why.to_string().contains("no such thing") { why } else { child.failed().await };
        assert!(why.to_string().contains("no such thing"), "{why}");
        child.stop().await;
    }
}
