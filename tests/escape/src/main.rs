//! The program in the VMM's place. Descriptor 3 is a listening socket, 4 is `/dev/kvm`, as a VMM has them.

use rustix::net::accept;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::ExitCode,
};
use warren_escape::{attempts, stage::Stage};

/// What the suite sends: a stage's name and an attempt's number.
const ORDER_MAX: usize = 64;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "the jail says that 3 is the socket, and nothing else here owns it")]
    // SAFETY: 1. descriptor 3 is open and nobody's, by the contract with the jailer.
    let listener = unsafe { OwnedFd::from_raw_fd(3) };
    let Ok(connection) = accept(&listener) else { return ExitCode::from(2) };
    let mut connection = File::from(connection);
    let mut order = [0; ORDER_MAX];
    let Ok(len) = connection.read(&mut order) else { return ExitCode::from(3) };
    let order = String::from_utf8_lossy(order.get(..len).unwrap_or_default()).into_owned();
    let mut words = order.split(' ');
    let stage = words.next().and_then(|name| name.parse::<Stage>().ok());
    let attempt = words.next().and_then(|at| at.parse::<usize>().ok()).and_then(|at| attempts::ALL.get(at));
    let (Some(stage), Some(attempt)) = (stage, attempt) else { return ExitCode::from(4) };
    if stage.enter().is_err() {
        return ExitCode::from(5);
    }
    // It lives, and is sealed: what follows is the attempt's doing.
    if connection.write_all(b"sealed ").is_err() {
        return ExitCode::from(6);
    }
    let answer = (attempt.does)();
    let said = match attempts::error_of(answer) {
        Some(error) => format!("errno {error}"),
        None => format!("escaped {answer}"),
    };
    let _ = connection.write_all(said.as_bytes());
    ExitCode::SUCCESS
}
