//! What carries S3: the workspace's own hyper and rustls, as object_store asks for them.

use super::error::OriginError;
use crate::files::FileError;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection, HttpConnector as Tcp},
    },
    rt::{TokioExecutor, TokioIo},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

/// Where Debian keeps whom everybody believes.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom to believe about a server's name.
#[derive(Clone)]
pub(super) struct Roots(TlsConnector);

impl Roots {
    pub(super) fn read(file: Option<&Path>) -> Result<Self, OriginError> {
        let file = file.unwrap_or(Path::new(SYSTEM_ROOTS));
        let unusable = |what: &str| OriginError::Roots { file: file.to_owned(), what: what.to_owned() };
        let pem = std::fs::read(file).map_err(|source| FileError::new("read", file, source))?;
        let mut store = RootCertStore::empty();
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error.to_string()))?;
        let (believed, _) = store.add_parsable_certificates(certificates);
        if believed == 0 {
            return Err(unusable("no certificate in it"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// Makes object_store's client.
#[derive(Debug)]
pub(super) struct Connector(S3Client);

impl Connector {
    /// Over TLS with these roots; over plain TCP with none.
    pub(super) fn new(roots: Option<Roots>) -> Self {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self(S3Client(Client::builder(TokioExecutor::new()).build(Dial { tcp, roots })))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[derive(Clone, Debug)]
struct S3Client(Client<Dial, HttpRequestBody>);

#[async_trait::async_trait]
impl HttpService for S3Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        // Of some requests object_store makes every status one kind of failure: these two are told apart here.
        let kind = match answer.status() {
            http::StatusCode::INSUFFICIENT_STORAGE => Some(io::ErrorKind::StorageFull),
            http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN => {
                Some(io::ErrorKind::PermissionDenied)
            }
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(HttpError::new(HttpErrorKind::Unknown, io::Error::from(kind)));
        }
        let (head, body) = answer.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// TCP, then TLS where there are roots.
#[derive(Clone)]
struct Dial {
    tcp: Tcp,
    roots: Option<Roots>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").field("tls", &self.roots.is_some()).finish_non_exhaustive()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.tcp.call(to.clone());
        let roots = self.roots.clone();
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            let Some(Roots(tls)) = roots else { return Ok(Stream::Plain(TokioIo::new(tcp))) };
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let stream = tls.connect(ServerName::try_from(host)?, tcp).await?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        })
    }
}

/// One connection.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
