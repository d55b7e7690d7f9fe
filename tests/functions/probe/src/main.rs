//! Says whether it was alone in its sandbox: `{"nonce":"a1","steps":1000}` in, `{"nonce":"a1","sum":...,"runs":3}` out.
//!
//! While it runs, a file in `/tmp` (which lives as long as the sandbox) holds its nonce. Whoever finds the file there, or
//! another's nonce in it, shares the sandbox with another invocation and exits 9. `runs` counts the invocations that ended
//! in this sandbox, by another file; `sum` proves that the work was done, and on this nonce.

use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::ExitCode;

const RUNNING: &str = "/tmp/running";
const RUNS: &str = "/tmp/runs";
/// How often the file is looked at again.
const LOOKS: u32 = 8;
const NOT_ALONE: u8 = 9;

#[derive(Deserialize)]
struct Event {
    nonce: String,
    steps: u32,
}

#[derive(Serialize)]
struct Response {
    nonce: String,
    sum: u64,
    runs: u64,
}

fn main() -> ExitCode {
    let event: Event = match serde_json::from_reader(io::stdin().lock()) {
        Ok(event) => event,
        Err(error) => {
            eprintln!("the event is not {{\"nonce\": \"...\", \"steps\": number}}: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&event) {
        Ok(response) => match serde_json::to_writer(io::stdout().lock(), &response) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot answer: {error}");
                ExitCode::FAILURE
            }
        },
        Err(why) => {
            eprintln!("not alone: {why}");
            ExitCode::from(NOT_ALONE)
        }
    }
}

/// The work between taking the file and giving it back.
fn run(event: &Event) -> Result<Response, String> {
    let taken = OpenOptions::new().write(true).create_new(true).open(RUNNING);
    let mut file = taken.map_err(|error| format!("{RUNNING} is there ({error}): {}", seen()))?;
    file.write_all(event.nonce.as_bytes()).map_err(|error| error.to_string())?;
    drop(file);
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for _ in 0..LOOKS {
        for _ in 0..event.steps {
            for byte in event.nonce.bytes() {
                sum = black_box((sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
            }
        }
        let found = seen();
        if found != event.nonce {
            return Err(format!("{RUNNING} holds {found:?} instead of {:?}", event.nonce));
        }
    }
    let runs = fs::read_to_string(RUNS).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    fs::write(RUNS, runs.to_string()).map_err(|error| error.to_string())?;
    fs::remove_file(RUNNING).map_err(|error| error.to_string())?;
    Ok(Response { nonce: event.nonce.clone(), sum, runs })
}

fn seen() -> String {
    fs::read_to_string(RUNNING).unwrap_or_else(|error| error.to_string())
}
