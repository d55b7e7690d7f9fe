//! Bringing batches to a subscriber's server: one task a subscriber.

use super::buffer::Buffer;
use crate::clock::Clock;
use crate::serve::freezer::Freezer;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What a server may take for one batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a batch is brought before it is given up.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(50);

/// One subscriber's.
pub(super) struct Delivery {
    pub(super) clock: Clock,
    /// While the subscriber is held, nothing is brought and no time counts.
    pub(super) freezer: Rc<Freezer>,
    pub(super) port: u16,
    pub(super) buffer: Rc<RefCell<Buffer>>,
    pub(super) changed: Rc<Notify>,
}

impl Delivery {
    pub(super) fn start(self) -> tokio::task::AbortHandle {
        tokio::task::spawn_local(self.deliver_all()).abort_handle()
    }

    async fn deliver_all(self) {
        loop {
            let due = self.buffer.borrow().due();
            match due {
                None => self.changed.notified().await,
                Some(at) if at > self.clock.now() => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.clock.instant(at).into()) => {}
                        () = self.changed.notified() => {}
                    }
                }
                Some(_) => {
                    self.freezer.awake().await;
                    let batch = self.buffer.borrow_mut().take(self.clock.now());
                    if let Some(batch) = batch {
                        self.deliver(Bytes::from(batch)).await;
                    }
                }
            }
        }
    }

    async fn deliver(&self, batch: Bytes) {
        for attempt in 0..ATTEMPTS {
            if self.bring(batch.clone()).await {
                return;
            }
            tokio::time::sleep(RETRY * 2_u32.pow(attempt)).await;
            self.freezer.awake().await;
        }
    }

    /// Brings a batch once; a server that was held meanwhile has its time again.
    async fn bring(&self, batch: Bytes) -> bool {
        let mut post = pin!(post(self.port, batch));
        loop {
            let held = self.freezer.count();
            match tokio::time::timeout(PATIENCE, post.as_mut()).await {
                Ok(tried) => return tried.is_ok(),
                Err(_) if self.freezer.count() != held => self.freezer.awake().await,
                Err(_) => return false,
            }
        }
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
