//! `warren-control`: the control roles of one machine in one process.
//!
//! It opens its store, claims an epoch, serves clients and workers on one TLS port, says `ready listen=...`, and
//! stops cleanly on SIGTERM or SIGINT.
#![forbid(unsafe_code)]

mod args;
mod collect;
mod epoch;
mod fleet;
mod policies;
mod serve;
mod watch;

use anyhow::Context;
use clap::Parser;
use std::io::IsTerminal;

/// A process that serves for months must give memory back: mimalloc does, and musl's own allocator has one lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args = args::Args::parse();
    warren_identity::keep_from_core_dumps().context("core dumps cannot be turned off")?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    // A line that cannot be written is lost; said by the logger itself, on the same full disk, it would be a panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    serve::close(&args.data)?;
    runtime.block_on(serve::run(args))
}
