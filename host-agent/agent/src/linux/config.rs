//! What a guest is told of its function.

use super::offer::Runtime;
use crate::version::VersionSpec;
use std::time::{SystemTime, UNIX_EPOCH};
use warren_vmm_protocol::guest::{GUEST_VERSION, GuestConfig, Millis, Restored, Text};

/// For a sandbox of this version and id; randomness and time are of this moment.
#[must_use]
pub fn guest_config(
    id: &str,
    spec: &VersionSpec,
    handler: &str,
    runtime: &Runtime,
    task_len: u64,
) -> GuestConfig {
    let plain = GuestConfig::of(Text::cut(&spec.name));
    GuestConfig {
        sandbox: Text::cut(id),
        function_version: Text::cut(&spec.version.to_string()),
        handler: Text::cut(handler),
        runtime: Text::cut(&runtime.manifest.name),
        // Checked when the version was.
        env: spec.env().to_vec().try_into().unwrap_or_default(),
        memory: spec.memory_mib.try_into().unwrap_or(plain.memory),
        timeout: Millis::try_from(spec.timeout_ms).unwrap_or(plain.timeout),
        tmp: spec.tmp_mib.try_into().unwrap_or(plain.tmp),
        task_len,
        wall_unix_ns: wall_unix_ns(),
        // Without it the guest has its entropy device all the same.
        seed: drawn().unwrap_or([0; 32]),
        log_stream: Text::cut(id),
        ..plain
    }
}

/// For a sandbox of this id that is brought back, now.
///
/// # Errors
/// The kernel gives no random numbers: two copies could be one.
pub fn restored(id: &str) -> std::io::Result<Restored> {
    let (seed, generation) = (drawn()?, drawn::<16>()?);
    Ok(Restored {
        version: GUEST_VERSION,
        generation: u128::from_ne_bytes(generation),
        sandbox: Text::cut(id),
        wall_unix_ns: wall_unix_ns(),
        seed,
    })
}

fn wall_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn drawn<const BYTES: usize>() -> std::io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    // At most 256 bytes come at once and whole.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
