//! A naive Fibonacci number: `{"n": 30}` in, `{"n": 30, "fib": 832040}` out. Two calls a step, so it measures calls.

use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::io;
use std::process::ExitCode;

/// The largest number whose answer fits 64 bits; the time it takes is the caller's business and the timeout's.
const MOST: u32 = 93;

#[derive(Deserialize)]
struct Event {
    n: u32,
}

#[derive(Serialize)]
struct Response {
    n: u32,
    fib: u64,
}

fn main() -> ExitCode {
    let event: Event = match serde_json::from_reader(io::stdin().lock()) {
        Ok(event) => event,
        Err(error) => {
            eprintln!("the event is not {{\"n\": number}}: {error}");
            return ExitCode::from(2);
        }
    };
    if event.n > MOST {
        eprintln!("n is {}, at most {MOST} is possible", event.n);
        return ExitCode::from(2);
    }
    let response = Response { n: event.n, fib: fib(event.n) };
    match serde_json::to_writer(io::stdout().lock(), &response) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fib(n: u32) -> u64 {
    // Without the black box the compiler turns one of the two calls into a loop.
    if n < 2 { u64::from(n) } else { fib(black_box(n - 1)) + fib(black_box(n - 2)) }
}
