//! Running other people's programs: which package has one, what it said when it failed.

use crate::BuildError;
use std::{io, path::Path, process::Command};

/// The programs used here, and the Debian packages they come in.
const PACKAGES: [(&str, &str); 16] = [
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("debugfs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("dpkg-query", "dpkg"),
    ("dpkg-source", "dpkg-dev"),
    ("lz4", "lz4"),
    ("mke2fs", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("ninja", "ninja-build"),
    ("npm", "npm"),
    ("pip3", "python3-pip"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];
/// Bytes kept of what a failed program said.
const LAST_WORDS: usize = 2000;

/// A command whose sorting and messages are the same everywhere, and which finds programs of administrators.
#[must_use]
pub fn command(tool: &str) -> Command {
    let mut command = Command::new(tool);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("LC_ALL", "C.UTF-8").env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin"));
    command
}

/// Fails unless each of these is installed: before anything long is begun.
pub fn require(tools: &[&str]) -> Result<(), BuildError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<_> = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]).collect();
    for tool in tools {
        if !folders.iter().any(|folder| Path::new(folder).join(tool).is_file()) {
            return Err(missing(tool));
        }
    }
    Ok(())
}

/// Runs to the end; gives what it wrote to standard output.
pub fn run(command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let done = match command.output() {
        Ok(done) => done,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&tool)),
        Err(source) => return Err(BuildError::Io { what: format!("start {tool}"), source }),
    };
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = if done.stderr.is_empty() { done.stdout } else { done.stderr };
    let tail = said.get(said.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
    let said = String::from_utf8_lossy(tail).trim().to_owned();
    Err(BuildError::Tool { tool, status: done.status, said })
}

fn missing(tool: &str) -> BuildError {
    let package =
        PACKAGES.iter().find(|(name, _)| *name == tool).map_or("(of this name)", |(_, package)| package);
    BuildError::MissingTool { tool: tool.to_owned(), package }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_package_and_words() {
        let text = require(&["sh", "no-such-tool"]).unwrap_err().to_string();
        assert!(text.contains("no-such-tool"), "{text}");
        let text = missing("mmdebstrap").to_string();
        assert_eq!(text, "mmdebstrap is not installed; it comes with: apt-get install mmdebstrap");
        let text = run(command("sh").args(["-c", "echo too bad >&2; exit 3"])).unwrap_err().to_string();
        assert!(text.contains("too bad") && text.contains("exit status: 3"), "{text}");
        assert_eq!(run(command("sh").args(["-c", "echo $LC_ALL"])).unwrap(), b"C.UTF-8\n");
    }
}
