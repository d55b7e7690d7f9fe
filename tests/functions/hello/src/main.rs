//! Greets the name in its event: `{"name": "Ada"}` in, `{"message": "Hello, Ada!"}` out, one line to the log.

use serde::{Deserialize, Serialize};
use std::io;
use std::process::ExitCode;

#[derive(Deserialize)]
struct Event {
    #[serde(default = "world")]
    name: String,
}

#[derive(Serialize)]
struct Response {
    message: String,
}

fn world() -> String {
    "world".to_owned()
}

fn main() -> ExitCode {
    let event: Event = match serde_json::from_reader(io::stdin().lock()) {
        Ok(event) => event,
        Err(error) => {
            eprintln!("the event is not {{\"name\": \"...\"}}: {error}");
            return ExitCode::from(2);
        }
    };
    eprintln!("greeting {}", event.name);
    let response = Response { message: format!("Hello, {}!", event.name) };
    match serde_json::to_writer(io::stdout().lock(), &response) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot answer: {error}");
            ExitCode::FAILURE
        }
    }
}
