//! Bringing batches to a subscriber's server: one task a subscriber.

use super::buffer::Buffer;
use crate::clock::Clock;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What a server may take for one batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a batch is brought before it is given up.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(50);

pub(super) fn start(
    clock: Clock,
    port: u16,
    buffer: Rc<RefCell<Buffer>>,
    changed: Rc<Notify>,
) -> tokio::task::AbortHandle {
    tokio::task::spawn_local(deliver_all(clock, port, buffer, changed)).abort_handle()
}

async fn deliver_all(clock: Clock, port: u16, buffer: Rc<RefCell<Buffer>>, changed: Rc<Notify>) {
    loop {
        let due = buffer.borrow().due();
        match due {
            None => changed.notified().await,
            Some(at) if at > clock.now() => {
                tokio::select! {
                    () = tokio::time::sleep_until(clock.instant(at).into()) => {}
                    () = changed.notified() => {}
                }
            }
            Some(_) => {
                let batch = buffer.borrow_mut().take(clock.now());
                if let Some(batch) = batch {
                    deliver(port, Bytes::from(batch)).await;
                }
            }
        }
    }
}

async fn deliver(port: u16, batch: Bytes) {
    for attempt in 0..ATTEMPTS {
        let tried = tokio::time::timeout(PATIENCE, post(port, batch.clone())).await;
        if matches!(tried, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(RETRY * 2_u32.pow(attempt)).await;
    }
}

/// Why a server did not take a batch.
enum Failure {
    Io,
    Http,
    Refused,
}

async fn post(port: u16, batch: Bytes) -> Result<(), Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|_| Failure::Io)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Http)?;
    let connection = tokio::task::spawn_local(connection);
    let request = hyper::Request::post("/")
        .header(HOST, format!("sandbox.localdomain:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(batch))
        .map_err(|_| Failure::Http)?;
    let answer = sender.send_request(request).await.map_err(|_| Failure::Http)?;
    let taken = answer.status().is_success();
    let _ = answer.into_body().collect().await;
    connection.abort();
    if taken { Ok(()) } else { Err(Failure::Refused) }
}
