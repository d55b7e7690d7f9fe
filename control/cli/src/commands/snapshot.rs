//! `warren snapshot`: functions at rest, host by host. [`pages`] is what two have in common, and where one's pages lie; [`told`] is
//! how they are shown; [`paging`] what was brought page by page.

mod pages;
mod paging;
mod picture;
mod told;

pub(crate) use pages::PageCounts;

use crate::{screen, shape};
use told::{called, details, now_ms, short, table};
use tonic::Code;
use warren_client::{Client, Failure, Outcome};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        HostSnapshotRequest, ListAllSnapshotsRequest, ListAllSnapshotsResponse, Snapshot, SnapshotState,
        VerifySnapshotResponse,
    },
};

/// Fewer digits of a key than this name none.
const FEWEST_DIGITS: usize = 8;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List what each host keeps, makes, or could not make.
    #[command(after_help = "Examples:\n  warren snapshot ls\n  warren snapshot ls hello\n  \
                            warren snapshot ls --json | jq '.snapshots[] | select(.state != \"kept\")'")]
    Ls {
        /// Only of this function.
        #[arg(default_value = "", hide_default_value = true)]
        function: String,
    },
    /// Show of what one was made, and how it is used.
    #[command(after_help = "Examples:\n  warren snapshot show hello\n  warren snapshot show hello:3\n  \
                            warren snapshot show 9f86d081 --host worker-1")]
    Show {
        #[command(flatten)]
        which: One,
    },
    /// Read snapshots again, and check signature and digests as a cold start would; changes nothing.
    #[command(after_help = "Examples:\n  warren snapshot verify hello\n  warren snapshot verify --all\n  \
                            warren snapshot verify 9f86d081 --host worker-1")]
    Verify {
        #[command(flatten)]
        which: Several,
    },
    /// Compare the memory of two snapshots on one host, page by page, each at its place in the guest; changes nothing.
    #[command(after_help = "\
A snapshot of B kept as a diff on A would hold what is not the same. A function without a version means its newest.

Examples:
  warren snapshot diff hello:1 hello:2
  warren snapshot diff hello greeter --host worker-1
  warren snapshot diff 9f86d081 2c26b46b --json | jq .pages")]
    Diff {
        #[command(flatten)]
        which: pages::Two,
    },
    /// Draw where in the guest's memory a snapshot has pages: all that a cold start could read. Without a snapshot: what each host's
    /// pager brought, and how long was waited for it.
    #[command(after_help = "\
Below the picture, where starts of it were recorded: which pages they touched, and in what order. That is where hosts share
snapshots (--snapshot-origin) and one starts from another's.
A function without a version means its newest.

Examples:
  warren snapshot top
  warren snapshot top hello
  warren snapshot top hello:3 --host worker-1
  warren snapshot top 9f86d081 --json | jq '.windows | length'")]
    Top {
        /// A function, FUNCTION:VERSION, or at least 8 digits of a key.
        #[arg(value_name = "SNAPSHOT")]
        name: Option<String>,
        /// Only on this host.
        #[arg(long, default_value = "", hide_default_value = true)]
        host: String,
    },
    /// Remove snapshots, and the fleet's copies where hosts share them. Sandboxes live on; the next cold start of such a version
    /// boots, and another is made.
    #[command(
        after_help = "Examples:\n  warren snapshot rm hello\n  warren snapshot rm hello:3 9f86d081\n  \
                            warren snapshot rm --all --host worker-1"
    )]
    Rm {
        #[command(flatten)]
        which: Several,
    },
}

/// Names one, or the same on several hosts.
#[derive(clap::Args)]
pub(crate) struct One {
    /// A function, FUNCTION:VERSION, or at least 8 digits of a key.
    #[arg(value_name = "SNAPSHOT")]
    name: String,
    /// Only on this host.
    #[arg(long, default_value = "", hide_default_value = true)]
    host: String,
}

/// Names several.
#[derive(clap::Args)]
pub(crate) struct Several {
    /// Each a function, FUNCTION:VERSION, or at least 8 digits of a key.
    #[arg(value_name = "SNAPSHOT", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All there are.
    #[arg(long)]
    all: bool,
    /// Only on this host.
    #[arg(long, default_value = "", hide_default_value = true)]
    host: String,
}

/// Runs one.
pub(crate) async fn run(command: Command, client: &Client, json: bool) -> Outcome {
    match command {
        Command::Ls { function } => {
            let all = list(client, function).await?;
            if json {
                let snapshots: Vec<_> = all.snapshots.iter().map(shape::snapshot).collect();
                screen::print_json(
                    &serde_json::json!({ "snapshots": snapshots, "silent_hosts": all.silent_hosts }),
                );
            } else {
                screen::print(&table(&all.snapshots, now_ms()));
            }
            Ok(())
        }
        Command::Show { which } => {
            let found = named(list(client, String::new()).await?, &[which.name], &which.host)?;
            if json {
                screen::print_json(&found.iter().map(shape::snapshot).collect());
            } else {
                let texts: Vec<_> = found.iter().map(|one| details(one, now_ms())).collect();
                screen::print(&texts.join("\n"));
            }
            Ok(())
        }
        Command::Verify { which } => verify(client, which, json).await,
        Command::Diff { which } => pages::diff(client, which, json).await,
        Command::Top { name: Some(name), host } => pages::top(client, One { name, host }, json).await,
        Command::Top { name: None, host } => paging::top(client, &host, json).await,
        Command::Rm { which } => {
            for one in chosen(client, &which).await? {
                let request = HostSnapshotRequest { host: one.host_id.clone(), key: one.key.clone() };
                client.admin().remove_host_snapshot(request).await?;
                if !json {
                    screen::print(&format!("{} removed from {}", called(&one), one.host_id));
                }
            }
            Ok(())
        }
    }
}

/// All of them are read, whatever is wrong with the first.
async fn verify(client: &Client, which: Several, json: bool) -> Outcome {
    let (mut found, mut bad, mut rows) = (Vec::new(), 0, Vec::new());
    for one in chosen(client, &which).await?.into_iter().filter(has_file) {
        let request = HostSnapshotRequest { host: one.host_id.clone(), key: one.key.clone() };
        let shown = screen::spinner(format!("reading {} on {}", called(&one), one.host_id));
        let answer = client.admin().verify_host_snapshot(request).await?.into_inner();
        drop(shown);
        bad += usize::from(!answer.good);
        rows.push(verified_row(&one, &answer));
        found.push(shape::verified(&one, &answer));
    }
    if json {
        screen::print_json(&found.into_iter().collect());
    } else {
        let header = ["snapshot", "function", "host", "read", "took", "result"];
        screen::print(&screen::table(&header, &[3, 4], rows));
    }
    if bad == 0 {
        return Ok(());
    }
    Err(Failure::local(format!(
        "{bad} not what was signed; a cold start would boot instead and make another: `warren snapshot rm` removes them now"
    )))
}

fn verified_row(one: &Snapshot, answer: &VerifySnapshotResponse) -> Vec<String> {
    vec![
        short(&one.key),
        called(one),
        one.host_id.clone(),
        screen::bytes(answer.memory_bytes),
        screen::micros(answer.took_us),
        if answer.good { "good".to_owned() } else { format!("BAD: {}", answer.reason) },
    ]
}

/// What is only being made, or could not be, cannot be read.
fn has_file(one: &Snapshot) -> bool {
    matches!(one.state(), SnapshotState::Kept | SnapshotState::Damaged | SnapshotState::Outdated)
}

async fn list(client: &Client, function: String) -> Outcome<ListAllSnapshotsResponse> {
    let all = client.admin().list_all_snapshots(ListAllSnapshotsRequest { function }).await?.into_inner();
    for host in &all.silent_hosts {
        screen::tell(&format!("{host} does not answer: what it keeps is not shown; see `warren hosts`"));
    }
    Ok(all)
}

async fn chosen(client: &Client, which: &Several) -> Outcome<Vec<Snapshot>> {
    let all = list(client, String::new()).await?;
    if which.all {
        let on_it = |one: &Snapshot| which.host.is_empty() || one.host_id == which.host;
        return Ok(all.snapshots.into_iter().filter(on_it).collect());
    }
    named(all, &which.names, &which.host)
}

/// Those that the names mean; a name that means none is an error.
fn named(all: ListAllSnapshotsResponse, names: &[String], host: &str) -> Outcome<Vec<Snapshot>> {
    let there: Vec<_> =
        all.snapshots.into_iter().filter(|one| host.is_empty() || one.host_id == host).collect();
    let mut found: Vec<Snapshot> = Vec::new();
    for name in names {
        let is_meant = meaning(name, &there);
        let meant: Vec<_> = there.iter().filter(|one| is_meant(one)).cloned().collect();
        if meant.is_empty() {
            let place = if host.is_empty() { String::new() } else { format!(" on {host}") };
            let message = format!(
                "there is no snapshot {name:?}{place} (a function, FUNCTION:VERSION, or {FEWEST_DIGITS} digits of a key); \
                 `warren snapshot ls` lists them"
            );
            let error = WireError::new(Code::NotFound, reason::NO_SUCH_SNAPSHOT, Fault::Caller, message);
            return Err(Failure::Wire(Box::new(error)));
        }
        // Two names may mean the same one.
        for one in meant {
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    Ok(found)
}

/// A function's name goes before a key's digits: `deadbeef` may be both.
fn meaning<'a>(name: &'a str, there: &[Snapshot]) -> Box<dyn Fn(&Snapshot) -> bool + 'a> {
    if there.iter().any(|one| one.function == name) {
        return Box::new(move |one| one.function == name);
    }
    if let Some((function, version)) = name.split_once(':')
        && let Ok(version) = version.parse::<u64>()
    {
        return Box::new(move |one| one.function == function && one.version == version);
    }
    Box::new(move |one| name.len() >= FEWEST_DIGITS && one.key.starts_with(&name.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn one(function: &str, version: u64, key: &str, host: &str) -> Snapshot {
        Snapshot {
            function: function.into(),
            version,
            key: key.into(),
            host_id: host.into(),
            ..Snapshot::default()
        }
    }

    fn all() -> ListAllSnapshotsResponse {
        let snapshots = vec![
            one("hello", 1, "aaaaaaaa01", "w1"),
            one("hello", 2, "bbbbbbbb02", "w1"),
            one("hello", 2, "bbbbbbbb02", "w2"),
            one("deadbeef", 1, "cccccccc03", "w1"),
            one("other", 1, "deadbeef04", "w1"),
        ];
        ListAllSnapshotsResponse { snapshots, silent_hosts: Vec::new() }
    }

    #[track_caller]
    fn check(names: &[&str], host: &str, keys: &[&str]) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let found = named(all(), &names, host).unwrap();
        assert_eq!(found.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), keys, "{names:?} {host}");
    }

    #[test]
    fn names_mean_functions_then_versions_then_keys() {
        check(&["hello"], "", &["aaaaaaaa01", "bbbbbbbb02", "bbbbbbbb02"]);
        check(&["hello:2"], "w2", &["bbbbbbbb02"]);
        check(&["AAAAAAAA"], "", &["aaaaaaaa01"]);
        check(&["deadbeef"], "", &["cccccccc03"]);
        check(&["deadbeef0"], "", &["deadbeef04"]);
        check(&["hello:1", "aaaaaaaa01", "hello"], "w1", &["aaaaaaaa01", "bbbbbbbb02"]);
        for (name, host) in
            [("nobody", ""), ("hello:3", ""), ("aaaaaaa", ""), ("hello", "w3"), ("", ""), (":", "")]
        {
            let error = named(all(), &["hello:1".to_owned(), name.to_owned()], host).unwrap_err();
            assert_eq!(error.code(), 4, "{name:?} {host:?}: {error}");
        }
    }
}
