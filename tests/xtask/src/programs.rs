//! The workspace's test programs: built once, in one feature set, then run one by one (here or on the lab host).

use crate::{paths, shell};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The package whose test programs are the end-to-end suites.
const SUITES: &str = "suites";
/// Package and name of other tests that have a full form.
const FULL_FORMS: [(&str, &str); 8] = [
    ("host-agent/agent", "paging"),
    ("host-agent/agent", "worker"),
    ("host-agent/chunks", "crash"),
    ("host-agent/image", "runtime"),
    ("host-agent/pager", "paged"),
    ("tests/escape", "escape"),
    ("tests/hostile-guest", "hostile-guest"),
    ("vmm/monitor", "snapshots"),
];

/// One program of libtest's, or one with a runner that speaks like it.
#[derive(Clone, Debug)]
pub(crate) struct TestProgram {
    /// The package's folder, absolute.
    pub folder: PathBuf,
    /// The target's name, for example `limits`.
    pub name: String,
    /// Whether it is a file of `tests/`, not the tests inside a library or binary.
    pub beside: bool,
    /// The executable.
    pub file: PathBuf,
}

impl TestProgram {
    /// An end-to-end suite over a whole installation.
    pub(crate) fn is_suite(&self) -> bool {
        self.beside && self.folder.file_name().is_some_and(|name| name == SUITES)
    }

    /// Whether `WARREN_SOAK=1` makes more of it, by `cargo xtask soak` and its name.
    pub(crate) fn has_full_form(&self) -> bool {
        let is = |(place, name): &(&str, &str)| self.place() == Path::new(place) && self.name == *name;
        self.is_suite() || (self.beside && FULL_FORMS.iter().any(is))
    }

    /// Whether it makes jails of its own. (A prepared machine's jailer is not a test's to start and kill.)
    pub(crate) fn needs_root(&self) -> bool {
        let place = self.place();
        // The pager's have /dev/userfaultfd, which is root's.
        let roots =
            ["jailer/jailer", "host-agent/agent", "host-agent/pager", "tests/escape", "tests/hostile-guest"];
        self.beside && roots.iter().any(|root| place == Path::new(root))
    }

    /// Package and target, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}::{}", self.place().display(), self.name)
    }

    /// The package's folder, relative to the checkout.
    pub(crate) fn place(&self) -> &Path {
        self.folder.strip_prefix(paths::root()).unwrap_or(&self.folder)
    }

    /// A run of it, in its package's folder as cargo does it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Builds all of them: libraries' and binaries' own tests first, then those beside the crates, by name.
pub(crate) fn build() -> Result<Vec<TestProgram>> {
    let mut command = shell::cargo(&paths::root());
    // All in one call: other packages are other features, and everything below them would be compiled once more.
    command.args(["test", "--locked", "--workspace", "--exclude", "xtask", "--lib", "--bins", "--tests"]);
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let mut found = Vec::new();
    shell::piped("test programs", &mut command, |line| found.extend(program(line)))?;
    found.sort_by(|a, b| (a.beside, &a.folder, &a.name).cmp(&(b.beside, &b.folder, &b.name)));
    if found.is_empty() {
        bail!("cargo built no test program");
    }
    Ok(found)
}

/// One line of cargo's messages, when it tells of a test program.
fn program(line: &str) -> Option<TestProgram> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    Some(TestProgram {
        folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
        name: message["target"]["name"].as_str()?.to_owned(),
        beside: message["target"]["kind"][0] == "test",
        file: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_told_from_other_artefacts() {
        let line = |test: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/suites/Cargo.toml","profile":{{"test":{test}}},
                "target":{{"kind":["{kind}"],"name":"limits"}},"executable":"/w/target/debug/deps/limits-1"}}"#
            )
        };
        let suite = program(&line("true", "test")).expect("a test program");
        assert!(suite.is_suite() && suite.name == "limits");
        assert!(!program(&line("true", "lib")).expect("a library's tests").is_suite());
        assert!(program(&line("false", "bin")).is_none());
        assert!(program(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(program("error: no such package").is_none());
    }
}
