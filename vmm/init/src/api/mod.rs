//! What programs ask over HTTP: the Runtime API (2018-06-01), the Extensions API (2020-01-01), the Telemetry API (2022-07-01).
//!
//! hyper speaks HTTP; this is the table of paths and the documents. Whether a request fits the moment, the machine decides.

mod answer;
mod base64;
mod body;
mod extension;
mod runtime;
mod telemetry;

use crate::serve::supervisor::Supervisor;
use answer::{Answer, not_found, text};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::net::TcpListener;

/// Serves every connection, for ever.
pub(crate) async fn serve(listener: TcpListener, supervisor: Supervisor) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor left: programs hold their connections; another moment may be better.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let supervisor = supervisor.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let supervisor = supervisor.clone();
                async move { Ok::<_, Infallible>(route(supervisor, request).await) }
            });
            // A connection that breaks is its client's business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn route(supervisor: Supervisor, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    match (request.method(), &*words) {
        (&Method::GET, ["2018-06-01", "ping"]) => text(StatusCode::OK, "pong"),
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => runtime::next(&supervisor).await,
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            runtime::response(&supervisor, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            runtime::error(&supervisor, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            runtime::init_error(&supervisor, request).await
        }
        (&Method::GET, ["2018-06-01", "runtime", "restore", "next"]) => {
            runtime::restore_next(&supervisor).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "restore", "error"]) => {
            runtime::restore_error(&supervisor, request).await
        }
        (&Method::POST, ["2020-01-01", "extension", "register"]) => {
            extension::register(&supervisor, request).await
        }
        (&Method::GET, ["2020-01-01", "extension", "event", "next"]) => {
            extension::next(&supervisor, request.headers()).await
        }
        (&Method::POST, ["2020-01-01", "extension", when @ ("init" | "exit"), "error"]) => {
            extension::error(&supervisor, when, request).await
        }
        (&Method::PUT, ["2022-07-01", "telemetry"]) => telemetry::subscribe(&supervisor, request).await,
        (&Method::PUT, ["2020-08-15", "logs"]) => telemetry::logs(),
        _ => not_found(),
    }
}
