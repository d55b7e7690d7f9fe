//! `warren host`: prepares this machine once, as root, so that one user can run Warren without any privilege.
//!
//! ```text
//!   root, once:  warren host prepare --user ada      undone by: warren host unprepare
//!                  |  programs in a folder of root's    (never a file that its user can write)
//!                  |  the jailer as a service           one uid served, sandboxes and memory bounded
//!                  v
//!   ada, daily:  warren up                            control and agent as ada; the jailer through its socket
//! ```
//! What the user gains is "create sandboxes within limits". Modules: [`place`] paths, [`record`] what was made,
//! [`plan`] what is to be done (pure), [`apply`] doing it, [`undo`], [`service`] the jailer's process, [`status`] what a
//! user finds, [`contract`] what two builds must agree on, [`accounts`] and [`kvm`] users and the device, [`probe`].

mod accounts;
mod apply;
mod contract;
mod kvm;
mod place;
mod plan;
mod probe;
mod record;
mod service;
mod status;
mod undo;

pub(crate) use probe::Refusal;
pub(crate) use status::{Finding, State, advice, sudo_line, unprepare_line};

use crate::screen;
use place::Place;
use record::Record;
use std::path::PathBuf;
use warren_client::{Failure, Outcome};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Prepare this machine (root, once): afterwards that user runs `warren up` without privilege.
    #[command(after_help = "\
Each thing is said as it is done, and what is there already is skipped; run it again after an update. What was made is
written down in /etc/warren/host.json.

Examples:
  sudo warren host prepare                       for who typed sudo
  sudo warren host prepare --user ada --max-sandboxes 64 --max-memory-mib 4096
  warren host prepare --user ada --dry-run       only say what would be done")]
    Prepare(Box<Prepare>),
    /// Remove exactly what `prepare` made (root).
    #[command(after_help = "Examples:\n  sudo warren host unprepare\n  sudo warren host unprepare --json")]
    Unprepare(Below),
    /// Say whether this machine is prepared, for whom, and whether the jailer answers; exit code 7 if not for you.
    #[command(after_help = "Examples:\n  warren host status\n  warren host status --json")]
    Status(Below),
    /// Start the prepared jailer (root): for boot scripts, where there is no systemd.
    #[command(after_help = "Examples:\n  sudo warren host start")]
    Start(Below),
}

#[derive(clap::Args)]
pub(crate) struct Prepare {
    /// Who will run Warren, by name or number [default: who typed sudo].
    #[arg(long, env = "SUDO_UID", hide_env = true, value_name = "NAME|UID")]
    pub(crate) user: Option<String>,
    /// The jailer's own directory [default: /var/lib/warren-host].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Most sandboxes at a time [default: as before, at first 1024].
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_sandboxes: Option<u32>,
    /// Memory of all sandboxes together, MiB [default: as before, at first four fifths of the machine's].
    #[arg(long, value_name = "MIB")]
    pub(crate) max_memory_mib: Option<u64>,
    /// Whether Linux functions reach the world through this host: a namespace, a pair of links, a table of nftables and
    /// forwarding, as long as the jailer runs [default: as before, at first not].
    #[arg(long, value_name = "true|false")]
    pub(crate) network: Option<bool>,
    /// Whether this host's cgroup v2 is set so that VMs are made 10 ms sooner, as long as the jailer runs; each fork and exit of
    /// the host costs a little more (Linux 6.0) [default: as before, at first not].
    #[arg(long, value_name = "true|false")]
    pub(crate) favordynmods: Option<bool>,
    /// First of the user ids given to sandboxes [default: as before, at first 80000].
    #[arg(long, value_name = "UID")]
    pub(crate) uid_base: Option<u32>,
    /// Leave /dev/kvm as it is. Warren does not need it changed: the jailer opens it.
    #[arg(long)]
    pub(crate) keep_kvm: bool,
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) below: Below,
}

/// Which machine.
#[derive(clap::Args, Clone)]
pub(crate) struct Below {
    /// Everything below this directory instead of /; the machine's devices, accounts and services are left alone.
    #[arg(long, env = "WARREN_HOST_ROOT", default_value = "/", hide = true, value_name = "DIR")]
    pub(crate) root: PathBuf,
}

impl Below {
    fn place(&self) -> Place {
        Place::new(&self.root)
    }
}

/// Runs one of them.
pub(crate) fn run(command: &Command, json: bool) -> Outcome {
    match command {
        Command::Prepare(options) => prepare(options, json),
        Command::Unprepare(below) => {
            require_root("unprepare")?;
            let undone = undo::all(&below.place(), &mut Told::new(json))?;
            if json {
                screen::print_json(&serde_json::json!({ "removed": undone }));
            }
            Ok(())
        }
        Command::Status(below) => status::show(&below.place(), json),
        Command::Start(below) => {
            require_root("start")?;
            let place = below.place();
            let record = Record::load(&place.record())?
                .ok_or_else(|| Failure::Unprepared("this machine is not prepared".into()))?;
            let programs = service::programs_of(&place, &record)
                .ok_or_else(|| Failure::Unprepared("its preparation was interrupted; run it again".into()))?;
            apply::run_folder(&place)?;
            service::start(&place, &programs, &record.wish, plan::has_systemd(&place))?;
            Told::new(json).did("jailer", "started");
            Ok(())
        }
    }
}

fn prepare(options: &Prepare, json: bool) -> Outcome {
    let place = options.below.place();
    let ready = plan::gather(options, &place)?;
    let steps = plan::steps(&ready);
    let mut told = Told::new(json);
    if options.dry_run {
        for step in &steps {
            told.step(step, "would ");
        }
    } else {
        require_root("prepare")?;
        apply::all(&place, &ready, &steps, &mut told)?;
    }
    if json {
        screen::print_json(&told.json());
    } else if !options.dry_run {
        screen::print(&ready.farewell(&place));
    }
    Ok(())
}

fn require_root(what: &str) -> Outcome {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let line = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let own = std::env::current_exe().unwrap_or_else(|_| "warren".into());
    Err(Failure::Unprepared(format!("host {what} needs root:\n\n  sudo {} {line}\n", own.display())))
}

/// What was done and what was there, said as it happens.
pub(crate) struct Told {
    quiet: bool,
    changed: Vec<String>,
    kept: Vec<String>,
}

impl Told {
    fn new(quiet: bool) -> Self {
        Self { quiet, changed: Vec::new(), kept: Vec::new() }
    }

    fn step(&mut self, step: &plan::Step, prefix: &str) {
        match &step.need {
            plan::Need::Nothing(why) => self.kept(step.what, why),
            plan::Need::Do(action) => self.did(step.what, &format!("{prefix}{action}")),
        }
    }

    pub(crate) fn did(&mut self, what: &str, text: &str) {
        self.say("do", what, text);
        self.changed.push(format!("{what}: {text}"));
    }

    pub(crate) fn kept(&mut self, what: &str, text: &str) {
        self.say("ok", what, text);
        self.kept.push(format!("{what}: {text}"));
    }

    fn say(&self, grade: &str, what: &str, text: &str) {
        if !self.quiet {
            screen::print(&format!("{grade:<4}{what:<12}{text}"));
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "changed": self.changed, "kept": self.kept })
    }
}
