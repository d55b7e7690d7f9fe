//! What runtimes seed anew in a copy, in copies of a process that its libraries cannot tell from copies of a machine. Copies of whole
//! machines are the suite `runtimes`.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::{path::Path, process::Command};

#[test]
fn python_draws_differently_in_each_copy() {
    if !rustix::process::geteuid().is_root() {
        // Past libtest's capturing.
        let line = "warren-skipped: image::copies: only root can make processes with ids of their own\n";
        rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
        return;
    }
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = Path::new(&package);
    let mut copies = Command::new("unshare");
    copies.args(["--pid", "--fork", "/usr/bin/python3"]).arg(package.join("tests/copies.py"));
    let output = copies.arg(package.join("runtimes/python.py")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let drawn: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Neither of what is drawn: the interpreter's generator, OpenSSL's.
    for of in 0..2 {
        let of = |doing: &str, copy: usize| drawn[doing][copy][of].to_string();
        assert_eq!(of("as they are", 0), of("as they are", 1), "these are no copies");
        assert_ne!(of("renewed", 0), of("renewed", 1), "{drawn}");
    }
}
