//! The services themselves, as they run: what they leave behind when they crash, and certificates that are replaced under them.

mod certificates;
mod wire;

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, fs, process::ExitCode};
use tokio::time::{Duration, Instant, sleep};
use warren_suites::{Deploy, Installation, Options, Suite, cases, full};

/// Longest wait for what happens by itself, to end what hangs.
const SETTLED_WITHIN: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let origin = format!("/var/tmp/warren-services-{}", std::process::id());
    let arguments =
        ["--snapshot-origin".to_owned(), origin.clone()].map(|word| &*word.leak()).to_vec().leak();
    // What services do by themselves they do every few seconds, `warren up` every minute: most of it is waiting.
    let quick = cases![
        no_service_leaves_a_core_dump,
        certificates_are_replaced_under_load,
        what_is_no_certificate_of_the_service_is_refused_and_told,
    ];
    let all = cases![
        no_service_leaves_a_core_dump,
        certificates_are_replaced_under_load,
        what_is_no_certificate_of_the_service_is_refused_and_told,
        certificates_past_half_of_their_life_are_renewed,
        another_ca_takes_over_under_load,
    ];
    let cases: &[_] = if full() { all } else { quick };
    let options = Options { number: 9, arguments, ..Options::default() };
    let end = Suite { name: "services", options, cases }.main();
    let _nothing_was_shared = fs::remove_dir_all(origin);
    end
}

use certificates::{
    another_ca_takes_over_under_load, certificates_are_replaced_under_load,
    certificates_past_half_of_their_life_are_renewed,
    what_is_no_certificate_of_the_service_is_refused_and_told,
};

/// By the kernel's word, of each process that lives: a limit of one byte ends dumps that are piped to a program as well.
async fn no_service_leaves_a_core_dump(warren: &Installation) -> Result<()> {
    // The pager is started for the first snapshot that is shared.
    warren.deploy_built("hello", Deploy::default()).await?;
    let mut found = BTreeMap::new();
    for service in ["warren-control", "warren-agent", "warren-jailer"] {
        match warren.service(service).await {
            Ok(pid) => drop(found.insert(service, pid)),
            // A prepared one is nobody's child here.
            Err(error) => {
                ensure!(service == "warren-jailer" && !rustix::process::geteuid().is_root(), "{error:#}");
            }
        }
    }
    let root = rustix::process::geteuid().is_root();
    if root {
        found.insert("warren-pager", until("a pager", async || pager(warren)).await?);
    }
    for (service, pid) in found {
        let limits = core_limits(pid).with_context(|| service.to_owned())?;
        let wanted = if matches!(service, "warren-jailer" | "warren-pager") { "0" } else { "1" };
        println!("    {service} ({pid}): core files of {limits:?} bytes at most");
        ensure!(limits == [wanted, wanted], "{service}: {limits:?}");
    }
    Ok(())
}

/// Soft and hard.
fn core_limits(pid: i32) -> Result<[String; 2]> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let mut words = line.context("no limit of core files")?.split_whitespace().map(str::to_owned);
    Ok([words.next().context("soft")?, words.next().context("hard")?])
}

fn pager(warren: &Installation) -> Result<Option<i32>> {
    let is = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"warren-pager\0"))
    };
    Ok(warren.jailed()?.into_iter().find(is))
}

/// Waits until there is one.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited for {what} in vain");
        sleep(LOOK_EVERY).await;
    }
}
