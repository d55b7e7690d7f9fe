//! A gRPC client made by someone else's tool (grpcio from PyPI) deploys and invokes through reflection.

use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::process::Command;
use warren_suites::{Installation, Options, Suite, cases, root};

/// Pinned: a new release of the tool is a change somebody makes on purpose.
const PACKAGES: [&str; 3] = ["grpcio==1.85.1", "grpcio-reflection==1.85.1", "protobuf==7.36.2"];

fn main() -> ExitCode {
    let cases = cases![grpcio_deploys_and_invokes];
    Suite { name: "reflection", options: Options { number: 5, ..Options::default() }, cases }.main()
}

async fn grpcio_deploys_and_invokes(warren: &Installation) -> Result<()> {
    let python = environment().await?;
    let name = warren.name("from-python");
    let script = root().join("tests/suites/python/reflect.py");
    let module = root().join("target/warren/functions/hello.wasm");
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(warren.data().join("client.toml"))
        .arg(&name)
        .arg(module)
        .arg(r#"{"name":"grpcio"}"#);
    let done = command.output().await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout)?;
    ensure!(said == r#"{"message":"Hello, grpcio!"}"#, "{said}");
    // What it deployed is there for everybody.
    let shown = warren.cli_json(&["fn", "show", &name]).await?;
    ensure!(shown["version"] == 1, "{shown}");
    Ok(())
}

/// A virtual environment below `target`, made once.
async fn environment() -> Result<PathBuf> {
    let home = root().join("target/suites-python");
    let python = home.join("bin/python");
    let mark = home.join(PACKAGES.join("_"));
    if mark.exists() {
        return Ok(python);
    }
    run("/usr/bin/python3", &["-m", "venv", "--clear", &home.display().to_string()])
        .await
        .context("make a virtual environment; Debian: apt-get install python3-venv")?;
    let mut install = vec!["-m", "pip", "install", "--quiet"];
    install.extend(PACKAGES);
    run(&python, &install).await.context("install grpcio from PyPI")?;
    std::fs::write(&mark, "")?;
    Ok(python)
}

async fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Result<()> {
    let done = Command::new(program.as_ref()).args(arguments).output().await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
