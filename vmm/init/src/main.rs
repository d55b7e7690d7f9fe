//! `warren-init`: PID 1 of a Linux guest.
//!
//! ```text
//!  kernel starts /init
//!    -> early mounts -> modules -> root (if one is named) -> program (if one is named) -> power off
//!          any step that fails: said on the console ----------------------------------------^
//! ```
//! What it is told comes from the kernel's command line: `warren.*` words ([`settings`]), and what stands behind `--`
//! is the program with its arguments. While the program runs, every orphan that ends is reaped.
//!
//! It is static and needs nothing but itself: no shell, no library, no configuration file. `unsafe` is in [`entropy`] alone.

mod api;
mod clock;
mod core;
mod entropy;
mod filesystems;
mod guest;
mod modules;
mod processes;
mod serve;
mod settings;
mod telemetry;

use serve::Setup;
use serve::places::Places;
use settings::Settings;
use std::path::Path;
use std::process::ExitCode;

/// One line on the console.
macro_rules! say {
    ($($argument:tt)*) => { $crate::line(format_args!($($argument)*)) };
}
pub(crate) use say;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return outside_a_guest();
    }
    if let Err(failure) = live() {
        say!("{failure}");
    }
    processes::power_off();
    // Only a kernel without power-off comes back; the first process must not end.
    loop {
        std::thread::park();
    }
}

/// As an ordinary process there is the supervisor alone, over a Unix socket in place of vsock: what its tests talk to.
fn outside_a_guest() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [word, socket, root] = &*words else {
        eprintln!("warren-init is the first process of a guest; otherwise: warren-init serve SOCKET FOLDER");
        return ExitCode::from(2);
    };
    if word != "serve" {
        eprintln!("warren-init serve SOCKET FOLDER");
        return ExitCode::from(2);
    }
    let served = std::os::unix::net::UnixListener::bind(socket).and_then(|listener| {
        // What programs leave behind is reaped here too.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let places = Places::below(Path::new(root));
        let (listener, renew) = (listener.into(), |_: &_| Ok(()));
        let setup = Setup { listener, places, guest: false, holds: false, api_port: 0, renew };
        serve::run(setup, |_| Ok(()))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A step that failed.
struct Failure {
    step: String,
    source: std::io::Error,
}

impl Failure {
    /// For `map_err`: names the step.
    fn of<E: Into<std::io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |source| Self { step, source: source.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

fn live() -> Result<(), Failure> {
    filesystems::mount_early()?;
    let text = std::fs::read_to_string("/proc/cmdline").map_err(Failure::of("read /proc/cmdline"))?;
    let settings = Settings::parse(&text);
    let loaded = modules::load_all(Path::new("/lib/warren/modules"))?;
    say!("hello; {loaded} modules loaded");
    if let Some(root) = &settings.root {
        filesystems::enter_root(root, settings.scratch())?;
    }
    if settings.serve {
        return guest::serve(&settings);
    }
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(program) => processes::run(&program, words),
        None => Ok(()),
    }
}

/// Standard error is the console, if the guest has one.
fn line(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("warren-init: {text}\n").as_bytes());
}
