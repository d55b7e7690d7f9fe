//! What the pager cannot reach, brought: this host's own cache, its neighbours, the origin.
//!
//! ```text
//! question ── no packet of one, larger than any object ──▶ Breach: the pager is ended
//!    │ more than may be at once: Overloaded
//!    ▼
//!   sought in the tiers, one flight a name whoever asks ── found ──▶ sealed memory file ─▶ answer
//!    │ half a minute less a little ──▶ Slow                 ╰─ not, for whatever reason ─▶ answer
//! ```
//! It is asked for names, and gives sealed bytes: what is in the origin's folder every pager could read, and keys it has of the images
//! that it serves alone. What it costs is bounded by how much may be under way.

use crate::{memfd::SealedFile, snapshot::Fleet};
use futures::{StreamExt as _, stream::FuturesUnordered};
use rustix::{
    fd::{AsFd as _, OwnedFd},
    io::ioctl_fionbio,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::spawn_blocking,
    time::timeout,
};
use warren_chunks::{
    Name,
    l3::OriginError,
    manifest::sealed::MAX_MANIFEST_BYTES,
    store::{Fetched, ReadError},
};
use warren_pager::{
    packet::{self, Packet},
    upstream::messages::{ASKS_MAX, Answer, Outcome, PACKET_MAX, Wanted, decode, encode},
};

/// How long one object is sought. A pager waits a little longer, and so hears why.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why a pager is answered no more.
#[derive(Debug, thiserror::Error)]
pub enum Breach {
    /// It asked in no words that there are, or for more than there is.
    #[error("it broke the protocol")]
    Protocol,
    /// Its socket.
    #[error("its socket cannot be used")]
    Socket(#[from] io::Error),
}

/// Answers one pager until it hangs up.
pub async fn answer(fleet: &Arc<Fleet>, socket: OwnedFd) -> Result<(), Breach> {
    ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
    let both = Interest::READABLE | Interest::WRITABLE;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for descriptors of any kind; an OwnedFd is closed by this value alone"
    )]
    let socket = AsyncFd::with_interest(socket, both)?;
    let mut sought = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(done) = sought.next() => {
                let (answer, file): (Answer, Option<SealedFile>) = done;
                tell(&socket, &answer, file.as_ref()).await?;
            }
            received = receive(&socket) => {
                let Some(Wanted { ask, name, most }) = received? else { return Ok(()) };
                let most = usize::try_from(most).ok().filter(|most| *most <= MAX_MANIFEST_BYTES);
                let most = most.ok_or(Breach::Protocol)?;
                if sought.len() >= ASKS_MAX {
                    tell(&socket, &Answer { ask, outcome: Outcome::Overloaded }, None).await?;
                } else {
                    sought.push(seek(fleet, ask, (Name(name), most)));
                }
            }
        }
    }
}

/// The next question; `None` at the end.
async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<Option<Wanted>, Breach> {
    let received = socket.async_io(Interest::READABLE, |socket| packet::receive(socket, PACKET_MAX)).await?;
    match received {
        None => Ok(None),
        Some(Packet { bytes, descriptors }) if descriptors.is_empty() => {
            decode(&bytes).map(Some).ok_or(Breach::Protocol)
        }
        Some(_) => Err(Breach::Protocol),
    }
}

async fn tell(socket: &AsyncFd<OwnedFd>, answer: &Answer, file: Option<&SealedFile>) -> Result<(), Breach> {
    let packet = encode(answer).ok_or(Breach::Protocol)?;
    let file: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    let send = |socket: &OwnedFd| packet::send(socket, &packet, &file);
    match socket.async_io(Interest::WRITABLE, send).await {
        // It is gone: that it hung up is read next.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => Ok(told?),
    }
}

async fn seek(fleet: &Arc<Fleet>, ask: u64, (name, most): (Name, usize)) -> (Answer, Option<SealedFile>) {
    let found = timeout(PATIENCE, fleet.object(name, most)).await;
    let (outcome, file) = match found {
        Ok(Ok(Fetched { sealed, from })) => {
            let copied = spawn_blocking(move || SealedFile::new("chunk", &sealed)).await;
            match copied.map_err(io::Error::from).flatten() {
                Ok(file) => (Outcome::Fetched { from }, Some(file)),
                Err(error) => (Outcome::failed(&format!("no memory file: {error}")), None),
            }
        }
        Ok(Err(error)) => (failure(error), None),
        Err(_) => (Outcome::Slow, None),
    };
    (Answer { ask, outcome }, file)
}

fn failure(error: ReadError) -> Outcome {
    match &error {
        ReadError::Absent => Outcome::Absent,
        ReadError::Origin(origin) => match **origin {
            OriginError::Damaged => Outcome::Damaged,
            OriginError::Slow => Outcome::Slow,
            OriginError::Overloaded => Outcome::Overloaded,
            _ => Outcome::failed(&format!("{:#}", anyhow::Error::from(error))),
        },
        _ => Outcome::failed(&format!("{:#}", anyhow::Error::from(error))),
    }
}
