//! `warren snapshot`: functions at rest, host by host. [`pages`] is what two have in common, and where one's pages lie.

mod pages;

pub(crate) use pages::PageCounts;

use crate::{screen, shape};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;
use warren_client::{Client, Failure, Outcome};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        HostSnapshotRequest, Kind, ListAllSnapshotsRequest, ListAllSnapshotsResponse, OriginCopy, Snapshot,
        SnapshotState, VerifySnapshotResponse,
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
    /// Draw where in the guest's memory a snapshot has pages: all that a cold start could read.
    #[command(after_help = "\
Not in the picture: which of them a cold start does read, and when. Hosts keep no record of that with a snapshot.
A function without a version means its newest.

Examples:
  warren snapshot top hello
  warren snapshot top hello:3 --host worker-1
  warren snapshot top 9f86d081 --json | jq '.windows | length'")]
    Top {
        #[command(flatten)]
        which: One,
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
        Command::Top { which } => pages::top(client, which, json).await,
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

fn table(snapshots: &[Snapshot], now_ms: u64) -> String {
    let rows = snapshots.iter().map(|one| {
        let kept = has_file(one);
        let or_none = |text: String| if kept { text } else { "-".to_owned() };
        vec![
            short(&one.key),
            called(one),
            kind(one).to_owned(),
            shape::snapshot_state(one),
            one.host_id.clone(),
            or_none(screen::bytes(one.memory_bytes)),
            or_none((one.memory_bytes / PAGE).to_string()),
            if kept { since(one.made_unix_ms, now_ms) } else { screen::age(one.age_ms) },
            or_none(one.uses.to_string()),
            since(one.last_used_unix_ms, now_ms),
            clip(&one.reason),
        ]
    });
    let header =
        ["snapshot", "function", "kind", "state", "host", "memory", "pages", "age", "uses", "used", "why"];
    screen::table(&header, &[5, 6, 7, 8, 9], rows.collect())
}

const PAGE: u64 = 4096;

fn details(one: &Snapshot, now_ms: u64) -> String {
    let line = |name: &str, value: String| format!("{name:<22}{value}\n");
    let mut text = line("key", one.key.clone());
    text += &line("function", called(one));
    text += &line("kind", kind(one).to_owned());
    text += &line("host", one.host_id.clone());
    text += &line("state", shape::snapshot_state(one));
    if !one.reason.is_empty() {
        text += &line("because", one.reason.clone());
    }
    if !has_file(one) {
        return text + &line("for", screen::age(one.age_ms));
    }
    let memory = format!("{} in {} pages", screen::bytes(one.memory_bytes), one.memory_bytes / PAGE);
    text += &line("memory", memory);
    if one.disk_bytes > 0 {
        text += &line("scratch disk", screen::bytes(one.disk_bytes));
    }
    text += &line("on disk", screen::bytes(one.file_bytes));
    if one.origin() != OriginCopy::Unspecified {
        text += &line("in the origin", in_origin(one));
    }
    text += &line("made", format!("{} ago", since(one.made_unix_ms, now_ms)));
    text += &line("used", format!("{} times since its agent started", one.uses));
    text += &line("last used", since(one.last_used_unix_ms, now_ms));
    for (what, digest) in [
        ("module", &one.code_digest),
        ("compiled code", &one.compiled_digest),
        ("files", &one.task_digest),
        ("what it is told", &one.told_digest),
        ("guest program", &one.guest_digest),
        ("runtime", &one.runtime_digest),
        ("kernel", &one.kernel_digest),
        ("initrd", &one.initrd_digest),
        ("its memory", &one.memory_digest),
    ] {
        if !digest.is_empty() {
            text += &line(what, digest.clone());
        }
    }
    text
}

fn in_origin(one: &Snapshot) -> String {
    match one.origin() {
        OriginCopy::There => format!(
            "yes; {} of chunks were new, {} shared",
            screen::bytes(one.origin_new_bytes),
            screen::bytes(one.origin_shared_bytes)
        ),
        OriginCopy::OnItsWay => "no; on its way".to_owned(),
        OriginCopy::Failed => format!("no; {}", clip(&one.origin_reason)),
        OriginCopy::Unspecified => "no".to_owned(),
    }
}

/// One that is damaged does not say it any more.
fn kind(one: &Snapshot) -> &'static str {
    match one.kind() {
        Kind::Unspecified => "-",
        known => shape::kind(known),
    }
}

/// `hello:3`; a file that does not say its version any more has none.
fn called(one: &Snapshot) -> String {
    match one.version {
        0 => one.function.clone(),
        version => format!("{}:{version}", one.function),
    }
}

fn short(key: &str) -> String {
    key.chars().take(12).collect()
}

fn clip(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MOST {
        line.to_owned()
    } else {
        format!("{}...", line.chars().take(MOST).collect::<String>())
    }
}

/// How long ago; `-` for never.
fn since(unix_ms: u64, now_ms: u64) -> String {
    if unix_ms == 0 { "-".to_owned() } else { screen::age(now_ms.saturating_sub(unix_ms)) }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(function: &str, version: u64, key: &str, host: &str) -> Snapshot {
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

    #[test]
    fn rows_say_what_is_known_and_no_more() {
        let mut kept = one("hello", 2, "bbbbbbbb02cccc", "w1");
        (kept.memory_bytes, kept.made_unix_ms, kept.uses) = (3 * PAGE, 1_000, 7);
        kept.set_state(SnapshotState::Kept);
        kept.set_kind(Kind::Wasm);
        let mut failed = one("drew", 1, "dddddddd05", "w1");
        (failed.reason, failed.age_ms) = ("it drew\nat once".into(), 5_000);
        failed.set_state(SnapshotState::Hopeless);
        failed.set_kind(Kind::Wasm);
        let text = table(&[kept, failed], 61_000);
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let row = |line: usize| lines[line].join(" ");
        assert_eq!(row(1), "bbbbbbbb02cc hello:2 wasm kept w1 12.0 KiB 3 60 s 7 -");
        assert_eq!(row(2), "dddddddd05 drew:1 wasm hopeless w1 - - 5 s - - it drew");
    }
}
