//! The invoke connection: one event out, log pieces and one end back.

use super::channel::{Channel, ChannelError};
use bytes::Bytes;
use std::path::Path;
use warren_proto::MAX_PAYLOAD_BYTES;
use warren_vmm_protocol::{
    Done, InvokeReply, InvokeRequest, Role,
    guest::{GuestReply, GuestRequest},
};

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
pub struct InvokeChannel {
    channel: Channel,
    to: To,
}

/// Who reads at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// The vCPU thread of a VMM, which puts events into a Wasm guest's mailbox.
    Vmm,
    /// The first process of a Linux guest.
    Guest,
}

impl InvokeChannel {
    /// Connects; an older invoke connection of this VMM is replaced.
    pub async fn connect(socket: &Path) -> Result<Self, ChannelError> {
        Ok(Self { channel: Channel::connect(socket, Role::Invoke).await?, to: To::Vmm })
    }

    /// Over a stream to a Linux guest that is ready.
    pub(super) const fn to_guest(channel: Channel) -> Self {
        Self { channel, to: To::Guest }
    }

    /// Sends an event.
    pub async fn send(&mut self, request: &InvokeRequest, payload: &[u8]) -> Result<(), ChannelError> {
        match self.to {
            To::Vmm => self.channel.send(request, payload).await,
            To::Guest => self.channel.send(&GuestRequest::Invoke(request.clone()), payload).await,
        }
    }

    /// Asks a Linux guest to end in order; a Wasm guest has nothing to put in order. Whether it was asked.
    pub async fn shut_down(&mut self) -> bool {
        self.to == To::Guest && self.channel.send(&GuestRequest::Shutdown, &[]).await.is_ok()
    }

    /// Asks a Linux guest without an event to hold still, so that it can be written down: whether its programs are held, too. `log`
    /// gets what was written until then.
    pub async fn hold_still(&mut self, mut log: impl FnMut(&[u8])) -> Result<bool, ChannelError> {
        self.channel.send(&GuestRequest::HoldStill, &[]).await?;
        loop {
            match self.channel.receive().await? {
                GuestReply::Log(bytes) => log(bytes.as_bytes()),
                GuestReply::Still { held } => return Ok(held),
                _ => return Err(ChannelError::Unexpected("another answer to HoldStill")),
            }
        }
    }

    /// The next thing the VMM says of it.
    pub async fn next(&mut self) -> Result<Progress, ChannelError> {
        match self.channel.receive().await? {
            InvokeReply::Log(bytes) => Ok(Progress::Log(bytes)),
            InvokeReply::Done(done) => {
                let len = usize::try_from(done.payload_len).unwrap_or(usize::MAX);
                if len > MAX_PAYLOAD_BYTES {
                    return Err(ChannelError::Unexpected("a response over the limit"));
                }
                let payload = self.channel.receive_payload(len).await?;
                Ok(Progress::Done(done, payload))
            }
        }
    }
}
