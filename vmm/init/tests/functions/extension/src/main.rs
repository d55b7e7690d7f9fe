//! An extension that says what it is told: `NAME: invoke ID`, `NAME: shutdown WHY`, and `NAME: telemetry TYPE`. The last
//! are sent on standard output too, so records of kind `extension` are not subscribed to.

use lambda_extension::{Error, Extension, LambdaEvent, LambdaTelemetry, NextEvent, SharedService, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var("EXTENSION").as_deref() == Ok("exit") {
        std::process::exit(4);
    }
    let telemetry = SharedService::new(service_fn(records));
    let extension = Extension::new().with_events_processor(service_fn(event));
    if std::env::var("TELEMETRY").is_ok() {
        let types = &["platform", "function"];
        let extension = extension
            .with_telemetry_types(types)
            .with_telemetry_buffering(lambda_extension::LogBuffering {
                timeout_ms: 25,
                max_bytes: 262_144,
                max_items: 1000,
            })
            .with_telemetry_processor(telemetry);
        extension.run().await
    } else {
        extension.run().await
    }
}

fn name() -> String {
    let program = std::env::args().next().unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default().to_owned()
}

async fn event(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(invoke) => println!("{}: invoke {} {}", name(), invoke.request_id, invoke.tracing.value),
        NextEvent::Shutdown(shutdown) => {
            println!("{}: shutdown {}", name(), shutdown.shutdown_reason);
            if std::env::var("EXTENSION").as_deref() == Ok("deaf") {
                tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
            }
        }
    }
    if std::env::var("EXTENSION").as_deref() == Ok("fail") {
        return Err("as you wish".into());
    }
    Ok(())
}

async fn records(records: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for record in records {
        println!("{}: telemetry {}", name(), serde_json::to_string(&record.record)?);
    }
    Ok(())
}
