//! Taking back what a preparation made, from the last thing to the first. What somebody else changed meanwhile stays.

use super::{
    Told,
    accounts::Accounts,
    apply::change_group,
    kvm,
    place::Place,
    plan,
    record::{Made, Record},
    service,
};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};
use warren_client::{Failure, Outcome};

/// Undoes everything; gives what was removed.
pub(crate) fn all(place: &Place, told: &mut Told) -> Outcome<Vec<String>> {
    let file = place.record();
    let Some(mut record) = Record::load(&file)? else {
        told.kept("host", "not prepared");
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    // The record itself and its folder go last: until then an interrupted undo can go on.
    let (last, first): (Vec<Made>, Vec<Made>) =
        record.made.iter().cloned().partition(|made| is_records_own(made, &file));
    // The jailer first: what it stands on goes after it.
    let (jailer, rest): (Vec<Made>, Vec<Made>) = first.into_iter().partition(|made| *made == Made::Service);
    for made in jailer.into_iter().chain(rest.into_iter().rev()) {
        let text = one(place, &made)?;
        record.made.retain(|other| *other != made);
        record.save(&file)?;
        told.did("removed", &text);
        removed.push(text);
    }
    for made in last.into_iter().rev() {
        let text = one(place, &made)?;
        told.did("removed", &text);
        removed.push(text);
    }
    Ok(removed)
}

fn is_records_own(made: &Made, file: &Path) -> bool {
    match made {
        Made::File(path) | Made::Folder(path) => file.starts_with(path),
        _ => false,
    }
}

fn one(place: &Place, made: &Made) -> Outcome<String> {
    Ok(match made {
        Made::Service => {
            service::stop(place, plan::has_systemd(place))?;
            "the jailer".into()
        }
        Made::Tree(path) => {
            gone(path, fs::remove_dir_all(path))?;
            path.display().to_string()
        }
        Made::File(path) => {
            gone(path, fs::remove_file(path))?;
            if *path == place.unit() {
                service::forget_unit()?;
            }
            path.display().to_string()
        }
        Made::Folder(path) => match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                format!("{} stays: others keep things in it", path.display())
            }
            other => {
                gone(path, other)?;
                path.display().to_string()
            }
        },
        Made::Member { group, user } => {
            change_group(place, &["gpasswd", "--delete", user, group], |accounts| {
                accounts.with_member(group, user, false)
            })?;
            format!("{user} from the group {group}")
        }
        Made::Group(group) => {
            let accounts = Accounts::read(&place.accounts("passwd"), &place.accounts("group"));
            if accounts.group(group).is_some_and(|(_, members)| !members.is_empty()) {
                return Ok(format!("the group {group} stays: it has other members"));
            }
            change_group(place, &["groupdel", group], |accounts| accounts.without_group(group))?;
            format!("the group {group}")
        }
        Made::Node { path, gid, mode } => node(place, path, *gid, *mode)?,
    })
}

/// Puts a device back, if it is still as the preparation left it.
fn node(place: &Place, path: &Path, gid: u32, mode: u32) -> Outcome<String> {
    let failed = |error| Failure::io(format!("cannot put {} back", path.display()), error);
    let accounts = Accounts::read(&place.accounts("passwd"), &place.accounts("group"));
    let Ok(now) = fs::metadata(path) else { return Ok(format!("{} is gone", path.display())) };
    let ours = accounts.group(kvm::GROUP).map(|(gid, _)| gid) == Some(now.gid());
    if !ours || now.mode() & 0o7777 != mode | kvm::MODE {
        return Ok(format!("{} stays: it was changed since", path.display()));
    }
    chown(path, None, Some(gid))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(failed)?;
    Ok(format!("the group's access to {}", path.display()))
}

fn gone(path: &Path, result: io::Result<()>) -> Outcome {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
