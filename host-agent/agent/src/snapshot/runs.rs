//! Where a snapshot's memory lies in its guest, whatever kind of guest that is.

use warren_artefact::{GuestOf, SnapshotHead};
use warren_state::{
    StateError,
    linux::LinuxState,
    wasm::{Run, WasmState},
};

/// The runs of a state that keeps its rules, ascending. They are as many bytes as its memory has.
pub(super) fn runs(head: &SnapshotHead) -> Result<Vec<Run>, StateError> {
    match head.of().guest {
        GuestOf::Wasm { .. } => {
            let state: WasmState = warren_state::open(head.state())?;
            state.check(head.memory_len())?;
            Ok(state.runs)
        }
        GuestOf::Linux { .. } => {
            let state: LinuxState = warren_state::open(head.state())?;
            state.check(head.memory_len())?;
            Ok(state.runs)
        }
    }
}

/// The same as addresses and bytes.
pub(super) fn pairs(head: &SnapshotHead) -> Result<Vec<(u64, u64)>, StateError> {
    Ok(runs(head)?.into_iter().map(|run| (run.gpa, run.len)).collect())
}
