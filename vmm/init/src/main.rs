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
//! It is static and needs nothing but itself: no shell, no library, no configuration file.
#![forbid(unsafe_code)]

mod filesystems;
mod modules;
mod processes;
mod settings;

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
        eprintln!("warren-init is the first process of a guest, and nothing else");
        return ExitCode::from(2);
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
        filesystems::enter_root(root)?;
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
