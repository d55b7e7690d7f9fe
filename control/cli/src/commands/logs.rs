//! `warren logs`.

use crate::{screen, shape};
use tokio_stream::StreamExt as _;
use warren_client::{Client, Outcome};
use warren_proto::v1::LogsRequest;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  warren logs hello
  warren logs -f hello
  warren logs hello --tail 1000 --json")]
pub(crate) struct Options {
    /// The function.
    name: String,
    /// Go on as lines come, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// So many of the last lines first.
    #[arg(long, default_value_t = 100)]
    tail: u32,
}

/// Runs it.
pub(crate) async fn run(options: Options, client: &Client, json: bool) -> Outcome {
    let request = LogsRequest { function: options.name, follow: options.follow, tail: options.tail };
    let mut lines = client.functions().logs(request).await?.into_inner();
    loop {
        tokio::select! {
            line = lines.next() => match line {
                None => return Ok(()),
                Some(line) => {
                    let line = line?;
                    if json {
                        screen::print(&shape::log_line(&line).to_string());
                    } else {
                        screen::print(&format!("{} {}", shape::clock(line.unix_ms), line.text));
                    }
                }
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}
