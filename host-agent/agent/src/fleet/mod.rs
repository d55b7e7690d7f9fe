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

use std::{sync::Arc, time::Duration};
use tonic::transport::Channel;
use warren_identity::{Credentials, Line, Peer};
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
    line: Arc<Line>,
}

impl ControlClient {
    /// To control at `https://HOST:PORT`. Must be called inside the runtime.
    pub fn new(credentials: Credentials, control: &str) -> anyhow::Result<Self> {
        let address = control.strip_prefix("https://").unwrap_or(control).trim_end_matches('/');
        let line = Line::new(credentials, &Peer::Control, address, |endpoint| {
            endpoint
                .connect_timeout(CONNECT_PATIENCE)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5))
        })?;
        Ok(Self { line: Arc::new(line) })
    }

    /// A blob of at most `limit` bytes; its digest is the caller's to check.
    pub async fn fetch_blob(&self, digest: &str, limit: usize) -> Result<bytes::Bytes, String> {
        let fetch = async {
            let request = FetchBlobRequest { digest: digest.to_owned() };
            let answer = self.fleet().fetch_blob(request).await;
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
        FleetServiceClient::new(self.line.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}
