//! What this machine's KVM can do, asked once for the agent: it may not open the device itself.

use super::programs::Programs;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// The probe runs guests of twenty bytes; where even these hang, there is no KVM worth the name.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it said.
pub(crate) struct Probe {
    /// Where it is kept.
    pub(crate) file: PathBuf,
    /// Whether the machine runs Linux guests.
    pub(crate) linux: bool,
}

/// Asks `warren-vmm probe` and keeps its answer in `file`; gives that, or nothing if there is no answer. The agent then says
/// so, and offers Wasm functions only.
pub(crate) async fn ask(programs: &Programs, file: &Path) -> Option<Probe> {
    let mut probe = Command::new(programs.path("warren-vmm"));
    probe.args(["probe", "--json"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let done = timeout(PATIENCE, probe.output()).await.ok()?.ok()?;
    std::fs::write(file, &done.stdout).ok()?;
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    // The agent has a user of its own.
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).ok()?;
    Some(Probe { file: file.to_owned(), linux: said["linux"]["can"] == true })
}
