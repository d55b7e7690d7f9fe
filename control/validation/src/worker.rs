//! What a worker says of itself: a registration, a heartbeat.
//!
//! Whose certificate it has is known; that it tells the truth is not. What decisions stand on must be what it is called and have an
//! end, or the whole is refused. What a host can do without is left out (runtimes, reasons of ends), and free words are cut.

use crate::{bad_request, clip, is_digest, is_name, is_request_id};
use warren_proto::{
    error::WireError,
    v1::{HeartbeatRequest, HostResources, RegisterWorkerRequest, Runtime, Sandbox},
};

/// Most sandboxes of one host; a jailer has slots for fewer.
pub const SANDBOXES: usize = 16_384;
/// Most root file systems of one host.
const RUNTIMES: usize = 256;
/// Most grants that something runs under.
const GRANTS: usize = SANDBOXES;
/// Most kinds of guests, and most reasons of ends.
const GUESTS: usize = 8;
const ENDS: usize = 32;
/// Longest zone, kind of guest, template, runtime, reason of an end.
const WORD: usize = 64;
/// Longest address: a host name of DNS, and a port.
const ADDRESS: usize = 253 + 6;
/// Longest words for people.
const WORDS: usize = 512;
/// Of the builder that signs on a host.
const KEY_BYTES: usize = 32;

/// A registration, with its words cut and the runtimes that are named as such.
pub fn registration(mut request: RegisterWorkerRequest) -> Result<RegisterWorkerRequest, WireError> {
    if !is_word(&request.address, ADDRESS) {
        return Err(bad_request(format!("{:?} is no address of an agent", clip(&request.address))));
    }
    if request.builder_key.len() != KEY_BYTES {
        let bytes = request.builder_key.len();
        return Err(bad_request(format!("a builder's key has {KEY_BYTES} bytes, not {bytes}")));
    }
    if let Some(found) = &mut request.resources {
        resources(found)?;
    }
    sandboxes(&request.sandboxes)?;
    runtimes(&mut request.runtimes);
    Ok(request)
}

/// A heartbeat, with the runtimes and the reasons of ends that are named as such.
pub fn heartbeat(mut request: HeartbeatRequest) -> Result<HeartbeatRequest, WireError> {
    sandboxes(&request.changed)?;
    runtimes(&mut request.runtimes);
    bounded("grants", request.grants.len(), GRANTS)?;
    let mut kept = 0;
    request.ends.retain(|reason, _| {
        let fits = is_word(reason, WORD) && kept < ENDS;
        kept += usize::from(fits);
        fits
    });
    Ok(request)
}

fn resources(found: &mut HostResources) -> Result<(), WireError> {
    if found.zone.len() > WORD || found.zone.contains(char::is_control) {
        let message = format!("zone {:?} is no line of at most {WORD} bytes", clip(&found.zone));
        return Err(bad_request(message));
    }
    bounded("kinds of guests", found.guests.len(), GUESTS)?;
    if !found.guests.iter().all(|guest| is_word(guest, WORD)) {
        return Err(bad_request("a kind of guest is one word"));
    }
    if !(found.cpu_template.is_empty() || is_word(&found.cpu_template, WORD)) {
        return Err(bad_request("a processor template's name is one word"));
    }
    digest("cpu_digest", &found.cpu_digest)?;
    for words in [&mut found.kernel, &mut found.no_linux_because, &mut found.no_network_because] {
        words.truncate(words.floor_char_boundary(WORDS));
    }
    Ok(())
}

fn sandboxes(said: &[Sandbox]) -> Result<(), WireError> {
    bounded("sandboxes", said.len(), SANDBOXES)?;
    for one in said {
        if !is_name(&one.id) || !is_name(&one.function) || !is_request_id(&one.request_id) {
            let (id, function) = (clip(&one.id), clip(&one.function));
            return Err(bad_request(format!(
                "sandbox {id:?} of function {function:?} is not one by its names"
            )));
        }
    }
    Ok(())
}

/// Those that are named as such: a host is not refused for a file of its own that does not read well.
fn runtimes(said: &mut Vec<Runtime>) {
    said.retain(|one| is_word(&one.name, WORD) && is_digest(&one.digest));
    said.truncate(RUNTIMES);
}

fn digest(what: &str, text: &str) -> Result<(), WireError> {
    if text.is_empty() || is_digest(text) {
        return Ok(());
    }
    Err(bad_request(format!("{what} is not 64 hex digits")))
}

fn bounded(what: &str, count: usize, most: usize) -> Result<(), WireError> {
    if count <= most {
        return Ok(());
    }
    Err(bad_request(format!("a host with {count} {what}; at most {most} are taken")))
}

/// Printable ASCII without a space.
fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
