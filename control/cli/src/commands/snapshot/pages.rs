//! `warren snapshot diff` and `top`: snapshots' memory, page by page, as the host that keeps them reads it.

use super::{
    One, has_file, list, named,
    picture::{order, picture},
    told::{PAGE, called, now_ms, short, since},
};
use crate::{screen, shape};
use std::fmt::Write as _;
use warren_client::{Client, Failure, Outcome};
use warren_proto::v1::{
    ListAllSnapshotsResponse, MapHostSnapshotRequest, MapSnapshotResponse, Snapshot, SnapshotWindow,
};

/// Pages of a chunk, as chunks are by default: 512 KiB.
const CHUNK_PAGES: u32 = 128;
/// Most windows that are looked at: 16 TiB of them.
const MOST_WINDOWS: u32 = 1 << 28;

/// Two snapshots on one host.
#[derive(clap::Args)]
pub(crate) struct Two {
    /// A function, FUNCTION:VERSION, or at least 8 digits of a key.
    #[arg(value_name = "A")]
    first: String,
    /// What is compared with it, likewise.
    #[arg(value_name = "B")]
    second: String,
    /// Only on this host.
    #[arg(long, default_value = "", hide_default_value = true)]
    host: String,
}

/// Pages by what they are in the second of two snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageCounts {
    /// In both, and equal.
    pub(crate) same: u64,
    /// In the second alone.
    pub(crate) filled: u64,
    /// In the first alone.
    pub(crate) zeroed: u64,
    /// In both, and not equal.
    pub(crate) replaced: u64,
}

impl PageCounts {
    fn add(&mut self, window: &SnapshotWindow) {
        self.same += u64::from(window.same);
        self.filled += u64::from(window.filled);
        self.zeroed += u64::from(window.zeroed);
        self.replaced += u64::from(window.replaced);
    }

    const fn first(&self) -> u64 {
        self.same + self.zeroed + self.replaced
    }

    const fn second(&self) -> u64 {
        self.same + self.filled + self.replaced
    }
}

/// What two have in common.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    pages: PageCounts,
    /// Chunks of the second, and pages in them.
    chunks: (u64, u64),
    /// Those of them that hold what the first's hold at the same place.
    shared: (u64, u64),
}

pub(crate) async fn diff(client: &Client, which: Two, json: bool) -> Outcome {
    let all = list(client, String::new()).await?;
    let (first, second) = pair(&all, &which)?;
    let map = ask(client, &second, &first.key).await?;
    let found = difference(&map);
    if json {
        screen::print_json(&serde_json::json!({
            "host_id": second.host_id, "first": shape::snapshot(&first), "second": shape::snapshot(&second),
            "pages": shape::page_counts(&found.pages), "page_bytes": PAGE,
            "chunk_bytes": u64::from(CHUNK_PAGES) * PAGE, "chunks": found.chunks.0,
            "shared_chunks": found.shared.0, "shared_bytes": found.shared.1 * PAGE, "took_us": map.took_us,
        }));
        return Ok(());
    }
    screen::print(&told(&first, &second, &found));
    Ok(())
}

pub(crate) async fn top(client: &Client, which: One, json: bool) -> Outcome {
    let all = list(client, String::new()).await?;
    let one = newest(&all, &which.name, &which.host)?.into_iter().next();
    let one = one.ok_or_else(|| Failure::local("no host keeps it now; `warren snapshot ls` says why"))?;
    let map = ask(client, &one, "").await?;
    if json {
        let windows = map.windows.iter().map(|window| {
            let at = u64::from(window.number) * u64::from(map.window_pages) * PAGE;
            serde_json::json!({ "address": at, "pages": window.filled })
        });
        screen::print_json(&serde_json::json!({
            "snapshot": shape::snapshot(&one), "page_bytes": PAGE, "window_pages": map.window_pages,
            "windows": windows.collect::<Vec<_>>(), "took_us": map.took_us,
            "touches": map.touches.as_ref().map(|touches| shape::touches(touches, map.window_pages)),
        }));
        return Ok(());
    }
    let age = since(one.made_unix_ms, now_ms());
    screen::print(&format!(
        "{} on {}, {age} old, used {} times\n{}\n\n{}",
        called(&one),
        one.host_id,
        one.uses,
        picture(&map),
        order(&map),
    ));
    Ok(())
}

async fn ask(client: &Client, one: &Snapshot, base: &str) -> Outcome<MapSnapshotResponse> {
    let (host, key) = (one.host_id.clone(), one.key.clone());
    let shown = screen::spinner(format!("reading {} on {host}", called(one)));
    let request = MapHostSnapshotRequest { host, key, base_key: base.to_owned() };
    let map = client.admin().map_host_snapshot(request).await?.into_inner();
    drop(shown);
    let touched = map.touches.iter().flat_map(|touches| &touches.windows).map(|touch| touch.number);
    let mut numbers = map.windows.iter().map(|window| window.number).chain(touched);
    if numbers.any(|number| number > MOST_WINDOWS) || map.window_pages == 0 {
        return Err(Failure::local(format!("{} answers with memory that no guest has", one.host_id)));
    }
    Ok(map)
}

/// Those of the newest version that a name means, one a host.
fn newest(all: &ListAllSnapshotsResponse, name: &str, host: &str) -> Outcome<Vec<Snapshot>> {
    let mut found = named(all.clone(), &[name.to_owned()], host)?;
    found.retain(has_file);
    found.sort_by_key(|one| (one.version, one.made_unix_ms));
    let mut kept: Vec<Snapshot> = Vec::new();
    for one in found.into_iter().rev() {
        if kept.iter().all(|other| other.host_id != one.host_id) {
            kept.push(one);
        }
    }
    Ok(kept)
}

/// The two that are meant, on the first host that keeps both.
fn pair(all: &ListAllSnapshotsResponse, which: &Two) -> Outcome<(Snapshot, Snapshot)> {
    let firsts = newest(all, &which.first, &which.host)?;
    let seconds = newest(all, &which.second, &which.host)?;
    for first in firsts {
        if let Some(second) = seconds.iter().find(|second| second.host_id == first.host_id) {
            return Ok((first, second.clone()));
        }
    }
    Err(Failure::local(format!(
        "no host keeps both {} and {}; `warren snapshot ls` lists which keeps what",
        which.first, which.second
    )))
}

fn difference(map: &MapSnapshotResponse) -> Difference {
    let mut found = Difference::default();
    let mut chunk: Option<(u32, PageCounts)> = None;
    let end = |chunk: Option<(u32, PageCounts)>, found: &mut Difference| {
        let Some((_, pages)) = chunk.filter(|(_, pages)| pages.second() > 0) else { return };
        found.chunks = (found.chunks.0 + 1, found.chunks.1 + pages.second());
        if pages.same == pages.second() && pages.zeroed == 0 {
            found.shared = (found.shared.0 + 1, found.shared.1 + pages.same);
        }
    };
    for window in &map.windows {
        found.pages.add(window);
        let number = window.number.saturating_mul(map.window_pages) / CHUNK_PAGES;
        if chunk.as_ref().is_none_or(|(open, _)| *open != number) {
            end(chunk.replace((number, PageCounts::default())), &mut found);
        }
        if let Some((_, pages)) = &mut chunk {
            pages.add(window);
        }
    }
    end(chunk, &mut found);
    found
}

fn told(first: &Snapshot, second: &Snapshot, found: &Difference) -> String {
    let name = |one: &Snapshot| format!("{} ({})", called(one), short(&one.key));
    let row = |what: &str, pages: u64, of: u64| {
        vec![what.to_owned(), pages.to_string(), screen::bytes(pages * PAGE), percent(pages, of)]
    };
    let (of_first, of_second) = (found.pages.first(), found.pages.second());
    let header = ["pages", "", "bytes", "of its own"];
    let rows = vec![
        row("the same", found.pages.same, of_second),
        row("other bytes", found.pages.replaced, of_second),
        row("only in B", found.pages.filled, of_second),
        row("only in A", found.pages.zeroed, of_first),
    ];
    let mut text = format!("A  {}\nB  {}\non {}\n\n", name(first), name(second), second.host_id);
    text += &screen::table(&header, &[1, 2, 3], rows);
    let chunk = screen::bytes(u64::from(CHUNK_PAGES) * PAGE);
    let _ = write!(
        text,
        "\nin chunks of {chunk}: {} of {} are the same ({}); a diff of B on A holds {} in {} pages",
        found.shared.0,
        found.chunks.0,
        screen::bytes(found.shared.1 * PAGE),
        screen::bytes((found.pages.filled + found.pages.replaced) * PAGE),
        found.pages.filled + found.pages.replaced,
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "pages of a guest")]
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests;
