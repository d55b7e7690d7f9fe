//! A function that behaves as its event says; see the folder's README.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static COUNT: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("rust: cold");
    match std::env::var("INIT").as_deref() {
        Ok("exit") => std::process::exit(7),
        Ok("sleep") => std::thread::sleep(Duration::from_secs(3600)),
        _ => {}
    }
    lambda_runtime::run(service_fn(handler)).await
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
