//! The JSON shapes that programs read. Field names are those of the protos; they are part of the contract.

use crate::commands::snapshot::PageCounts;
use serde_json::{Value, json};
use warren_proto::v1::{
    Decision, Function, FunctionVersion, Host, InvokeResponse, Kind, LogLine, Network, Optimization,
    OriginCopy, Pager, PagerTier, PolicyStatus, Sandbox, SnapStart, Snapshot, SnapshotTouches,
    StatusResponse, Timing, VerifySnapshotResponse,
};

/// One function.
pub(crate) fn function(function: &Function) -> Value {
    let latest = function.latest.clone().unwrap_or_default();
    let limits = latest.limits.unwrap_or_default();
    json!({
        "name": latest.name, "version": latest.version, "versions": function.versions,
        "revision": function.revision, "code_digest": latest.code_digest, "code_bytes": latest.code_bytes,
        "world": latest.world().as_str_name(), "memory_mib": limits.memory_mib, "timeout_ms": limits.timeout_ms,
        "tmp_mib": limits.tmp_mib, "reserved_concurrency": limits.reserved_concurrency,
        "env": latest.env.iter().map(|e| (e.name.clone(), Value::from(e.value.clone()))).collect::<serde_json::Map<_, _>>(),
        "args": latest.args, "task_digest": latest.task_digest, "json_response": latest.json_response,
        "created_unix_ms": latest.created_unix_ms,
        "kind": kind(latest.kind()),
        "runtime": latest.runtime, "runtime_digest": latest.runtime_digest, "handler": latest.handler,
        "network": network(&latest), "snap_start": snap_start(&latest),
        "optimization": optimization(&latest), "optimization_reason": latest.optimization_reason,
    })
}

/// When a function's snapshot is made.
pub(crate) fn snap_start(version: &FunctionVersion) -> &'static str {
    match (version.snap_start(), version.kind()) {
        (SnapStart::Off, _) => "off",
        (SnapStart::Published, _) | (SnapStart::Unspecified, Kind::Wasm | Kind::Unspecified) => "published",
        (SnapStart::Unspecified, Kind::Linux) => "as its host does it",
    }
}

/// What came of that when the version was published; null if nobody asked for it.
fn optimization(version: &FunctionVersion) -> Value {
    match version.optimization() {
        Optimization::Unspecified => Value::Null,
        Optimization::On => "on".into(),
        Optimization::Off => "off".into(),
    }
}

/// What a function is.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Linux => "linux",
        Kind::Unspecified | Kind::Wasm => "wasm",
    }
}

/// What a function reaches.
pub(crate) fn network(version: &FunctionVersion) -> &'static str {
    match version.network() {
        _ if version.kind() != Kind::Linux => "none",
        Network::Unspecified => "outbound where the host can",
        Network::Outbound => "outbound",
        Network::None => "none",
    }
}

/// One answer; its payload as JSON if it is, as text if it is, else only its length (use `--out`).
pub(crate) fn answer(answer: &InvokeResponse) -> Value {
    let payload = serde_json::from_slice::<Value>(&answer.payload).ok();
    let payload = payload.or_else(|| std::str::from_utf8(&answer.payload).ok().map(Value::from));
    let report = answer.report.clone().unwrap_or_default();
    json!({
        "request_id": answer.request_id, "version": answer.version,
        "payload": payload, "payload_bytes": answer.payload.len(),
        "timing": timing(&answer.timing.unwrap_or_default()),
        "report": {
            "duration_us": report.duration_us, "billed_ms": report.billed_ms, "memory_mib": report.memory_mib,
            "memory_peak_bytes": report.memory_peak_bytes, "init_us": report.init_us,
            "restore_us": report.restore_us,
        },
        "log_tail": answer.log_tail,
    })
}

/// Where the time went.
pub(crate) fn timing(timing: &Timing) -> Value {
    json!({
        "admission_us": timing.admission_us, "assignment_us": timing.assignment_us,
        "placement_us": timing.placement_us, "jail_us": timing.jail_us, "vm_us": timing.vm_us,
        "init_us": timing.init_us, "restore_us": timing.restore_us, "handler_us": timing.handler_us, "total_us": timing.total_us,
        "cold": timing.cold,
    })
}

/// The short name of a sandbox's state.
pub(crate) fn state(sandbox: &Sandbox) -> String {
    sandbox.state().as_str_name().trim_start_matches("SANDBOX_STATE_").to_lowercase()
}

/// One sandbox.
pub(crate) fn sandbox(sandbox: &Sandbox) -> Value {
    json!({
        "id": sandbox.id, "host_id": sandbox.host_id, "function": sandbox.function, "version": sandbox.version,
        "state": state(sandbox), "memory_mib": sandbox.memory_mib, "invocations": sandbox.invocations,
        "age_ms": sandbox.age_ms, "idle_ms": sandbox.idle_ms, "request_id": sandbox.request_id,
        "pid": sandbox.pid, "restored": sandbox.restored, "paged": sandbox.paged, "partition": sandbox.partition, "epoch": sandbox.epoch,
    })
}

/// The short name of a snapshot's state.
pub(crate) fn snapshot_state(snapshot: &Snapshot) -> String {
    snapshot.state().as_str_name().trim_start_matches("SNAPSHOT_STATE_").to_lowercase()
}

/// What the fleet has of it; nothing where its host shares none.
pub(crate) fn origin_copy(snapshot: &Snapshot) -> Option<String> {
    let copy = snapshot.origin();
    let name = copy.as_str_name().trim_start_matches("ORIGIN_COPY_").to_lowercase();
    (copy != OriginCopy::Unspecified).then_some(name)
}

/// One snapshot.
pub(crate) fn snapshot(one: &Snapshot) -> Value {
    json!({
        "key": one.key, "host_id": one.host_id, "function": one.function, "version": one.version,
        "kind": kind(one.kind()), "state": snapshot_state(one), "reason": one.reason,
        "memory_bytes": one.memory_bytes, "file_bytes": one.file_bytes, "made_unix_ms": one.made_unix_ms,
        "code_digest": one.code_digest, "compiled_digest": one.compiled_digest, "task_digest": one.task_digest,
        "told_digest": one.told_digest, "guest_digest": one.guest_digest, "memory_digest": one.memory_digest,
        "cpu_template": one.cpu_template, "cpu_digest": one.cpu_digest,
        "uses": one.uses, "last_used_unix_ms": one.last_used_unix_ms, "age_ms": one.age_ms,
        "origin": origin_copy(one), "origin_new_bytes": one.origin_new_bytes,
        "origin_shared_bytes": one.origin_shared_bytes, "origin_reason": one.origin_reason,
    })
}

/// One that was read again.
pub(crate) fn verified(one: &Snapshot, answer: &VerifySnapshotResponse) -> Value {
    json!({
        "key": one.key, "host_id": one.host_id, "function": one.function, "version": one.version,
        "good": answer.good, "reason": answer.reason, "memory_bytes": answer.memory_bytes,
        "took_us": answer.took_us,
    })
}

/// Pages of two snapshots, by what they are in the second.
pub(crate) fn page_counts(counts: &PageCounts) -> Value {
    json!({
        "same": counts.same, "only_second": counts.filled, "only_first": counts.zeroed, "differing": counts.replaced,
    })
}

/// A snapshot's working set, by where windows of so many pages begin.
pub(crate) fn touches(touches: &SnapshotTouches, window_pages: u32) -> Value {
    let windows = touches.windows.iter().map(|one| {
        let at = u64::from(one.number) * u64::from(window_pages) * 4096;
        json!({ "address": at, "pages": one.pages, "first": one.first })
    });
    json!({ "starts": touches.starts, "pages": touches.pages, "windows": windows.collect::<Vec<_>>() })
}

/// One host.
pub(crate) fn host(host: &Host) -> Value {
    let (resources, zygotes) = (host.resources.clone().unwrap_or_default(), host.zygotes.unwrap_or_default());
    json!({
        "id": host.id, "address": host.address, "state": host.state, "free_memory_mib": host.free_memory_mib,
        "memory_mib": resources.memory_mib, "cpu_millis": resources.cpu_millis, "zone": resources.zone,
        "guests": resources.guests, "no_linux_because": resources.no_linux_because,
        "no_network_because": resources.no_network_because,
        "cpu_template": resources.cpu_template, "cpu_digest": resources.cpu_digest,
        "network_mbit": resources.network_mbit, "disk_mib": resources.disk_mib, "disk_iops": resources.disk_iops,
        "runtimes": host.runtimes.iter().map(|one| json!({ "name": one.name, "digest": one.digest })).collect::<Vec<_>>(),
         "ends": host.ends.iter().map(|(reason, count)| (reason.clone(), Value::from(*count))).collect::<serde_json::Map<_, _>>(),
        "zygotes": {
            "waiting": zygotes.waiting, "adopted": zygotes.adopted, "missed": zygotes.missed, "died": zygotes.died,
        },
        "shared": host.shared.as_ref().map(|shared| json!({
            "published": shared.published, "not_published": shared.not_published,
            "new_bytes": shared.new_bytes, "shared_bytes": shared.shared_bytes,
            "fetched": shared.fetched, "not_fetched": shared.not_fetched,
            "refused_entries": shared.refused_entries, "retired_reads": shared.retired_reads,
            "neighbours": shared.neighbours, "own_hits": shared.own_hits, "neighbour_hits": shared.neighbour_hits,
            "origin_hits": shared.origin_hits, "neighbour_lies": shared.neighbour_lies,
            "neighbour_failures": shared.neighbour_failures, "given": shared.given,
            "scrubbed": shared.scrubbed, "repaired": shared.repaired, "lost": shared.lost,
        })),
        "pager": host.pager.as_ref().map(pager),
        "kernel": resources.kernel, "sandboxes": host.sandboxes, "busy": host.busy,
        "last_heartbeat_ms": host.last_heartbeat_ms,
    })
}

/// What brings memory on a host, and what it did.
pub(crate) fn pager(pager: &Pager) -> Value {
    json!({
        "pid": pager.pid, "begun": pager.begun, "memory_mib": pager.memory_mib,
        "serving": pager.serving, "served": pager.served,
        "faults": pager.faults, "waits": pager.waits, "waited_us": pager.waited_us,
        "longest_wait_us": pager.longest_wait_us,
        "pages": {
            "loading_set": pager.loading_set_pages, "chunks": pager.chunk_pages, "zero": pager.zero_pages,
            "ahead": pager.ahead_pages,
        },
        "chunks": {
            "loading_set": pager.loading_set_chunks, "others": pager.chunks, "filled": pager.filled_chunks,
            "failed": pager.failed_chunks, "bytes": pager.bytes,
        },
        "reads": {
            "memory": pager_tier(pager.memory), "disk": pager_tier(pager.disk), "agent": pager_tier(pager.agent),
            "neighbours": pager_tier(pager.neighbours), "origin": pager_tier(pager.origin),
        },
    })
}

fn pager_tier(tier: Option<PagerTier>) -> Value {
    let tier = tier.unwrap_or_default();
    json!({
        "hits": tier.hits, "misses": tier.misses, "failures": tier.failures, "bytes": tier.bytes,
        "p50_us": tier.p50_us, "p99_us": tier.p99_us,
    })
}

/// The control layer.
pub(crate) fn status(status: &StatusResponse) -> Value {
    json!({
        "version": status.version, "uptime_ms": status.uptime_ms, "hosts_ready": status.hosts_ready,
        "account_concurrency_limit": status.account_concurrency_limit, "running": status.running,
        "invocations": status.invocations, "functions": status.functions, "epoch": status.epoch,
        "rss_bytes": status.rss_bytes,
    })
}

/// One policy.
pub(crate) fn policy(policy: &PolicyStatus) -> Value {
    json!({
        "kind": policy.kind, "name": policy.name, "digest": policy.digest, "state": policy.state,
        "location": policy.location, "decisions": policy.decisions, "fallbacks": policy.fallbacks,
        "traps": policy.traps, "timeouts": policy.timeouts, "invalid": policy.invalid, "p50_ns": policy.p50_ns,
        "p99_ns": policy.p99_ns, "fuel_p50": policy.fuel_p50, "last_error": policy.last_error,
    })
}

/// One decision.
pub(crate) fn decision(decision: &Decision) -> Value {
    let candidates = decision.candidates.iter().map(|candidate| {
        json!({ "id": candidate.id, "score": candidate.score, "chosen": candidate.chosen, "note": candidate.note })
    });
    json!({
        "unix_ms": decision.unix_ms, "kind": decision.kind, "function": decision.function,
        "request_id": decision.request_id, "decided_by": decision.decided_by,
        "fallback_reason": decision.fallback_reason, "text": decision.text, "took_ns": decision.took_ns,
        "fuel": decision.fuel, "candidates": candidates.collect::<Vec<_>>(),
    })
}

/// One log line.
pub(crate) fn log_line(line: &LogLine) -> Value {
    json!({
        "unix_ms": line.unix_ms, "function": line.function, "request_id": line.request_id,
        "sandbox_id": line.sandbox_id, "text": line.text, "sequence": line.sequence, "host_id": line.host_id,
    })
}

/// Time of day, UTC, to the millisecond.
pub(crate) fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        for (ms, text) in [(0, "00:00:00.000"), (86_399_999, "23:59:59.999"), (86_400_001, "00:00:00.001")] {
            assert_eq!(clock(ms), text);
        }
    }

    #[test]
    fn a_payload_is_json_or_text_or_only_counted() {
        for (bytes, value) in
            [(&b"{\"a\":1}"[..], json!({"a": 1})), (b"plain", json!("plain")), (b"\xff\xfe", Value::Null)]
        {
            let response = InvokeResponse { payload: bytes.to_vec().into(), ..InvokeResponse::default() };
            assert_eq!(answer(&response)["payload"], value);
        }
    }
}
