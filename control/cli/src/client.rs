//! Connections to Warren's API.

use crate::{Config, Failure, Outcome};
use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    error::{Fault, WireError},
    v1::{
        admin_service_client::AdminServiceClient, function_service_client::FunctionServiceClient,
        invoke_service_client::InvokeServiceClient,
    },
};

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel with the token on it.
pub type Wire = InterceptedService<Channel, Bearer>;

/// One connection; cheap to clone, and shared by clones.
#[derive(Clone)]
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects.
    pub async fn connect(config: &Config) -> Outcome<Self> {
        let client = Self::lazy(config)?;
        // The lazy channel would report an unreachable endpoint as a nameless transport error on the first call.
        let (endpoint, _) = parts(config)?;
        drop(endpoint.connect().await.map_err(|error| unreachable(&config.endpoint, &error))?);
        Ok(client)
    }

    /// Connects with the first call, and again whenever the connection is lost.
    pub fn lazy(config: &Config) -> Outcome<Self> {
        let (endpoint, bearer) = parts(config)?;
        Ok(Self { wire: InterceptedService::new(endpoint.connect_lazy(), bearer) })
    }

    /// Functions and logs.
    pub fn functions(&self) -> FunctionServiceClient<Wire> {
        FunctionServiceClient::new(self.wire.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Invocations.
    pub fn invoke(&self) -> InvokeServiceClient<Wire> {
        InvokeServiceClient::new(self.wire.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What operators see.
    pub fn admin(&self) -> AdminServiceClient<Wire> {
        AdminServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn parts(config: &Config) -> Outcome<(Endpoint, Bearer)> {
    let wrong = |what: &str| Failure::Usage(format!("the client configuration has a bad {what}"));
    let endpoint = Endpoint::from_shared(config.endpoint.clone())
        .and_then(|endpoint| endpoint.tls_config(warren_identity::user_tls(&config.ca_pem)))
        .map_err(|_| wrong("endpoint or certificate"))?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_adaptive_window(true)
        .keep_alive_while_idle(true);
    let bearer = format!("Bearer {}", config.token).parse().map_err(|_| wrong("token"))?;
    Ok((endpoint, Bearer(bearer)))
}

fn unreachable(endpoint: &str, error: &dyn std::error::Error) -> Failure {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let message = format!("cannot reach Warren at {endpoint}: {cause}; is `warren up` running?");
    let error = WireError::new(tonic::Code::Unavailable, "UNREACHABLE", Fault::System, message);
    Failure::Wire(Box::new(error.retryable(None)))
}
