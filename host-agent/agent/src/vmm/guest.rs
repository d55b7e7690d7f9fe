//! The stream to a Linux guest's first process, until the guest is ready.
//!
//! ```text
//! connect ─▶ refused: nobody listens yet ─▶ again, soon ─┐
//!    │ ▲─────────────────────────────────────────────────┘
//!    ▼
//! Configure ─▶ Log* ─┬─▶ Ready ──────▶ the invoke connection ─▶ (HoldStill ─▶ Still: it can be written down)
//!                    └─▶ InitFailed ─▶ the same if the guest tries again with the first event, else an error
//! Restored ─▶ Acknowledged ─▶ as after Configure
//! of a guest that no function is in: (HoldStill ─▶ Still: it can be written down), Restored ─▶ Acknowledged ─▶ Configure, as above
//! ```

use super::{
    InvokeChannel,
    channel::{Channel, ChannelError},
    control::LoadFailure,
};
use std::{path::Path, time::Duration};
use tokio::time::sleep;
use warren_vmm_protocol::{
    FunctionError, LoadError, Role,
    guest::{GuestConfig, GuestReply, GuestRequest, InitError, InitFailure, PORT, Restored},
    linux::{VsockRefusal, VsockReply},
};

/// How often a guest that does not listen yet is asked: each time twice as late.
const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_millis(100);

/// How a guest came up.
#[derive(Debug)]
pub struct GuestUp {
    /// For events.
    pub channel: InvokeChannel,
    /// What its init took.
    pub init_us: u64,
    /// Init failed, and starts over with the first event.
    pub failed: Option<InitError>,
}

/// Why a guest did not come up.
#[derive(Debug)]
pub enum GuestFailure {
    /// The stream.
    Channel(ChannelError),
    /// It said so, and ends.
    Init(InitError),
}

impl From<ChannelError> for GuestFailure {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

/// Waits for the guest, makes it a function's sandbox, and waits until that is ready; `log` gets what is written meanwhile.
pub async fn bring_up(
    socket: &Path,
    config: GuestConfig,
    log: impl FnMut(&[u8]),
) -> Result<GuestUp, GuestFailure> {
    Nobodys::reach(socket).await?.configure(config, log).await
}

/// A guest that no function is in, and that waits for one.
#[derive(Debug)]
pub struct Nobodys(Channel);

impl Nobodys {
    /// Waits until one that boots has come so far.
    pub async fn reach(socket: &Path) -> Result<Self, ChannelError> {
        connect(socket).await.map(Self)
    }

    /// Makes one that was brought back one of its own.
    pub async fn bring_back(socket: &Path, restored: Restored) -> Result<Self, GuestFailure> {
        acknowledged(socket, restored).await.map(Self)
    }

    /// Asks it to hold still, so that it can be written down: whether it may be.
    pub async fn hold_still(&mut self) -> Result<bool, ChannelError> {
        self.0.send(&GuestRequest::HoldStill, &[]).await?;
        match self.0.receive().await? {
            GuestReply::Still { held } => Ok(held),
            _ => Err(ChannelError::Unexpected("another answer to HoldStill")),
        }
    }

    /// Makes it a function's sandbox, and waits until that is ready; `log` gets what is written meanwhile.
    pub async fn configure(
        mut self,
        config: GuestConfig,
        log: impl FnMut(&[u8]),
    ) -> Result<GuestUp, GuestFailure> {
        self.0.send(&GuestRequest::Configure(Box::new(config)), &[]).await?;
        until_ready(self.0, log).await
    }
}

/// Makes a guest that was brought back one of its own, and waits until its function is ready; `log` as for [`bring_up`].
pub async fn bring_back(
    socket: &Path,
    restored: Restored,
    log: impl FnMut(&[u8]),
) -> Result<GuestUp, GuestFailure> {
    until_ready(acknowledged(socket, restored).await?, log).await
}

/// Tells one that was brought back that it was.
async fn acknowledged(socket: &Path, restored: Restored) -> Result<Channel, GuestFailure> {
    let mut channel = connect(socket).await?;
    channel.send(&GuestRequest::Restored(Box::new(restored)), &[]).await?;
    match channel.receive().await? {
        GuestReply::Acknowledged => Ok(channel),
        GuestReply::InitFailed { error, .. } => Err(GuestFailure::Init(error)),
        _ => Err(ChannelError::Unexpected("something before the acknowledgement").into()),
    }
}

async fn until_ready(mut channel: Channel, mut log: impl FnMut(&[u8])) -> Result<GuestUp, GuestFailure> {
    loop {
        let (init_us, failed) = match channel.receive().await? {
            GuestReply::Log(bytes) => {
                log(bytes.as_bytes());
                continue;
            }
            GuestReply::Ready { init_us } => (init_us, None),
            GuestReply::InitFailed { init_us, error } if error.failure.may_be_tried_again() => {
                (init_us, Some(error))
            }
            GuestReply::InitFailed { error, .. } => return Err(GuestFailure::Init(error)),
            GuestReply::Still { .. } | GuestReply::Acknowledged => {
                return Err(ChannelError::Unexpected("an answer to nothing").into());
            }
        };
        return Ok(GuestUp { channel: InvokeChannel::to_guest(channel), init_us, failed });
    }
}

/// A guest that gave up, as whoever loads it hears of that.
#[must_use]
pub fn guest_error(error: &InitError) -> LoadFailure {
    let detail = format!("{}: {}", error.error_type, error.message);
    let reason = match error.failure {
        InitFailure::Guest => LoadError::Guest(detail),
        InitFailure::TimedOut => LoadError::TimedOut,
        _ => LoadError::Function { error: FunctionError::Init, detail },
    };
    LoadFailure::Said { reason, log: Vec::new() }
}

/// To a guest that is ready already.
pub async fn reconnect(socket: &Path) -> Result<InvokeChannel, ChannelError> {
    connect(socket).await.map(InvokeChannel::to_guest)
}

/// Connects to the guest's port, as soon as somebody listens there.
async fn connect(socket: &Path) -> Result<Channel, ChannelError> {
    let mut wait = FIRST_RETRY;
    loop {
        let mut channel = Channel::connect(socket, Role::Vsock { port: PORT }).await?;
        match channel.receive().await? {
            VsockReply::Connected => return Ok(channel),
            VsockReply::Refused { why: VsockRefusal::NotListening } => {
                sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
            VsockReply::Refused { .. } => return Err(ChannelError::Unexpected("no stream to the guest")),
            VsockReply::Parked => return Err(ChannelError::Unexpected("another answer to a stream")),
        }
    }
}
