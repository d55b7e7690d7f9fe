//! What root has to do once on a machine, for somebody who is not root: one line to copy.

use crate::{paths, shell};
use anyhow::{Context as _, Result, bail};
use std::{path::Path, process::Command};

/// Where the programs stand that prepare a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Programs {
    /// Built: they are asked whether the machine is prepared.
    Built,
    /// They cannot be built before the packages are there.
    NotBuilt,
    /// Nothing is going to be started.
    NotNeeded,
}

/// Goes on when nothing is missing, and with root always: root installs what it needs, and its `warren up` needs no
/// preparation. Otherwise stops with the one line.
pub(crate) fn require(packages: &[&str], programs: Programs) -> Result<()> {
    if shell::is_root() {
        return Ok(());
    }
    let root = paths::root();
    let user = shell::output(Command::new("id").arg("-un")).context("who runs this?")?;
    let program = paths::program("warren").display().to_string();
    let prepare = format!("{} host prepare --user {}", quoted(&program), quoted(user.trim()));
    let mut parts = Vec::new();
    if !packages.is_empty() {
        let names = packages.join(" ");
        parts.push(format!("apt-get update && apt-get install -y --no-install-recommends {names}"));
    }
    match programs {
        Programs::Built if is_prepared() => {}
        Programs::Built => parts.push(prepare),
        Programs::NotBuilt => {
            parts.push(build(&root, user.trim()));
            parts.push(prepare);
        }
        Programs::NotNeeded => {}
    }
    match line(&parts) {
        None => Ok(()),
        Some(line) => {
            bail!("this machine is to be prepared once; run this, then again without sudo:\n\n  {line}\n")
        }
    }
}

/// For who shall open /dev/kvm himself, as the monitor's tests do: membership in a group counts from the next login on.
pub(crate) fn require_kvm() -> Result<()> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    match opened {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !shell::is_root() => bail!(
            "/dev/kvm cannot be opened yet: your membership in its group counts from the next login on; until then\n\n  \
             sg kvm -c 'cargo xtask test'\n"
        ),
        _ => Ok(()),
    }
}

fn is_prepared() -> bool {
    let program = paths::program("warren").display().to_string();
    shell::succeeds(&program, &["host", "status", "--json"])
}

/// The build, as the user: root leaves no file in a checkout.
fn build(root: &Path, user: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let words =
        format!("cd {} && PATH={} cargo xtask build", quoted(&root.display().to_string()), quoted(&path));
    format!("su {} -c {}", quoted(user), quoted(&words))
}

/// One command for root; none when there is nothing to do.
fn line(parts: &[String]) -> Option<String> {
    match parts {
        [] => None,
        [one] if !one.contains("&&") => Some(format!("sudo {one}")),
        more => Some(format!("sudo sh -c {}", quoted(&more.join(" && ")))),
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell makes of a line when every program in it only says its own name and arguments.
    fn said(line: &str) -> String {
        let script = format!(
            r#"sudo() {{ if [ "$1" = sh ]; then eval "$3"; else "$@"; fi; }}
               su() {{ echo "as $1"; eval "$3"; }}
               apt-get() {{ echo "apt-get $*"; }}
               cd() {{ echo "in $1"; }}
               cargo() {{ echo "cargo $* with $PATH"; }}
               {line}"#
        );
        // `dash` takes no function with a dash in its name.
        let shell = Command::new("bash").args(["-c", &script]).output().expect("bash");
        format!("{}{}", String::from_utf8_lossy(&shell.stdout), String::from_utf8_lossy(&shell.stderr))
    }

    #[test]
    fn nothing_missing_is_no_line() {
        assert_eq!(line(&[]), None);
    }

    #[test]
    fn one_thing_is_a_plain_command() {
        let parts = ["/a/warren host prepare --user ada".to_owned()];
        assert_eq!(line(&parts).as_deref(), Some("sudo /a/warren host prepare --user ada"));
    }

    #[test]
    fn packages_build_and_preparation_are_one_line() {
        let parts = [
            "apt-get update && apt-get install -y musl-tools".to_owned(),
            build(Path::new("/home/it's/my checkout"), "ada"),
            "echo prepared".to_owned(),
        ];
        let line = line(&parts).expect("a line");
        assert!(!line.contains('\n'));
        let path = std::env::var("PATH").unwrap_or_default();
        let wanted = format!(
            "apt-get update\napt-get install -y musl-tools\nas ada\nin /home/it's/my checkout\n\
             cargo xtask build with {path}\nprepared\n"
        );
        assert_eq!(said(&line), wanted, "{line}");
    }
}
