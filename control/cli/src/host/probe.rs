//! Asking a jailer whether it serves this user: connect, `Hello`, read the answer.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use std::{io, path::Path, time::Duration};
use warren_sandbox_plan::{
    packet::{decode_reply, encode},
    request::{JAILER_PROTOCOL_VERSION, MAX_PACKET, Reply, Request},
};

/// A jailer answers within microseconds; one that does not is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody listens there.
    #[error("no jailer answers: {0}")]
    Absent(io::Error),
    /// It serves another user.
    #[error("the jailer does not serve this user")]
    OtherUser,
    /// It serves this user, but another of his agents holds it.
    #[error("{0}")]
    Held(String),
    /// It answered that it will not: another protocol.
    #[error("the jailer refuses: {0}")]
    Refused(String),
}

/// Asks. Whether the answer is yes may differ a moment later: nothing is held.
pub(crate) fn ask(socket: &Path) -> Result<(), Refusal> {
    let absent = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => Refusal::OtherUser,
        errno => Refusal::Absent(errno.into()),
    };
    let line = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(absent)?;
    let address = SocketAddrUnix::new(socket).map_err(absent)?;
    set_socket_timeout(&line, Timeout::Recv, Some(PATIENCE)).map_err(absent)?;
    connect(&line, &address).map_err(absent)?;
    let hello = encode(&Request::Hello { version: JAILER_PROTOCOL_VERSION }).unwrap_or_default();
    // It closes the line of whom it does not serve, before or after this is sent.
    if send(&line, &hello, SendFlags::NOSIGNAL).is_err() {
        return Err(Refusal::OtherUser);
    }
    let mut packet = vec![0; MAX_PACKET];
    let got = match recv(&line, packet.as_mut_slice(), RecvFlags::empty()) {
        Ok((got, _)) => got,
        Err(rustix::io::Errno::CONNRESET) => return Err(Refusal::OtherUser),
        Err(errno) => return Err(absent(errno)),
    };
    match decode_reply(packet.get(..got).unwrap_or_default()) {
        Ok(Reply::Hello { .. }) => Ok(()),
        Ok(Reply::Failed { message, retryable: true, .. }) => Err(Refusal::Held(message)),
        Ok(Reply::Failed { message, .. }) => Err(Refusal::Refused(message)),
        _ if got == 0 => Err(Refusal::OtherUser),
        _ => Err(Refusal::Refused("it speaks another protocol".into())),
    }
}
