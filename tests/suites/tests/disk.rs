//! A full disk: a deploy is refused with a typed error, nothing half-made stays, and the next one succeeds.

use anyhow::{Context as _, Result, ensure};
use std::{io::Write as _, path::Path, process::ExitCode};
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
};
use warren_suites::{Deploy, Expected, Installation, Options, Suite, cases, expect_error, function, modules};

/// Size of the small file system that holds everything of this Warren.
const SMALL: &str = "size=64m,mode=755";

fn main() -> ExitCode {
    // Everything of this suite's Warren lies on a file system of its own, so that filling it hurts nobody else.
    let place = std::path::PathBuf::from(format!("/var/tmp/warren-disk-{}", std::process::id()));
    let listing = std::env::args().any(|word| word == "--list");
    if !listing && let Err(error) = mount(&place) {
        let _ = std::fs::remove_dir(&place);
        println!("warren-skipped: disk: no small file system can be mounted here ({error:#})");
        return ExitCode::SUCCESS;
    }
    let cases = cases![a_full_disk_refuses_a_deploy];
    let options = Options { number: 6, data: Some(place.join("data")), ..Options::default() };
    let code = Suite { name: "disk", options, cases }.main();
    if !listing {
        let unmounted = std::process::Command::new("umount").arg(&place).status();
        let removed = std::fs::remove_dir(&place);
        if !unmounted.is_ok_and(|status| status.success()) || removed.is_err() {
            eprintln!("{} stays mounted", place.display());
        }
    }
    code
}

fn mount(place: &Path) -> Result<()> {
    std::fs::create_dir_all(place)?;
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", SMALL, "warren-disk-suite"])
        .arg(place)
        .status()?;
    ensure!(status.success(), "mount: {status}");
    Ok(())
}

async fn a_full_disk_refuses_a_deploy(warren: &Installation) -> Result<()> {
    let good = modules::assemble(&modules::good())?;
    warren.deploy("before", good.clone(), Deploy::default()).await?;
    // The frontend now holds a slice of the account's concurrency: only asking for more would need the disk.
    warren.invoke("before", "{}").await?;
    let ballast = warren.data().join("ballast");
    fill(&ballast)?;

    let status =
        warren.deploy("full", function("jq")?, Deploy::default()).await.err().context("it fitted")?;
    let error = WireError::from_status(&status);
    ensure!(error.code == Code::ResourceExhausted && error.reason == reason::DISK_FULL, "{error:?}");
    ensure!(error.fault == Fault::System, "{error:?}");
    // What was there before still answers: a warm invocation writes nothing durable.
    let answer = warren.invoke("before", "{}").await.context("an invocation on a full disk")?;
    ensure!(answer.payload == br#"{"ok":true}"#[..], "{answer:?}");
    let gone = Expected::caller(Code::NotFound, reason::NO_SUCH_FUNCTION);
    expect_error(warren.invoke("full", "{}").await, gone)?;

    std::fs::remove_file(&ballast)?;
    warren.deploy("full", good, Deploy::default()).await.context("after room was made")?;
    warren.invoke("full", "{}").await?;
    warren.settled().await?;
    Ok(())
}

/// Writes until nothing more goes in.
fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![0_u8; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}
