//! What a user finds on a machine: prepared for him or not, by which build, and whether the jailer answers.

use super::{
    contract::{self, Contract},
    place::Place,
    plan::own_program,
    probe::{self, Refusal},
    record::Record,
    service,
};
use crate::screen;
use serde_json::json;
use std::path::{Path, PathBuf};
use warren_client::{Failure, Outcome};

/// A machine as one user finds it.
#[derive(Debug)]
pub(crate) enum State {
    /// Nobody prepared it, or not to the end.
    Unprepared,
    /// It is another's.
    OtherUser(String),
    /// It is this user's.
    Prepared(Finding),
}

/// A machine that is prepared for this user.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) socket: PathBuf,
    /// First uid and count of sandboxes.
    pub(crate) uids: (u32, u32),
    /// Of all sandboxes together.
    pub(crate) memory_mib: u64,
    /// The prepared build's name.
    pub(crate) build: String,
    /// What differs and must not; empty is good.
    pub(crate) conflicts: Vec<String>,
    /// Another build than this one's programs; that works, but is told.
    pub(crate) is_other_build: bool,
    /// Whether the jailer answers, and if not, why.
    pub(crate) answers: Result<(), Refusal>,
}

impl Finding {
    /// Asks the jailer again.
    pub(crate) fn ask_again(&mut self) {
        self.answers = probe::ask(&self.socket);
    }
}

impl State {
    /// Looks.
    pub(crate) fn find(root: &Path, uid: u32) -> Outcome<Self> {
        Self::of(&Place::new(root), uid)
    }

    fn of(place: &Place, uid: u32) -> Outcome<Self> {
        let Some(Record { wish, build: Some(build), .. }) = Record::load(&place.record())? else {
            return Ok(Self::Unprepared);
        };
        if wish.uid != uid {
            return Ok(Self::OtherUser(wish.user));
        }
        let beside = own_program()?.parent().and_then(contract::build_digest);
        Ok(Self::Prepared(Finding {
            socket: place.socket(),
            uids: (wish.uid_base, wish.sandboxes),
            memory_mib: wish.memory_mib,
            conflicts: build.contract.differences(&Contract::here()),
            is_other_build: beside.is_some_and(|digest| digest != build.digest),
            build: format!("{}-{}", build.version, build.digest),
            answers: probe::ask(&place.socket()),
        }))
    }

    /// One line for people, and whether this user can go on.
    fn summary(&self) -> (bool, String) {
        match self {
            Self::Unprepared => (false, "this machine is not prepared".into()),
            Self::OtherUser(user) => {
                (false, format!("this machine is prepared for {user}, one user at a time"))
            }
            Self::Prepared(found) => match (&found.answers, found.conflicts.as_slice()) {
                (Err(Refusal::Held(holder)), []) => (true, format!("prepared, and in use: {holder}")),
                (Ok(()), []) if found.is_other_build => {
                    (true, format!("prepared; by another build ({}), which works", found.build))
                }
                (Ok(()), []) => (true, format!("prepared, build {}", found.build)),
                (_, [_, ..]) => {
                    let conflicts = found.conflicts.join(", ");
                    (false, format!("prepared by a build that does not fit this one: {conflicts}"))
                }
                (Err(why), []) => (false, format!("prepared, but {why}")),
            },
        }
    }
}

/// For `warren doctor`: whether it is good, what to say, and what to run.
pub(crate) fn advice(root: &Path) -> (bool, String, String) {
    let uid = rustix::process::geteuid().as_raw();
    match State::find(root, uid) {
        Ok(state) => {
            let (good, text) = state.summary();
            let fix = match state {
                State::OtherUser(_) => unprepare_line(root),
                _ => sudo_line(root),
            };
            (good, text, fix)
        }
        Err(error) => (false, error.to_string(), sudo_line(root)),
    }
}

/// `warren host status`.
pub(crate) fn show(place: &Place, json: bool) -> Outcome {
    let record = Record::load(&place.record())?;
    let uid = rustix::process::geteuid().as_raw();
    let state = State::of(place, uid)?;
    let (good, text) = state.summary();
    let root = place.other_root().unwrap_or(Path::new("/"));
    let running = service::running(place, super::plan::has_systemd(place)).map(|running| running.pid());
    if json {
        screen::print_json(&json!({
            "good": good, "text": text, "record": record, "jailer_pid": running, "prepare": sudo_line(root),
        }));
    } else {
        screen::print(&text);
        if let Some(Record { wish, .. }) = &record {
            screen::print(&format!(
                "for {} (uid {}): at most {} sandboxes, {} MiB together, uids from {} on\njailer {}",
                wish.user,
                wish.uid,
                wish.sandboxes,
                wish.memory_mib,
                wish.uid_base,
                running.map_or_else(|| "not seen".to_owned(), |pid| format!("pid {pid}")),
            ));
        }
    }
    // Root looks at it, and is not the one it is for.
    if good || (uid == 0 && record.is_some()) {
        return Ok(());
    }
    Err(Failure::Unprepared(format!("{text}; prepare it with\n\n  {}\n", sudo_line(root))))
}

/// The one command that gives a preparation up.
pub(crate) fn unprepare_line(root: &Path) -> String {
    let program = own_program().unwrap_or_else(|_| "warren".into());
    format!("sudo {} host unprepare{}", quoted(&program), below(&Place::new(root)))
}

fn below(place: &Place) -> String {
    place.other_root().map(|root| format!(" --root {}", quoted(root))).unwrap_or_default()
}

/// The one command that prepares this machine for who runs this, or updates it: exact, to be copied.
pub(crate) fn sudo_line(root: &Path) -> String {
    let place = Place::new(root);
    let program = own_program().unwrap_or_else(|_| "warren".into());
    let uid = rustix::process::getuid().as_raw();
    let accounts = super::accounts::Accounts::read(&place.accounts("passwd"), &place.accounts("group"));
    let user = accounts.find(&uid.to_string()).filter(|account| account.uid == uid);
    let user = user.map_or_else(|| uid.to_string(), |account| account.name);
    format!("sudo {} host prepare --user {user}{}", quoted(&program), below(&place))
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_shell() {
        for path in ["/a/b-1.0_c", "/with space/x", "/it's/$HOME", "/über"] {
            let line = format!("printf %s {}", quoted(Path::new(path)));
            let said = std::process::Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), path);
        }
    }

    #[test]
    fn nothing_there_is_unprepared() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(State::find(dir.path(), 1000), Ok(State::Unprepared)));
        assert!(sudo_line(dir.path()).contains(" host prepare --user "));
    }
}
