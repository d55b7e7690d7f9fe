//! The program built for the host gives the expected thumbnails (`cargo test --target host-tuple -p thumbnail`).

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

fn check(photo: &str) {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data");
    let program = env!("CARGO_BIN_EXE_thumbnail");
    let output = Command::new(program).stdin(File::open(data.join(photo)).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, fs::read(data.join(format!("expected/{photo}.128.png"))).unwrap(), "{photo}");
}

#[test]
fn photographs() {
    check("photo.jpg");
    check("photo.png");
}
