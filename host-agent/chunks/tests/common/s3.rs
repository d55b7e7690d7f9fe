//! An S3 server that does as it is told, for what no real one does on request: be slow, full, forbidding, lying.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;
use warren_chunks::l3::{Origin, OriginLimits, S3};

/// What it does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    /// What S3 does.
    Well,
    /// This status, always.
    Status(u16),
    /// This status so many times, then well.
    First(u16, usize),
    /// No answer at all.
    Silent,
    /// Other bytes than were put.
    Lying,
    /// The connection closed in the middle of the body.
    Cut,
}

/// A running one.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) endpoint: String,
    mood: Arc<Mutex<Mood>>,
    pub(crate) asked: Arc<AtomicUsize>,
    objects: Arc<Mutex<HashMap<String, Bytes>>>,
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            endpoint,
            mood: Arc::new(Mutex::new(Mood::Well)),
            asked: Arc::default(),
            objects: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                let answer = service_fn(move |request| server.clone().answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        server
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.asked.store(0, Ordering::SeqCst);
    }

    pub(crate) fn origin(&self, limits: OriginLimits) -> Origin {
        let config = S3 {
            endpoint: Some(self.endpoint.clone()),
            region: "us-east-1".into(),
            bucket: "chunks".into(),
            prefix: "warren".into(),
            access_key: "AKIAEXAMPLE".into(),
            secret_key: "example".into(),
            roots: None,
        };
        Origin::s3(config, limits).unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.lock().unwrap();
        let status = |code: u16| {
            Ok(Response::builder().status(code).body(Full::new(Bytes::from_static(b"<Error/>"))).unwrap())
        };
        match mood {
            Mood::Status(code) => return status(code),
            Mood::First(code, times) if number < times => return status(code),
            Mood::Silent => std::future::pending().await,
            _ => {}
        }
        let path = request.uri().path().to_owned();
        let created = request.headers().contains_key("if-none-match");
        let method = request.method().clone();
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut objects = self.objects.lock().unwrap();
        if method == Method::PUT {
            if created && objects.contains_key(&path) {
                return status(StatusCode::PRECONDITION_FAILED.as_u16());
            }
            objects.insert(path, body);
            return Ok(Response::builder().header("etag", "\"e\"").body(Full::default()).unwrap());
        }
        if method == Method::DELETE {
            objects.remove(&path);
            return status(204);
        }
        let Some(found) = objects.get(&path).cloned() else { return status(404) };
        let sent = match mood {
            Mood::Lying => Bytes::from(vec![0x5a; found.len()]),
            Mood::Cut => found.slice(..found.len() / 2),
            _ => found.clone(),
        };
        let mut answer = Response::builder()
            .header("etag", "\"e\"")
            .header("last-modified", "Sat, 21 Nov 2026 00:00:00 GMT");
        if matches!(mood, Mood::Cut) || method == Method::HEAD {
            answer = answer.header("content-length", found.len());
        }
        Ok(answer.body(Full::new(if method == Method::HEAD { Bytes::new() } else { sent })).unwrap())
    }
}
