//! The agent as a client of control: registration, heartbeats, code by digest.
//!
//! ```text
//!   ┌──────────────┐ registered   ┌───────────┐ changed table too large, or control does not know us
//!   │ registering  │─────────────▶│ beating   │──────────────────────────────┐
//!   └──────────────┘              └───────────┘                              │
//!      ▲   │ failed: wait, longer each time ▲ │ failed: report the changes again│
//!      └───┴────────────────────────────────┴─┴──────────────────────────────┘
//! ```
//! The worker's table is the truth; control's copy is made of registrations and heartbeats.

mod load;
mod report;

pub use report::{Announcement, report};

use std::{path::Path, time::Duration};
use tonic::transport::{Channel, Endpoint};
use warren_identity::{Peer, Service};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    v1::{FetchBlobRequest, fleet_service_client::FleetServiceClient},
};

/// Control is taken for gone if it does not take a connection for so long.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A blob must arrive within this.
const FETCH_PATIENCE: Duration = Duration::from_mins(1);

/// Control's fleet service; connects when needed and again when control restarts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlClient {
    fleet: FleetServiceClient<Channel>,
}

impl ControlClient {
    /// Must be called inside the runtime.
    pub fn new(identity: &Path, control: &str) -> anyhow::Result<Self> {
        let tls = warren_identity::client_tls(identity, Service::Agent, &Peer::Control)?;
        let endpoint = Endpoint::from_shared(control.to_owned())?
            .tls_config(tls)?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        let fleet =
            FleetServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { fleet })
    }

    /// A blob of at most `limit` bytes; its digest is the caller's to check.
    pub async fn fetch_blob(&self, digest: &str, limit: usize) -> Result<bytes::Bytes, String> {
        let fetch = async {
            let request = FetchBlobRequest { digest: digest.to_owned() };
            let answer = self.fleet.clone().fetch_blob(request).await;
            let mut chunks = answer.map_err(|status| status.message().to_owned())?.into_inner();
            let mut blob = bytes::BytesMut::new();
            while let Some(chunk) = chunks.message().await.map_err(|status| status.message().to_owned())? {
                if blob.len() + chunk.data.len() > limit {
                    return Err(format!("it is larger than {limit} bytes"));
                }
                blob.extend_from_slice(&chunk.data);
            }
            Ok(blob.freeze())
        };
        match tokio::time::timeout(FETCH_PATIENCE, fetch).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("control did not send it within {FETCH_PATIENCE:?}")),
        }
    }

    fn fleet(&self) -> FleetServiceClient<Channel> {
        self.fleet.clone()
    }
}
