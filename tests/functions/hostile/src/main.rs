//! Does whatever a function should not, chosen by its event: `{"mode": "spin"}`. See README.md for the table.

mod look;
mod misbehave;

use serde::Deserialize;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The event.
#[derive(Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
enum Event {
    /// Answers `{"ok":true}`: the good invocation after a bad one.
    Ok,

    // Ways to end badly.
    Panic,
    Unreachable,
    OutOfBounds,
    Exit {
        code: u8,
    },
    Recurse,
    Spin,
    Sleep {
        ms: u64,
    },
    Allocate,
    HalfThenTrap,

    // Too much.
    AllocateChecked,
    FloodStdout,
    FloodStderr {
        mib: u64,
    },
    Answer {
        bytes: usize,
    },
    FillTmp,

    // Odd bytes.
    InvalidUtf8,
    NotJson,
    OddLog,

    // What can be seen from inside.
    Environment,
    Files {
        path: String,
    },
    ReadFile {
        path: String,
    },
    WriteFile {
        path: String,
        text: String,
    },
    Random,
    Clocks,
}

fn main() -> ExitCode {
    let event: Event = match serde_json::from_reader(io::stdin().lock()) {
        Ok(event) => event,
        Err(error) => {
            eprintln!("the event is not a mode of this function: {error}");
            return ExitCode::from(2);
        }
    };
    match event {
        Event::Ok => answer(&serde_json::json!({"ok": true})),

        Event::Panic => panic!("asked to panic"),
        Event::Unreachable => misbehave::unreachable(),
        Event::OutOfBounds => answer(&serde_json::json!({"read": misbehave::read_out_of_bounds()})),
        Event::Exit { code } => return ExitCode::from(code),
        Event::Recurse => answer(&serde_json::json!({"depth": misbehave::recurse_without_end()})),
        Event::Spin => misbehave::spin(),
        Event::Sleep { ms } => {
            std::thread::sleep(std::time::Duration::from_millis(ms));
            answer(&serde_json::json!({"slept": ms}));
        }
        Event::Allocate => answer(&serde_json::json!({"allocated": misbehave::allocate_without_end()})),
        Event::HalfThenTrap => {
            print!("{{\"half\":");
            let _ = io::stdout().flush();
            misbehave::unreachable();
        }

        Event::AllocateChecked => answer(&serde_json::json!({"allocated": misbehave::allocate_checked()})),
        Event::FloodStdout => misbehave::flood_stdout(),
        Event::FloodStderr { mib } => {
            misbehave::flood_stderr(mib);
            answer(&serde_json::json!({"flooded": mib}));
        }
        Event::Answer { bytes } => misbehave::answer_of(bytes),
        Event::FillTmp => answer(&misbehave::fill_tmp()),

        Event::InvalidUtf8 => write_bytes(b"{\"text\": \"\xFF\xFE\"}"),
        Event::NotJson => write_bytes(b"this is text, not JSON"),
        Event::OddLog => {
            misbehave::odd_log();
            answer(&serde_json::json!({"ok": true}));
        }

        Event::Environment => answer(&look::environment()),
        Event::Files { path } => answer(&look::files(&path)),
        Event::ReadFile { path } => answer(&look::read_file(&path)),
        Event::WriteFile { path, text } => answer(&look::write_file(&path, &text)),
        Event::Random => answer(&look::random()),
        Event::Clocks => answer(&look::clocks()),
    }
    ExitCode::SUCCESS
}

fn answer(value: &serde_json::Value) {
    write_bytes(value.to_string().as_bytes());
}

fn write_bytes(bytes: &[u8]) {
    if let Err(error) = io::stdout().lock().write_all(bytes) {
        eprintln!("cannot answer: {error}");
    }
}
