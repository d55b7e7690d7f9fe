//! A function that behaves as its event says; see the folder's README.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
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
    let early = (std::env::var_os("RESTORE").is_some()).then(draw).transpose()?;
    if early.is_some() {
        wait_to_be_restored()?;
        println!("rust: restored; drawn before {}, after {}", early.unwrap_or_default(), draw()?);
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(10));
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    lambda_runtime::run(service_fn(handler)).await
}

/// A connection to the Runtime API.
fn api() -> Result<TcpStream, Error> {
    Ok(TcpStream::connect(std::env::var("AWS_LAMBDA_RUNTIME_API")?)?)
}

/// Initialised: returns when this was written down and brought back.
fn wait_to_be_restored() -> Result<(), Error> {
    let mut stream = api()?;
    stream.write_all(b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer.into()) }
}

/// What no two sandboxes may have alike, as far as the kernel draws it.
fn draw() -> Result<Value, Error> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    // Local ports that the kernel chose: of connections to one address, and of listeners.
    let asked = (0..4).map(|_| Ok(api()?.local_addr()?.port())).collect::<Result<Vec<u16>, Error>>()?;
    let given = (0..4)
        .map(|_| Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()))
        .collect::<Result<Vec<u16>, Error>>()?;
    Ok(json!({
        "random": u128::from_be_bytes(random).to_string(),
        "uuid": uuid.trim(),
        "asked": asked,
        "given": given,
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim(),
        "unix_s": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    }))
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
        Some("draw") => draw(),
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
