//! What people see of snapshots, and do to them: `warren snapshot`, and the API below it.

use crate::{answered, flip, is_restore, made, until};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fs;
use warren_proto::{
    error::{Fault, WireError},
    v1::{HostSnapshotRequest, ListHostsRequest},
};
use warren_suites::{Deploy, Installation, modules};

/// What the command line shows of one: as it is kept, used, spoiled, and gone.
pub(crate) async fn people_see_verify_and_remove_them(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    let path = made(warren, &name).await?;
    let one = seen(warren, &name).await?;
    ensure!(one["state"] == "kept" && one["version"] == 1 && one["kind"] == "wasm", "{one}");
    ensure!(one["uses"] == 0 && one["last_used_unix_ms"] == 0, "used before it was: {one}");
    let pages = one["memory_bytes"].as_u64().context("no memory")?;
    ensure!(pages > 0 && pages % 4096 == 0, "{one}");
    ensure!(one["file_bytes"].as_u64() == Some(fs::metadata(&path)?.len()), "{one}");
    let answer = answered(warren, &name).await?;
    ensure!(is_restore(&answer)?, "{:?}", answer.timing);
    let used = seen(warren, &name).await?;
    ensure!(used["uses"] == 1 && used["last_used_unix_ms"].as_u64() > Some(0), "{used}");
    let text = warren.cli(&["snapshot", "show", &name]).await?;
    let text = String::from_utf8(text.stdout)?;
    for part in ["key", "code_digest", "memory_digest"] {
        let digest = if part == "key" { &one["key"] } else { &used[part] };
        ensure!(text.contains(digest.as_str().context(part)?), "no {part} in:\n{text}");
    }
    let key = one["key"].as_str().context("no key")?;
    ensure!(verified(warren, &name).await? == (true, String::new()));
    ensure!(seen(warren, &name).await?["uses"] == 1, "who looks uses it");

    // Of the memory, which a list does not read; then of what is signed.
    flip(&path, 40_000)?;
    let shown = warren.cli(&["snapshot", "top", &name]).await?;
    let said = String::from_utf8(shown.stderr)?;
    ensure!(!shown.status.success() && said.contains("SNAPSHOT_DAMAGED"), "{said}");
    let (good, reason) = verified(warren, key).await?;
    ensure!(!good && reason.contains("memory"), "{good} {reason}");
    ensure!(seen(warren, &name).await?["state"] == "kept", "a list reads heads alone");
    flip(&path, 50)?;
    let damaged = seen(warren, &name).await?;
    ensure!(damaged["state"] == "damaged" && damaged["reason"] != "", "{damaged}");
    ensure!(damaged["key"] == key && damaged["version"] == 0, "{damaged}");

    let removed = warren.cli(&["snapshot", "rm", &key[..12]]).await?;
    ensure!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    ensure!(!path.exists() && all_of(warren, &name).await?.is_empty(), "it is still there");
    // The sandbox that came from it lives on; another cold start boots, and has another made.
    ensure!(warren.invoke(&name, "{}").await?.timing.is_some_and(|timing| !timing.cold), "it ended");
    warren.gone(&name).await?;
    ensure!(!is_restore(&answered(warren, &name).await?)?, "from what?");
    made(warren, &name).await?;
    ensure!(verified(warren, &name).await?.0);
    let pages = seen(warren, &name).await?["memory_bytes"].as_u64().context("no memory")? / 4096;
    its_pages_are_shown(warren, &name, pages).await?;
    warren.gone(&name).await?;

    // What cannot be written down is shown with its reason; forgotten, it is tried again.
    let drew = warren.name("drew");
    warren.deploy(&drew, modules::assemble(&modules::drawn_in_init())?, Deploy::default()).await?;
    for _ in 0..2 {
        let hopeless = async || seen(warren, &drew).await.ok().filter(|one| one["state"] == "hopeless");
        let one = until("it is not shown", hopeless).await?;
        ensure!(one["reason"].as_str().is_some_and(|why| why.contains("drew random")), "{one}");
        ensure!(warren.cli(&["snapshot", "rm", &format!("{drew}:1")]).await?.status.success());
        ensure!(all_of(warren, &drew).await?.is_empty(), "not forgotten");
        answered(warren, &drew).await?;
    }
    warren.gone(&drew).await
}

/// Where its pages are, and what it has in common with itself and with the same module that is told something else.
async fn its_pages_are_shown(warren: &Installation, name: &str, pages: u64) -> Result<()> {
    let top = warren.cli_json(&["snapshot", "top", name]).await?;
    let windows = top["windows"].as_array().context("no windows")?;
    let shown: u64 = windows.iter().filter_map(|window| window["pages"].as_u64()).sum();
    // What was written down may hold a page of zeros, where it is between others.
    ensure!(shown > 0 && shown <= pages && shown * 2 > pages, "{shown} of {pages}");
    let drawn = String::from_utf8(warren.cli(&["snapshot", "top", name]).await?.stdout)?;
    ensure!(drawn.contains(&format!("{shown} pages, ")) && drawn.contains('|'), "{drawn}");

    let itself = warren.cli_json(&["snapshot", "diff", name, &format!("{name}:1")]).await?;
    ensure!(itself["pages"]["same"].as_u64() == Some(shown), "{itself}");
    for none in ["differing", "only_first", "only_second"] {
        ensure!(itself["pages"][none] == 0, "it differs from itself: {itself}");
    }
    ensure!(
        itself["shared_chunks"] == itself["chunks"] && itself["shared_bytes"].as_u64() == Some(shown * 4096)
    );
    let told = Deploy { args: vec!["other".to_owned()], ..Deploy::default() };
    let other = warren.deploy_built("hello", told).await?;
    made(warren, &other).await?;
    let both = warren.cli_json(&["snapshot", "diff", name, &other]).await?;
    let count = |what: &str| both["pages"][what].as_u64().unwrap_or(0);
    ensure!(count("same") * 2 > shown && count("differing") > 0, "{both}");
    let text = String::from_utf8(warren.cli(&["snapshot", "diff", name, &other]).await?.stdout)?;
    ensure!(text.contains("other bytes") && text.contains("a diff of B on A holds"), "{text}");
    warren.gone(&other).await
}

pub(crate) async fn one_that_is_not_there_is_said_by_name(warren: &Installation) -> Result<()> {
    let nothing = "0".repeat(64);
    for arguments in
        [["snapshot", "verify", "nobody"], ["snapshot", "top", &nothing], ["snapshot", "show", "a:1"]]
    {
        let done = warren.cli(&arguments).await?;
        let said = String::from_utf8(done.stderr)?;
        ensure!(done.status.code() == Some(4), "{arguments:?}: {}", done.status);
        ensure!(said.contains("NO_SUCH_SNAPSHOT") && said.contains("warren snapshot ls"), "{said}");
    }
    // Past the command line, where nobody has looked before.
    let hosts = warren.client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
    let host = hosts.first().context("no host")?.id.clone();
    for (host, key, reason) in [
        (host.as_str(), nothing.as_str(), "NO_SUCH_SNAPSHOT"),
        (&host, "../builder.key", "BAD_REQUEST"),
        (&host, "", "BAD_REQUEST"),
        ("nowhere", &nothing, "NO_SUCH_HOST"),
    ] {
        let request = HostSnapshotRequest { host: host.to_owned(), key: key.to_owned() };
        let verified = warren.client.admin().verify_host_snapshot(request.clone()).await.map(drop);
        let removed = warren.client.admin().remove_host_snapshot(request).await.map(drop);
        for answer in [verified, removed] {
            let error = WireError::from_status(&answer.err().with_context(|| key.to_owned())?);
            ensure!(error.reason == reason && error.fault == Fault::Caller, "{host} {key}: {error:?}");
        }
    }
    Ok(())
}

pub(crate) async fn all_of(warren: &Installation, name: &str) -> Result<Vec<Value>> {
    let all = warren.cli_json(&["snapshot", "ls", name]).await?;
    Ok(all["snapshots"].as_array().context("no list")?.clone())
}

/// The one of a function.
pub(crate) async fn seen(warren: &Installation, name: &str) -> Result<Value> {
    let all = all_of(warren, name).await?;
    ensure!(all.len() == 1, "{all:?}");
    all.into_iter().next().context("none")
}

/// What `warren snapshot verify` says of one, and with its exit code.
async fn verified(warren: &Installation, name: &str) -> Result<(bool, String)> {
    let done = warren.cli(&["--json", "snapshot", "verify", name]).await?;
    let all: Value = serde_json::from_slice(&done.stdout)?;
    let (good, reason) = (all[0]["good"] == true, all[0]["reason"].as_str().unwrap_or_default());
    ensure!(done.status.code() == Some(if good { 0 } else { 5 }), "{all} with {}", done.status);
    Ok((good, reason.to_owned()))
}
