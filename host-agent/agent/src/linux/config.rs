//! What a guest is told of its function.

use super::offer::Runtime;
use crate::{sandbox::About, version::VersionSpec};
use std::time::{SystemTime, UNIX_EPOCH};
use warren_vmm_protocol::guest::{GuestConfig, Millis, Text};

/// For a sandbox of this version; randomness and time are of this moment.
#[must_use]
pub fn guest_config(
    about: &About,
    spec: &VersionSpec,
    handler: &str,
    runtime: &Runtime,
    task_len: u64,
) -> GuestConfig {
    let plain = GuestConfig::of(Text::cut(&spec.name));
    let mut seed = [0; 32];
    // Without it the guest has its entropy device all the same.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    GuestConfig {
        sandbox: Text::cut(about.id.as_str()),
        function_version: Text::cut(&spec.version.to_string()),
        handler: Text::cut(handler),
        runtime: Text::cut(&runtime.manifest.name),
        // Checked when the version was.
        env: spec.env().to_vec().try_into().unwrap_or_default(),
        memory: spec.memory_mib.try_into().unwrap_or(plain.memory),
        timeout: Millis::try_from(spec.timeout_ms).unwrap_or(plain.timeout),
        tmp: spec.tmp_mib.try_into().unwrap_or(plain.tmp),
        task_len,
        wall_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        seed,
        log_stream: Text::cut(about.id.as_str()),
        ..plain
    }
}
