//! A function that behaves as its event says; see the folder's README.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// What a thread in the background counts, a hundred times a second.
static TICKS: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("rust: cold");
    match std::env::var("INIT").as_deref() {
        Ok("exit") => std::process::exit(7),
        Ok("sleep") => std::thread::sleep(Duration::from_secs(3600)),
        _ => {}
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(10));
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    lambda_runtime::run(service_fn(handler)).await
}

/// What a program sees of its sandbox.
fn look() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let refused = |path: &str| std::fs::write(path, "x").err().map(|error| error.kind().to_string());
    let unix_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let pids = std::fs::read_dir("/proc").map(|entries| {
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mine = names.filter(|name| std::fs::read(format!("/proc/{name}/cmdline")).is_ok_and(|line| !line.is_empty()));
        mine.filter(|name| name.parse::<u32>().is_ok()).count()
    });
    json!({
        "uid": field("Uid:"),
        "groups": field("Groups:"),
        "privileges": field("NoNewPrivs:"),
        "capabilities": field("CapEff:"),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim(),
        "unix_s": unix_s,
        "task": refused("/var/task/x"),
        "root": refused("/x"),
        "etc": refused("/etc/hosts"),
        "disk": std::fs::File::open("/dev/vdb").err().map(|error| error.kind().to_string()),
        "processes": pids.unwrap_or_default(),
        "folder": std::env::current_dir().unwrap_or_default(),
        "limits": std::fs::read_to_string("/proc/self/limits").unwrap_or_default().lines().nth(7),
    })
}

/// Writes to /tmp until it is full; how much that was, and why it ended. Then removes it.
fn fill() -> Result<Value, Error> {
    use std::io::Write;
    let mut file = std::fs::File::create("/tmp/fill")?;
    let (chunk, mut written) = (vec![7; 1 << 16], 0_u64);
    let why = loop {
        match file.write(&chunk) {
            Ok(count) => written += count as u64,
            // In the words of every other language.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break "No space left on device".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    std::fs::remove_file("/tmp/fill")?;
    Ok(json!({ "bytes": written, "why": why }))
}

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let (payload, context) = event.into_parts();
    println!("rust: {} {}", context.request_id, payload["do"]);
    match payload["do"].as_str() {
        Some("fail") => Err("as you wish".into()),
        Some("exit") => std::process::exit(3),
        Some("sleep") => loop {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        },
        Some("large") => {
            let bytes = payload["bytes"].as_u64().unwrap_or_default();
            Ok(json!("x".repeat(usize::try_from(bytes)?)))
        }
        Some("look") => Ok(look()),
        Some("ticks") => Ok(json!(TICKS.load(Ordering::Relaxed))),
        Some("rest") => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(json!(TICKS.load(Ordering::Relaxed)))
        }
        Some("fill") => Ok(fill()?),
        Some("keep") => {
            let before = std::fs::read_to_string("/tmp/kept").unwrap_or_default();
            std::fs::write("/tmp/kept", payload["value"].to_string())?;
            Ok(json!(before))
        }
        _ => Ok(json!({
            "echo": payload["value"],
            "count": count,
            "id": context.request_id,
            "trace": context.xray_trace_id,
            "arn": context.invoked_function_arn,
            "function": context.env_config.function_name,
            "memory": context.env_config.memory,
        })),
    }
}
