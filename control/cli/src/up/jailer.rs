//! Which jailer: root starts one of its own; anybody else uses the one this machine was prepared with.

use super::{
    Options,
    layout::{AGENT_UID, CONTROL_UID, Users},
    leftovers,
};
use crate::host::{Finding, Refusal, State, sudo_line, unprepare_line};
use std::path::{Path, PathBuf};
use warren_client::{Failure, Outcome};

/// The jailer of this run.
#[derive(Debug)]
pub(crate) enum Jailer {
    /// Started, watched and stopped with everything else.
    Own {
        /// First uid of sandboxes.
        uid_base: u32,
        /// Most sandboxes.
        slots: u32,
        /// What it is told of the network.
        network: Vec<String>,
        /// And of the cgroups.
        favordynmods: bool,
    },
    /// A service of this machine, for this user.
    Prepared(Finding),
}

impl Jailer {
    /// Finds out, and refuses with the one command to run where there is none.
    pub(crate) fn choose(options: &Options) -> Outcome<Self> {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            let (uid_base, slots) = (options.uid_base.unwrap_or(70_000), options.slots.unwrap_or(4_096));
            let favordynmods = options.favordynmods;
            return Ok(Self::Own { uid_base, slots, network: network(options), favordynmods });
        }
        let of_network =
            options.no_network || options.network_resolver.is_some() || !options.network_open.is_empty();
        if options.uid_base.is_some() || options.slots.is_some() || of_network || options.favordynmods {
            let message = "--uid-base, --slots, --favordynmods, --network-open, --network-resolver and --no-network are the jailer's, and this machine's jailer is not yours to set; \
                           `warren host prepare` sets them";
            return Err(Failure::Usage(message.into()));
        }
        let root = options.below.root.as_path();
        match State::find(root, uid.as_raw())? {
            State::Prepared(found) => usable(found, root).map(Self::Prepared),
            State::Unprepared => Err(unprepared(
                "a jailer, which needs root (every sandbox gets a user of its own), must be set up once on this \
                 machine; control and agent run as you, without any privilege",
                root,
            )),
            State::OtherUser(user) => Err(Failure::Unprepared(format!(
                "this machine is prepared for {user}, and one user at a time can be; {user} (or root) gives it up with\n\n  \
                 {}\n\nand then\n\n  {}\n",
                unprepare_line(root),
                sudo_line(root)
            ))),
        }
    }

    /// Who the services run as: users of their own where this is root, else all as this one.
    pub(crate) fn users(&self) -> Option<Users> {
        match self {
            Self::Own { .. } => Some(Users { agent: AGENT_UID, control: CONTROL_UID }),
            Self::Prepared(_) => None,
        }
    }

    /// The uids of sandboxes.
    pub(crate) fn uids(&self) -> (u32, u32) {
        match self {
            Self::Own { uid_base, slots, .. } => (*uid_base, *slots),
            Self::Prepared(found) => found.uids,
        }
    }

    /// Where state is kept if nothing is said.
    pub(crate) fn default_data(&self) -> PathBuf {
        default_data(matches!(self, Self::Own { .. }))
    }
}

/// The jailer's words for it.
fn network(options: &Options) -> Vec<String> {
    let open = options.network_open.iter().map(|network| format!("--network-open={network}"));
    let resolver = options.network_resolver.map(|address| format!("--network-resolver={address}"));
    let wanted = if options.no_network { "none" } else { "auto" };
    [format!("--network={wanted}")].into_iter().chain(open).chain(resolver).collect()
}

/// Where root's, or this user's, state is kept if nothing is said.
pub(crate) fn default_data(roots: bool) -> PathBuf {
    if roots {
        return warren_image::Shelf::MACHINE.into();
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_else(|| "/".into()).join(".local/share");
    set("XDG_DATA_HOME").filter(|path| path.is_absolute()).unwrap_or_else(home).join("warren")
}

fn usable(mut found: Finding, root: &Path) -> Outcome<Finding> {
    if !found.conflicts.is_empty() {
        return Err(unprepared(
            &format!(
                "the prepared programs (build {}) do not fit these: {}; update them",
                found.build,
                found.conflicts.join(", ")
            ),
            root,
        ));
    }
    if matches!(found.answers, Err(Refusal::Held(_))) {
        // Of a `warren up` that was killed: what nobody watches any more makes room.
        leftovers::end_orphans_of(&found.socket);
        found.ask_again();
    }
    match &found.answers {
        Ok(()) => {}
        Err(Refusal::Held(holder)) => {
            return Err(Failure::local(format!(
                "another `warren up` of yours uses this machine's jailer ({holder}); stop it first"
            )));
        }
        Err(why) => return Err(unprepared(&format!("this machine is prepared for you, but {why}"), root)),
    }
    if found.is_other_build {
        crate::screen::tell(&format!(
            "note: the prepared programs are of another build ({}) than these; that works, and this updates them:\n  {}",
            found.build,
            sudo_line(root)
        ));
    }
    Ok(found)
}

fn unprepared(why: &str, root: &Path) -> Failure {
    Failure::Unprepared(format!("{why}:\n\n  {}\n", sudo_line(root)))
}
