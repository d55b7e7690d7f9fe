//! `warren-agent`: see the library's cover page.

use anyhow::Context as _;
use clap::Parser as _;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use warren_agent::{config::Config, run};

/// musl's own allocator takes one lock for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    warren_identity::keep_from_core_dumps().context("core dumps cannot be turned off")?;
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    // A line that cannot be written is lost; said by the logger itself, on the same full disk, it would be a panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(config.threads()).enable_all().build()?;
    let outcome = runtime.block_on(run(config));
    // Detached work (an invocation whose VM was left alone) does not hold the exit up.
    runtime.shutdown_background();
    outcome
}
