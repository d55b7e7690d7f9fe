//! Snapshots as people read them: a row each, or all that is known of one.

use super::has_file;
use crate::{screen, shape};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warren_proto::v1::{Kind, OriginCopy, Snapshot};

pub(super) fn table(snapshots: &[Snapshot], now_ms: u64) -> String {
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
            base(one),
            clip(&one.reason),
        ]
    });
    let header = [
        "snapshot", "function", "kind", "state", "host", "memory", "pages", "age", "uses", "used", "base",
        "why",
    ];
    screen::table(&header, &[5, 6, 7, 8, 9], rows.collect())
}

pub(super) const PAGE: u64 = 4096;

pub(super) fn details(one: &Snapshot, now_ms: u64) -> String {
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
    if !one.base_key.is_empty() {
        text += &line("made from", format!("{}, its runtime's", one.base_key));
    }
    text += &line("on disk", screen::bytes(one.file_bytes));
    if one.origin() != OriginCopy::Unspecified {
        text += &line("in the origin", in_origin(one));
    }
    text += &line("made", format!("{} ago", since(one.made_unix_ms, now_ms)));
    text += &line("used", format!("{} times since its agent started", one.uses));
    text += &line("last used", since(one.last_used_unix_ms, now_ms));
    if !one.cpu_template.is_empty() {
        text += &line("processor template", one.cpu_template.clone());
    }
    for (what, digest) in [
        ("module", &one.code_digest),
        ("compiled code", &one.compiled_digest),
        ("files", &one.task_digest),
        ("what it is told", &one.told_digest),
        ("guest program", &one.guest_digest),
        ("runtime", &one.runtime_digest),
        ("kernel", &one.kernel_digest),
        ("initrd", &one.initrd_digest),
        ("processor", &one.cpu_digest),
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
pub(super) fn kind(one: &Snapshot) -> &'static str {
    match one.kind() {
        Kind::Unspecified => "-",
        known => shape::kind(known),
    }
}

/// `hello:3`; a file that does not say its version any more has none. What no function is in is its runtime's, for all that begin with it.
pub(super) fn called(one: &Snapshot) -> String {
    if one.function.is_empty() {
        let of = short(&one.runtime_digest);
        return if of.is_empty() { "(runtime)".to_owned() } else { format!("(runtime {of})") };
    }
    match one.version {
        0 => one.function.clone(),
        version => format!("{}:{version}", one.function),
    }
}

/// What it was made from; `-`: nothing but what it is of.
fn base(one: &Snapshot) -> String {
    if one.base_key.is_empty() { "-".to_owned() } else { short(&one.base_key) }
}

pub(super) fn short(key: &str) -> String {
    key.chars().take(12).collect()
}

pub(super) fn clip(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MOST {
        line.to_owned()
    } else {
        format!("{}...", line.chars().take(MOST).collect::<String>())
    }
}

/// How long ago; `-` for never.
pub(super) fn since(unix_ms: u64, now_ms: u64) -> String {
    if unix_ms == 0 { "-".to_owned() } else { screen::age(now_ms.saturating_sub(unix_ms)) }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::one, *};
    use warren_proto::v1::SnapshotState;

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
        let mut runtime = one("", 0, "eeeeeeee06ffff", "w1");
        runtime.runtime_digest = "0123456789abcdef".into();
        assert_eq!(called(&runtime), "(runtime 0123456789ab)");
        runtime.runtime_digest.clear();
        assert_eq!(called(&runtime), "(runtime)");
        let text = table(&[kept, failed], 61_000);
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let row = |line: usize| lines[line].join(" ");
        assert_eq!(row(1), "bbbbbbbb02cc hello:2 wasm kept w1 12.0 KiB 3 60 s 7 - -");
        assert_eq!(row(2), "dddddddd05 drew:1 wasm hopeless w1 - - 5 s - - - it drew");
        // Of one that was made from another, that is said.
        let mut begun = one("shell", 1, "ffffffff07", "w1");
        begun.base_key = "eeeeeeee06ffff0011".into();
        begun.cpu_template = "amd-zen".into();
        begun.set_state(SnapshotState::Kept);
        assert!(table(&[begun.clone()], 61_000).contains(" eeeeeeee06ff"));
        assert!(details(&begun, 61_000).contains("\nprocessor template    amd-zen\n"));
        assert!(details(&begun, 61_000).contains("made from             eeeeeeee06ffff0011, its runtime's"));
    }
}
