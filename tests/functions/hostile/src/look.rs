//! What can be seen from inside a sandbox.

use serde_json::{Map, Value, json};
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn environment() -> Value {
    let variables: Map<String, Value> =
        std::env::vars().map(|(name, value)| (name, Value::String(value))).collect();
    let arguments: Vec<String> = std::env::args().collect();
    let roots: Vec<Value> = ["/", "/tmp", "/var", "/var/task", "/proc", "/dev", "/etc"].map(files).into();
    json!({"env": variables, "args": arguments, "roots": roots})
}

pub(crate) fn files(path: &str) -> Value {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            json!({"path": path, "files": names})
        }
        Err(error) => json!({"path": path, "error": error.to_string()}),
    }
}

pub(crate) fn read_file(path: &str) -> Value {
    match fs::read(path) {
        Ok(bytes) => json!({"path": path, "len": bytes.len(), "text": String::from_utf8_lossy(&bytes)}),
        Err(error) => json!({"path": path, "error": error.to_string()}),
    }
}

pub(crate) fn write_file(path: &str, text: &str) -> Value {
    match fs::write(path, text) {
        Ok(()) => read_file(path),
        Err(error) => json!({"path": path, "error": error.to_string()}),
    }
}

/// Two keys of the standard library's hasher come straight from `random_get`; their hashes differ when they do.
pub(crate) fn random() -> Value {
    let draw = || format!("{:016x}", RandomState::new().hash_one(0_u8));
    json!({"random": draw()})
}

pub(crate) fn clocks() -> Value {
    let started = Instant::now();
    let wall =
        SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_millis()).unwrap_or_default();
    let mut readings: Vec<u128> = (0..1000).map(|_| started.elapsed().as_nanos()).collect();
    let in_order = readings.is_sorted();
    readings.dedup();
    json!({"unix_ms": u64::try_from(wall).unwrap_or(u64::MAX), "monotonic": in_order, "distinct": readings.len()})
}
