//! Where the programs are, and that the users who run them can reach them.

use super::layout::{Layout, closed_to_others};
use std::path::{Path, PathBuf};
use warren_client::{Failure, Outcome};

/// The programs beside this one: those of the services, and those of the jail, which a prepared machine has already.
const SERVICES: [&str; 2] = ["warren-control", "warren-agent"];
const JAIL: [&str; 5] = ["warren-jailer", "warren-vmm", "warren-compile", "warren-pager", "warren-guest"];

/// A directory with every program, reachable by every user.
pub(crate) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Finds them beside this executable; copies them into the data directory when a directory on the way is closed
    /// to other users (a checkout below /root, say), for then control and agent could not be started from there.
    /// `own_users` says that they have users of their own, and that the jailer is started here, too.
    pub(crate) fn find(layout: &Layout, own_users: bool) -> Outcome<Self> {
        let own = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", error))?;
        let directory = own.parent().map(Path::to_owned).unwrap_or_default();
        let needed = SERVICES.into_iter().chain(JAIL.into_iter().filter(|_| own_users));
        let missing: Vec<_> = needed.filter(|name| !directory.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(Failure::local(format!(
                "{} lacks {}; build everything with `cargo xtask build` and start target/warren/bin/warren",
                directory.display(),
                missing.join(", ")
            )));
        }
        if !own_users || closed_to_others(&directory).is_none() {
            return Ok(Self { directory });
        }
        let copied = layout.path("programs");
        copy(&directory, &copied.join("bin"))?;
        if let Some(policies) =
            directory.parent().map(|above| above.join("policies")).filter(|dir| dir.is_dir())
        {
            copy(&policies, &copied.join("policies"))?;
        }
        Ok(Self { directory: copied.join("bin") })
    }

    /// One program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let all = || -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in from.read_dir()? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                // A new inode: the old one may be running.
                let fresh = to.join(format!("{}.new", entry.file_name().display()));
                std::fs::copy(entry.path(), &fresh)?;
                std::fs::rename(&fresh, to.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    all().map_err(|error| Failure::io(format!("cannot copy {} to {}", from.display(), to.display()), error))
}
