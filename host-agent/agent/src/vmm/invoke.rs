//! The invoke connection: one event out, log pieces and one end back.

use super::channel::{Channel, ChannelError};
use bytes::Bytes;
use std::path::Path;
use warren_proto::MAX_PAYLOAD_BYTES;
use warren_vmm_protocol::{Done, InvokeReply, InvokeRequest, Role};

/// What comes back of an event.
#[derive(Debug)]
pub enum Progress {
    /// The function logged.
    Log(Vec<u8>),
    /// It ended; the response's bytes.
    Done(Done, Bytes),
}

/// The connection; whoever holds it is the only one who invokes.
#[derive(Debug)]
pub struct InvokeChannel(Channel);

impl InvokeChannel {
    /// Connects; an older invoke connection of this VMM is replaced.
    pub async fn connect(socket: &Path) -> Result<Self, ChannelError> {
        Channel::connect(socket, Role::Invoke).await.map(Self)
    }

    /// Sends an event.
    pub async fn send(&mut self, request: &InvokeRequest, payload: &[u8]) -> Result<(), ChannelError> {
        self.0.send(request, payload).await
    }

    /// The next thing the VMM says of it.
    pub async fn next(&mut self) -> Result<Progress, ChannelError> {
        match self.0.receive().await? {
            InvokeReply::Log(bytes) => Ok(Progress::Log(bytes)),
            InvokeReply::Done(done) => {
                let len = usize::try_from(done.payload_len).unwrap_or(usize::MAX);
                if len > MAX_PAYLOAD_BYTES {
                    return Err(ChannelError::Unexpected("a response over the limit"));
                }
                let payload = self.0.receive_payload(len).await?;
                Ok(Progress::Done(done, payload))
            }
        }
    }
}
