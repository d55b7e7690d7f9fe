//! The program built for the host gives the expected page (`cargo test --target host-tuple -p markdown`).

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn sample() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data");
    let program = env!("CARGO_BIN_EXE_markdown");
    let output = Command::new(program).stdin(File::open(data.join("sample.md")).unwrap()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        fs::read_to_string(data.join("expected/sample.html")).unwrap()
    );
}
