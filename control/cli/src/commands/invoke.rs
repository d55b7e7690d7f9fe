//! `warren invoke`.

use super::{payload, repeat};
use crate::{charts, screen, shape};
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};
use warren_client::{Client, Failure, Outcome};
use warren_proto::v1::{InvokeRequest, InvokeResponse};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  warren invoke hello --payload '{\"name\":\"Ada\"}'
  warren invoke thumb --payload @photo.jpg --out small.png --timing
  cat big.json | warren invoke jq --payload - --log
  warren invoke hello --repeat 10000 --concurrency 32")]
pub(crate) struct Options {
    /// The function.
    name: String,
    /// The event: text, @FILE, or - for standard input.
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: String,
    /// A version; the newest by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    version: u64,
    /// Print this invocation's log lines on standard error.
    #[arg(long)]
    log: bool,
    /// Write the answer to a file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show where the time went, on standard error.
    #[arg(long)]
    timing: bool,
    /// Call so many times, and show the distribution of latencies.
    #[arg(long, value_name = "N", conflicts_with_all = ["out", "log"])]
    repeat: Option<u64>,
    /// So many calls at once.
    #[arg(long, value_name = "C", default_value_t = 1, requires = "repeat")]
    concurrency: u32,
}

/// Runs it.
pub(crate) async fn run(options: &Options, client: &Client, json: bool) -> Outcome {
    let request = InvokeRequest {
        function: options.name.clone(),
        version: options.version,
        payload: payload::read(&options.payload)?,
        want_log: options.log,
        request_id: String::new(),
    };
    if let Some(count) = options.repeat {
        return repeat::run(client, &request, count, options.concurrency, json).await;
    }
    let shown = screen::spinner(format!("invoking {}", options.name));
    let answer = tokio::select! {
        answer = call(client, request) => answer?,
        // Dropping the call cancels it; Warren destroys or reuses the sandbox by itself.
        _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted),
    };
    drop(shown);
    if options.log {
        for line in &answer.log_tail {
            screen::tell(line);
        }
    }
    if options.timing {
        let timing = answer.timing.unwrap_or_default();
        let title = if timing.cold { "cold invocation" } else { "warm invocation" };
        screen::tell(charts::timing(title, &timing).trim_end());
    }
    deliver(options, &answer, json)
}

/// One call.
pub(crate) async fn call(client: &Client, request: InvokeRequest) -> Outcome<InvokeResponse> {
    Ok(client.invoke().invoke(request).await?.into_inner())
}

fn deliver(options: &Options, answer: &InvokeResponse, json: bool) -> Outcome {
    if let Some(path) = &options.out {
        let written = std::fs::write(path, &answer.payload);
        written.map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))?;
    }
    if json {
        screen::print_json(&shape::answer(answer));
    } else if options.out.is_none() {
        let mut out = std::io::stdout().lock();
        let newline = out.is_terminal() && !answer.payload.ends_with(b"\n");
        let end: &[u8] = if newline { b"\n" } else { b"" };
        let written =
            out.write_all(&answer.payload).and_then(|()| out.write_all(end)).and_then(|()| out.flush());
        if written.is_err() {
            // The reader has gone (`warren invoke ... | head`): nothing is wrong here.
            return Ok(());
        }
    }
    Ok(())
}
