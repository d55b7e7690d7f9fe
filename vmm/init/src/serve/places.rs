//! Where a function's programs and files lie.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folders of a sandbox. In a guest they are Lambda's; elsewhere they lie below another root.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The function's files.
    pub(crate) task: PathBuf,
    /// The runtime's.
    pub(crate) runtime: PathBuf,
    /// Layers, and extensions in `extensions`.
    pub(crate) opt: PathBuf,
}

impl Places {
    /// As in a guest.
    pub(crate) fn guest() -> Self {
        Self::below(Path::new("/"))
    }

    /// Below a folder.
    pub(crate) fn below(root: &Path) -> Self {
        Self { task: root.join("var/task"), runtime: root.join("var/runtime"), opt: root.join("opt") }
    }

    /// External extensions: the executable files of a folder, sorted by name.
    pub(crate) fn extensions(&self) -> Vec<String> {
        let entries = self.opt.join("extensions").read_dir().into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The program of an extension.
    pub(crate) fn extension(&self, name: &str) -> PathBuf {
        self.opt.join("extensions").join(name)
    }

    /// The first program named `bootstrap`.
    pub(crate) fn bootstrap(&self) -> Result<PathBuf, (&'static str, String)> {
        let looked = [&self.runtime, &self.task, &self.opt].map(|folder| folder.join("bootstrap"));
        let Some(found) = looked.iter().find(|file| file.is_file()) else {
            let list = looked.map(|file| file.display().to_string()).join(" ");
            return Err(("Runtime.InvalidEntrypoint", format!("Couldn't find valid bootstrap(s): [{list}]")));
        };
        let executable = found.metadata().is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
        if executable {
            return Ok(found.clone());
        }
        Err(("Runtime.InvalidEntrypoint", format!("{}: permission denied", found.display())))
    }
}
