//! This machine's certificates: made at the start, renewed while it runs.
//!
//! ```text
//! start ── ensure ──▶ services begin with them ──▶ each minute: past half of its life, or damaged? ── no ──▶ nothing
//!                                                     ▲                     │ yes
//!                                                     ╰── services take ◀── made anew, given to their users
//!                                                         them up themselves
//! ```
//! Only whoever starts Warren holds the CA's key. So it is this process that renews, and no service can make itself another one.

use super::layout::Users;
use crate::screen;
use std::{path::PathBuf, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use warren_client::{Failure, Outcome};
use warren_identity::{LocalIdentity, Owners};

const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Where they are, and whose they become.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) directory: PathBuf,
    pub(super) users: Option<Users>,
}

impl Identity {
    /// Makes what is missing, damaged or past half of its life.
    pub(super) fn ensure(&self) -> Outcome<LocalIdentity> {
        let failed = |error| Failure::local(format!("identity in {}: {error}", self.directory.display()));
        let identity = warren_identity::ensure_local(&self.directory).map_err(failed)?;
        if let Some(Users { agent, control }) = self.users {
            warren_identity::give_files(&self.directory, Owners { control, agent }).map_err(failed)?;
        }
        Ok(identity)
    }

    /// Does so each minute, and tells; for ever.
    pub(super) async fn keep(self) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            every.tick().await;
            match self.ensure() {
                Ok(identity) => {
                    told = None;
                    for service in identity.renewed {
                        screen::tell(&format!("the certificate of {} is renewed", service.stem()));
                    }
                }
                // Those that there are go on for as long as they are valid.
                Err(failure) => {
                    let text = failure.to_string();
                    if told.as_ref() != Some(&text) {
                        screen::tell(&format!("certificates cannot be renewed: {text}"));
                    }
                    told = Some(text);
                }
            }
        }
    }
}
