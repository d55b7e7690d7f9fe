//! What control says that nothing needs: artefacts, archives, snapshots and logs of functions that are gone.
//!
//! All but logs can be had again: what is removed too soon is fetched, compiled and written down again. Young files stay in any case,
//! for a deploy that is under way is named by nobody yet.

use crate::{host::Host, version::PrepareError};
use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    sync::Arc,
    time::Duration,
};
use warren_artefact::{ArtefactKey, Digest, Purpose};
use warren_proto::v1::{RetainRequest, RetainResponse};

/// Files that were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many.
    pub files: u32,
    /// How much they held.
    pub bytes: u64,
}

impl Removed {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { files: self.files.saturating_add(other.files), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// Removes what the request does not name.
pub async fn retain(host: &Arc<Host>, request: RetainRequest) -> Result<RetainResponse, PrepareError> {
    let min_age = Duration::from_millis(request.min_age_ms);
    let functions: HashSet<String> = request.functions.into_iter().collect();
    let logs = host.logs.retain(functions.clone(), min_age).await;
    // Of a Linux function it is its files that are named.
    let sources = digests(&request.code_digests).chain(digests(&request.task_digests));
    let sources: HashSet<String> = sources.map(|digest| digest.to_string()).collect();
    let snapshots = host.snapshots.retain(sources, functions, min_age).await?;
    let isa = host.versions.compiler().isa();
    let (artefacts, tasks) =
        (host.versions.compiler().store().root().to_owned(), host.versions.task_dir().to_owned());
    let work = move || -> io::Result<Removed> {
        let keys = digests(&request.code_digests).flat_map(|digest| {
            [Purpose::Function, Purpose::Policy]
                .map(|purpose| format!("{}.artefact", ArtefactKey::new(digest, purpose, isa)).into())
        });
        let keys: HashSet<OsString> = keys.collect();
        let archives: HashSet<OsString> =
            digests(&request.task_digests).map(|digest| format!("{digest}.tar").into()).collect();
        let mut removed = sweep(&tasks, |name| archives.contains(name), min_age)?;
        for shard in fs::read_dir(&artefacts)? {
            let shard = shard?;
            // Two hex digits; `tmp` holds what is being written and is tidied at start.
            if shard.file_type()?.is_dir() && shard.file_name().len() == 2 {
                removed = removed.and(sweep(&shard.path(), |name| keys.contains(name), min_age)?);
            }
        }
        Ok(removed)
    };
    let files = tokio::task::spawn_blocking(work).await.map_err(|_| PrepareError::Internal)??;
    let removed = files.and(snapshots).and(logs);
    if removed.files > 0 {
        tracing::info!(files = removed.files, bytes = removed.bytes, "what nothing needs is gone");
    }
    Ok(RetainResponse { removed: removed.files, bytes: removed.bytes })
}

fn digests(hex: &[String]) -> impl Iterator<Item = Digest> {
    hex.iter().filter_map(|text| blake3::Hash::from_hex(text).ok()).map(|hash| Digest(*hash.as_bytes()))
}

/// Removes the files of a directory that are not kept and are old enough.
pub(crate) fn sweep(dir: &Path, keep: impl Fn(&OsStr) -> bool, min_age: Duration) -> io::Result<Removed> {
    let mut removed = Removed::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(facts) = entry.metadata() else { continue };
        let age = facts.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
        if !facts.is_file() || age < min_age || keep(&entry.file_name()) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Ok(()) => removed = removed.and(Removed { files: 1, bytes: facts.len() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept", "gone", "also-gone"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("directory")).unwrap();
        let keep = |name: &OsStr| name == "kept";
        assert_eq!(sweep(dir.path(), keep, Duration::from_hours(1)).unwrap(), Removed::default());
        assert_eq!(sweep(dir.path(), keep, Duration::ZERO).unwrap(), Removed { files: 2, bytes: 13 });
        assert!(dir.path().join("kept").exists() && dir.path().join("directory").exists());
    }
}
