//! What people see of this host's snapshots, and what they may do to one: judge it again, forget it.

use super::{
    Snapshots,
    shelf::Shelved,
    tries::{Entry, NotMade},
    uses::Use,
};
use crate::{host::Host, linux::Offer};
use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use warren_artefact::{Digest, GuestOf, SnapshotError, SnapshotHead, SnapshotKey, SnapshotOf};
use warren_chunks::l3::OriginError;
use warren_proto::v1;
use warren_vmm_protocol::PROTOCOL_VERSION;

/// One cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is none.
    #[error("this host keeps no snapshot {0}; `warren snapshot ls` lists what there is")]
    None(String),
    /// There is one, and it is not what was signed.
    #[error("the snapshot {key} is damaged: {reason}; `warren snapshot rm` removes it, and another is made")]
    Damaged {
        /// Which.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The directory cannot be read, or not be written.
    #[error("the snapshots of this host cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// It is gone from this host, and the fleet's copy may be there still.
    #[error("the fleet's copy cannot be removed; once the origin can be reached, ask again: {0}")]
    Origin(#[from] OriginError),
}

/// What came of judging one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of memory that are as they were signed, or what is wrong.
    pub found: Result<u64, String>,
    /// How long it took.
    pub took: Duration,
}

impl Snapshots {
    /// Those of one function, or all: kept, being made, and those that could not be.
    pub async fn list(&self, host: &Host, function: &str) -> Result<Vec<v1::Snapshot>, LookError> {
        let trusted = self.compiler.builder_key();
        let shelved = match self.shelf.clone() {
            Some(place) => {
                let function = function.to_owned();
                tokio::task::spawn_blocking(move || place.look(&function, &[trusted]))
                    .await
                    .map_err(io::Error::from)??
            }
            None => Vec::new(),
        };
        let (guest, now) = (self.jailer.guest(), Instant::now());
        let there: HashSet<_> = shelved.iter().map(|one| one.key).collect();
        let mut entries = self.tries().entries();
        // One that is there is there, whatever became of another try at it.
        entries.retain(|entry| {
            !there.contains(&entry.key) && (function.is_empty() || entry.subject.function == function)
        });
        let uses = self.uses();
        let kept = shelved.into_iter().map(|one| {
            let (key, known) = (one.key, uses.of(one.key));
            let mut told = on_wire(one, known, |of| outdated(of, guest, &host.offer));
            if let Some(fleet) = &self.fleet {
                fleet.told(key, &mut told);
            }
            told
        });
        let tried = entries.into_iter().map(|entry| tried(entry, now));
        let all = kept.chain(tried).map(|one| v1::Snapshot { host_id: host.id.clone(), ..one });
        Ok(all.collect())
    }

    /// Reads one again, and judges it as a cold start does that finds it on the disk.
    pub async fn verify(&self, key: &str) -> Result<Verified, LookError> {
        let (Some(named), Some(place)) = (SnapshotKey::from_hex(key), self.shelf.clone()) else {
            return Err(LookError::None(key.to_owned()));
        };
        let _turn = self.verifying.acquire().await.map_err(io::Error::other)?;
        let (trusted, began) = (self.compiler.builder_key(), Instant::now());
        let read = tokio::task::spawn_blocking(move || place.verify(named, &[trusted]));
        let found = match read.await.map_err(io::Error::from)? {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => return Err(LookError::None(key.to_owned())),
            Err(wrong) => Err(words(wrong)),
        };
        if let Err(reason) = &found {
            tracing::warn!(key, reason, "a kept snapshot is not what was signed");
        }
        Ok(Verified { found, took: began.elapsed() })
    }

    /// Forgets one: its file, its memory but for the sandboxes that share it, what is known of tries, and the fleet's copy. The
    /// next cold start boots, and another is made; other hosts keep what they have. With `here_only` the fleet's copy stays.
    pub async fn remove(&self, key: &str, here_only: bool) -> Result<(), LookError> {
        let named = SnapshotKey::from_hex(key).ok_or_else(|| LookError::None(key.to_owned()))?;
        let tried = self.tries().forget(named);
        let kept = self.forget(named).await?;
        let shared = match &self.fleet {
            Some(fleet) if !here_only => fleet.remove(named).await?,
            _ => false,
        };
        if !tried && !kept && !shared {
            return Err(LookError::None(key.to_owned()));
        }
        tracing::info!(key, here_only, "a snapshot was removed");
        Ok(())
    }

    /// Its file and what is in memory of it. False: there was no file.
    pub(super) async fn forget(&self, key: SnapshotKey) -> io::Result<bool> {
        let removed = match self.shelf.clone() {
            Some(place) => tokio::task::spawn_blocking(move || place.remove_key(key)).await??,
            None => false,
        };
        // After its file: who is about to read that puts it here.
        self.sealed.forget(key);
        self.uses().forget(key);
        Ok(removed)
    }
}

/// Why this host would make another one now; it says what it was made of.
fn outdated(of: &SnapshotOf, guest: Option<Digest>, offer: &Offer) -> Option<&'static str> {
    match &of.guest {
        GuestOf::Wasm { program, .. } => {
            (guest != Some(*program)).then_some("it is of an earlier guest program")
        }
        GuestOf::Linux { protocol_version, .. } if *protocol_version != PROTOCOL_VERSION => {
            Some("it is of an earlier VMM")
        }
        GuestOf::Linux { processor, .. } if offer.processor().is_ok_and(|here| here != processor) => {
            Some("it is of another processor, or of another template of it")
        }
        GuestOf::Linux { runtime, kernel, initrd, .. } => {
            let (image, first) = offer.kernel_for(&runtime.to_string())?;
            let is_same = image == kernel.to_string() && first == initrd.to_string();
            (!is_same).then_some("it is of an earlier kernel")
        }
    }
}

fn on_wire(
    one: Shelved,
    known: Option<Use>,
    outdated: impl Fn(&SnapshotOf) -> Option<&'static str>,
) -> v1::Snapshot {
    let base = v1::Snapshot {
        key: one.key.to_string(),
        function: one.function,
        file_bytes: one.file_bytes,
        uses: known.map_or(0, |known| known.count),
        ..v1::Snapshot::default()
    };
    match one.head {
        Ok(head) => {
            let made = UNIX_EPOCH + Duration::from_secs(head.created_unix_s());
            // A file is touched when it is used; before, it is as old as what it holds.
            let used = known.map(|known| known.last).or_else(|| (one.used != made).then_some(one.used));
            let (state, reason) = match outdated(head.of()) {
                Some(why) => (v1::SnapshotState::Outdated, why),
                None => (v1::SnapshotState::Kept, ""),
            };
            v1::Snapshot {
                last_used_unix_ms: used.map_or(0, unix_ms),
                ..described(base, &head, state, reason)
            }
        }
        Err(wrong) => v1::Snapshot { state: v1::SnapshotState::Damaged.into(), reason: words(wrong), ..base },
    }
}

fn described(
    base: v1::Snapshot,
    head: &SnapshotHead,
    state: v1::SnapshotState,
    reason: &str,
) -> v1::Snapshot {
    let of = head.of();
    let base = of_guest(base, &of.guest);
    v1::Snapshot {
        version: of.version,
        kind: kind(of).into(),
        state: state.into(),
        reason: reason.to_owned(),
        memory_bytes: head.memory_len(),
        disk_bytes: head.disk_len(),
        made_unix_ms: head.created_unix_s().saturating_mul(1000),
        task_digest: of.task.map(|task| task.to_string()).unwrap_or_default(),
        told_digest: of.told.to_string(),
        memory_digest: head.memory().to_string(),
        base_key: base_key(head),
        ..base
    }
}

/// The key of what it was made from, if it was made from its runtime's.
fn base_key(head: &SnapshotHead) -> String {
    let base = head.begun_with().and_then(|_| head.of().runtime());
    base.map(|runtime| runtime.key().to_string()).unwrap_or_default()
}

fn of_guest(base: v1::Snapshot, guest: &GuestOf) -> v1::Snapshot {
    match guest {
        GuestOf::Wasm { source, code, program, .. } => v1::Snapshot {
            code_digest: source.to_string(),
            compiled_digest: code.to_string(),
            guest_digest: program.to_string(),
            ..base
        },
        GuestOf::Linux { runtime, kernel, initrd, processor, .. } => v1::Snapshot {
            runtime_digest: runtime.to_string(),
            kernel_digest: kernel.to_string(),
            initrd_digest: initrd.to_string(),
            cpu_template: processor.template.clone(),
            cpu_digest: processor.seen.to_string(),
            ..base
        },
    }
}

pub(super) fn kind(of: &SnapshotOf) -> v1::Kind {
    match of.guest {
        GuestOf::Wasm { .. } => v1::Kind::Wasm,
        GuestOf::Linux { .. } => v1::Kind::Linux,
    }
}

fn tried(entry: Entry, now: Instant) -> v1::Snapshot {
    let state = match &entry.not_made {
        None => v1::SnapshotState::Making,
        Some(NotMade::Cannot(_)) => v1::SnapshotState::Hopeless,
        Some(NotMade::Init { .. } | NotMade::NotNow(_)) => v1::SnapshotState::Failed,
    };
    let age = now.saturating_duration_since(entry.since).as_millis();
    v1::Snapshot {
        key: entry.key.to_string(),
        function: entry.subject.function,
        version: entry.subject.version,
        kind: entry.subject.kind.into(),
        state: state.into(),
        reason: entry.not_made.as_ref().map(|why| why.reason().to_owned()).unwrap_or_default(),
        age_ms: u64::try_from(age).unwrap_or(u64::MAX),
        ..v1::Snapshot::default()
    }
}

pub(super) fn words(error: SnapshotError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
