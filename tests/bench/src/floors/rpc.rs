//! `rpc-floor`: a bare tonic unary echo in a process of its own, over the same TLS, with the same messages.

use anyhow::{Context as _, Result};
use std::{path::Path, pin::Pin, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use warren_identity::{Service, ensure_local, server_tls, user_tls};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        InvokeEvent, InvokeRequest, InvokeResponse,
        invoke_service_client::InvokeServiceClient,
        invoke_service_server::{InvokeService, InvokeServiceServer},
    },
};

struct Echo;

#[tonic::async_trait]
impl InvokeService for Echo {
    async fn invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(InvokeResponse { payload, ..InvokeResponse::default() }))
    }

    type InvokeStreamStream = Pin<Box<dyn Stream<Item = Result<InvokeEvent, Status>> + Send>>;

    async fn invoke_stream(
        &self,
        _: Request<InvokeRequest>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        Err(Status::unimplemented("the floor is unary"))
    }
}

/// Serves until killed; prints `ready listen=ADDR` first. Runs in the process started by [`EchoServer::start`].
pub(crate) async fn serve(identity: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready listen={}", listener.local_addr()?);
    let service = InvokeServiceServer::new(Echo).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .tls_config(server_tls(identity, Service::Control)?)?
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

/// The floor's server process; ends with its owner.
pub(crate) struct EchoServer {
    _process: Child,
    identity: tempfile::TempDir,
    address: String,
}

impl EchoServer {
    /// Starts one with an identity of its own.
    pub(crate) async fn start() -> Result<Self> {
        let identity = tempfile::tempdir()?;
        ensure_local(identity.path())?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("echo-server")
            .arg(identity.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().context("stdout is a pipe")?;
        let ready =
            BufReader::new(stdout).lines().next_line().await?.context("the echo server ended at once")?;
        let address = ready.strip_prefix("ready listen=").context("no ready line")?.to_owned();
        Ok(Self { _process: process, identity, address })
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Result<InvokeServiceClient<Channel>> {
        let identity = ensure_local(self.identity.path())?;
        let channel = Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(user_tls(&identity.ca_pem))?
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(InvokeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }
}
