//! Records as JSON. Pure.

use crate::clock::iso;
use crate::core::{Micros, Record, Status};
use serde_json::{Value, json};

/// What records tell beside what happened.
pub(crate) struct Facts<'a> {
    /// The wall clock.
    pub(crate) unix_ms: u64,
    /// The event's id; empty outside of events.
    pub(crate) request_id: &'a str,
    /// The tracing header.
    pub(crate) trace_id: Option<&'a str>,
    /// `AWS_LAMBDA_INITIALIZATION_TYPE`.
    pub(crate) kind: &'a str,
    /// The function's version.
    pub(crate) version: &'a str,
    /// Memory of the function.
    pub(crate) memory_mib: u32,
    /// Most memory in use so far.
    pub(crate) peak_bytes: u64,
}

/// A platform record.
pub(crate) fn platform(record: &Record, facts: &Facts<'_>) -> String {
    let phase = |inside: bool| if inside { "invoke" } else { "init" };
    let (name, mut content) = match record {
        Record::InitStart { inside } => {
            ("platform.initStart", json!({ "initializationType": facts.kind, "phase": phase(*inside) }))
        }
        Record::InitRuntimeDone { inside, error_type } => {
            let status = if error_type.is_some() { "error" } else { "success" };
            let mut content =
                json!({ "initializationType": facts.kind, "phase": phase(*inside), "status": status });
            set(&mut content, "errorType", error_type.as_deref().map(Value::from));
            ("platform.initRuntimeDone", content)
        }
        Record::InitReport { inside, took } => (
            "platform.initReport",
            json!({
                "initializationType": facts.kind,
                "phase": phase(*inside),
                "status": "success",
                "metrics": { "durationMs": ms(*took) },
            }),
        ),
        Record::Extension { name, subscription } => {
            let wanted = [("INVOKE", subscription.invoke), ("SHUTDOWN", subscription.shutdown)];
            let events: Vec<_> = wanted.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
            ("platform.extension", json!({ "name": name, "state": "Registered", "events": events }))
        }
        Record::Start => {
            ("platform.start", json!({ "requestId": facts.request_id, "version": facts.version }))
        }
        Record::RuntimeDone { status, took, produced } => {
            let mut content = json!({
                "requestId": facts.request_id,
                "metrics": { "durationMs": ms(*took), "producedBytes": produced },
            });
            set_status(&mut content, status);
            ("platform.runtimeDone", content)
        }
        Record::Report { status, took, init } => {
            let mut metrics = json!({
                "durationMs": ms(*took),
                "billedDurationMs": took.div_ceil(1000),
                "memorySizeMB": facts.memory_mib,
                "maxMemoryUsedMB": facts.peak_bytes.div_ceil(1 << 20).min(facts.memory_mib.into()),
            });
            set(&mut metrics, "initDurationMs", init.map(|took| Value::from(ms(took))));
            let mut content = json!({ "requestId": facts.request_id, "metrics": metrics });
            set_status(&mut content, status);
            ("platform.report", content)
        }
    };
    if let (Record::Start | Record::RuntimeDone { .. } | Record::Report { .. }, Some(trace)) =
        (record, facts.trace_id)
    {
        set(&mut content, "tracing", Some(json!({ "type": "X-Amzn-Trace-Id", "value": trace })));
    }
    envelope(facts.unix_ms, name, &content)
}

/// A line of a log. With `structured`, one that is a JSON object stays one.
pub(crate) fn line(unix_ms: u64, extension: bool, line: &[u8], structured: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\n');
    let object = structured.then(|| serde_json::from_str(text).ok().filter(Value::is_object)).flatten();
    let name = if extension { "extension" } else { "function" };
    envelope(unix_ms, name, &object.unwrap_or_else(|| Value::from(text)))
}

/// That somebody subscribed.
pub(crate) fn subscribed(unix_ms: u64, name: &str, types: &Value) -> String {
    let content = json!({ "name": name, "state": "Subscribed", "types": types });
    envelope(unix_ms, "platform.telemetrySubscription", &content)
}

/// A record's outside.
pub(super) fn envelope(unix_ms: u64, name: &str, content: &Value) -> String {
    json!({ "time": iso(unix_ms), "type": name, "record": content }).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "52 bits of microseconds are 142 years")]
fn ms(took: Micros) -> f64 {
    took as f64 / 1000.0
}

fn set(content: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (content.as_object_mut(), value) {
        object.insert(name.to_owned(), value);
    }
}

fn set_status(content: &mut Value, status: &Status) {
    let (name, error_type) = match status {
        Status::Success => ("success", None),
        Status::Error(kind) => ("error", Some(kind)),
        Status::Failure(kind) => ("failure", Some(kind)),
        Status::Timeout => ("timeout", None),
    };
    set(content, "status", Some(name.into()));
    set(content, "errorType", error_type.map(|kind| kind.as_str().into()));
}
