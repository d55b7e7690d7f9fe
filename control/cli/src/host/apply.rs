//! Doing what the plan says, each thing written down before it is made.

use super::{
    Told,
    accounts::Accounts,
    kvm,
    place::Place,
    plan::{Action, Need, Ready, Step},
    probe,
    record::{Made, Record, replace},
    service,
};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use warren_client::{Failure, Outcome};

const LISTENS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does every step and leaves the record of it. What serves at the end is what the record says.
pub(crate) fn all(place: &Place, ready: &Ready, steps: &[Step], told: &mut Told) -> Outcome {
    let known = ready.record.clone();
    let mut record =
        known.clone().unwrap_or(Record { wish: ready.wish.clone(), build: None, made: Vec::new() });
    record.wish = ready.wish.clone();
    let mut hand = Hand { place, ready, record };
    let file = place.record();
    hand.folder_of(&file)?;
    if known.is_none() {
        hand.record.add(Made::File(file.clone()));
        hand.save()?;
    }
    for step in steps {
        if let Need::Do(action) = &step.need {
            hand.act(action)?;
        }
        told.step(step, "");
    }
    listening(&place.socket())?;
    hand.record.build = Some(ready.build.clone());
    if known.as_ref() != Some(&hand.record) {
        hand.save()?;
    }
    Ok(())
}

/// Waits until the jailer listens; a service manager only says that it was started. It will not serve root: that it
/// is there is what is asked.
fn listening(socket: &Path) -> Outcome {
    let begin = Instant::now();
    loop {
        match probe::ask(socket) {
            Err(probe::Refusal::Absent(error)) if begin.elapsed() > LISTENS_WITHIN => {
                return Err(Failure::io(format!("no jailer listens at {}", socket.display()), error));
            }
            Err(probe::Refusal::Absent(_)) => std::thread::sleep(LOOK_EVERY),
            _ => return Ok(()),
        }
    }
}

/// The folder of the socket, which a boot takes away.
pub(crate) fn run_folder(place: &Place) -> Outcome {
    own_folder(&place.run(), 0o755).map_err(|error| failed(&place.run(), error))
}

struct Hand<'a> {
    place: &'a Place,
    ready: &'a Ready,
    record: Record,
}

impl Hand<'_> {
    fn act(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Group => {
                self.note(Made::Group(kvm::GROUP.into()))?;
                change_group(self.place, &["groupadd", "--system", kvm::GROUP], |accounts| {
                    accounts.with_group(kvm::GROUP)
                })
            }
            Action::Member(user) => {
                self.note(Made::Member { group: kvm::GROUP.into(), user: user.clone() })?;
                change_group(self.place, &["usermod", "--append", "--groups", kvm::GROUP, user], |accounts| {
                    accounts.with_member(kvm::GROUP, user, true)
                })
            }
            Action::Node => self.node(),
            Action::Rule(path) => self.file(path, kvm::RULE.as_bytes(), 0o644),
            Action::Programs(folder) => self.programs(folder),
            Action::State(folder) => {
                self.folder_of(folder)?;
                self.note(Made::Tree(folder.clone()))?;
                own_folder(folder, 0o700).map_err(|error| failed(folder, error))
            }
            Action::Unit(path) => {
                let text = service::unit(self.place, &self.ready.programs, &self.ready.wish);
                self.file(path, text.as_bytes(), 0o644)
            }
            Action::Service { .. } => {
                self.folder_of(&self.place.run())?;
                self.note(Made::Tree(self.place.run()))?;
                self.note(Made::Service)?;
                run_folder(self.place)?;
                service::start(self.place, &self.ready.programs, &self.ready.wish, self.ready.systemd)
            }
            Action::OldBuild(folder) => {
                fs::remove_dir_all(folder).map_err(|error| failed(folder, error))?;
                self.record.made.retain(|made| *made != Made::Tree(folder.clone()));
                self.save()
            }
        }
    }

    fn node(&mut self) -> Outcome {
        let path = Path::new(kvm::PATH);
        let accounts = Accounts::read(&self.place.accounts("passwd"), &self.place.accounts("group"));
        let (gid, _) =
            accounts.group(kvm::GROUP).ok_or_else(|| Failure::local("the group kvm is not there"))?;
        let before = fs::metadata(path).map_err(|error| failed(path, error))?;
        self.note(Made::Node { path: path.into(), gid: before.gid(), mode: before.mode() & 0o7777 })?;
        // For everybody who could open it before, it stays as it was.
        let mode = (before.mode() & 0o7777) | kvm::MODE;
        chown(path, None, Some(gid))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .map_err(|error| failed(path, error))
    }

    fn programs(&mut self, folder: &Path) -> Outcome {
        self.folder_of(folder)?;
        self.note(Made::Tree(folder.to_owned()))?;
        own_folder(folder, 0o755).map_err(|error| failed(folder, error))?;
        for (name, bytes) in &self.ready.missing {
            let path = folder.join(name);
            replace(&path, bytes, 0o755).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Outcome {
        self.folder_of(path)?;
        self.note(Made::File(path.to_owned()))?;
        replace(path, bytes, mode).map_err(|error| failed(path, error))
    }

    /// Makes the folders above a path that are not there, and refuses one that others could write in: they could put
    /// another file in this one's place.
    fn folder_of(&mut self, path: &Path) -> Outcome {
        let above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for folder in above.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
            match fs::symlink_metadata(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // The very first folder is the record's own.
                    self.record.add(Made::Folder(folder.clone()));
                    own_folder(&folder, 0o755).map_err(|error| failed(&folder, error))?;
                }
                Err(error) => return Err(failed(&folder, error)),
                Ok(_) => trusted(&folder)?,
            }
        }
        Ok(())
    }

    fn note(&mut self, made: Made) -> Outcome {
        self.record.add(made);
        self.save()
    }

    fn save(&self) -> Outcome {
        self.record.save(&self.place.record())
    }
}

/// Changes the group file, with the machine's own tool where there is one.
pub(crate) fn change_group(place: &Place, tool: &[&str], change: impl Fn(&Accounts) -> String) -> Outcome {
    if let ([program, arguments @ ..], true) = (tool, place.is_machine()) {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments).stdin(Stdio::null());
        match command.output() {
            Ok(done) if done.status.success() => return Ok(()),
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(Failure::local(format!("{}: {said}", tool.join(" "))));
            }
            // A system without shadow's tools: the file is all there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io(format!("cannot run {program}"), error)),
        }
    }
    let path = place.accounts("group");
    let accounts = Accounts::read(&place.accounts("passwd"), &path);
    replace(&path, change(&accounts).as_bytes(), 0o644).map_err(|error| failed(&path, error))
}

/// A folder of root's own with this mode, made if it is not there.
fn own_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if about.uid() != 0 {
        return Err(io::Error::other("it is there and does not belong to root"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Refuses a folder in which another user can replace what root puts there. A sticky one (`/tmp`) keeps what is root's.
fn trusted(folder: &Path) -> Outcome {
    let about = fs::metadata(folder).map_err(|error| failed(folder, error))?;
    let sticky = about.mode() & 0o1000 != 0;
    if about.uid() == 0 && (about.mode() & 0o022 == 0 || sticky) {
        return Ok(());
    }
    Err(Failure::local(format!(
        "{} can be written by others than root: nothing that root runs may stand below it",
        folder.display()
    )))
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::io(format!("cannot prepare {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_others_are_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (uid, mode, good) in
            [(0, 0o755, true), (0, 0o777, false), (0, 0o1777, true), (5000, 0o755, false)]
        {
            chown(dir.path(), Some(uid), None).unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(trusted(dir.path()).is_ok(), good, "{uid} {mode:o}");
        }
        let own = dir.path().join("own");
        chown(dir.path(), Some(0), None).unwrap();
        std::os::unix::fs::symlink("/etc", &own).unwrap();
        assert!(own_folder(&own, 0o700).is_err(), "a link is no folder of root's own");
    }
}
