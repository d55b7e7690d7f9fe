//! Why something could not be made.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why something could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program is not installed.
    #[error("{tool} is not installed; it comes with: apt-get install {package}")]
    MissingTool {
        /// Its name.
        tool: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{tool} ended with {status}: {said}")]
    Tool {
        /// Its name.
        tool: String,
        /// How it ended.
        status: ExitStatus,
        /// The last it said.
        said: String,
    },
    /// Only root can make files of several owners.
    #[error("a root file system has files of several owners, which only root can make; run it with sudo")]
    NotRoot,
    /// apt does not know a package.
    #[error("apt knows no {what}: {fix}")]
    NoPackage {
        /// Which.
        what: String,
        /// What may help.
        fix: &'static str,
    },
    /// A kernel lacks what a guest needs.
    #[error("the kernel {kernel} has neither built in nor as a module: {module}")]
    NoModule {
        /// Which kernel.
        kernel: String,
        /// Which module.
        module: String,
    },
    /// A kernel was built without what a guest needs.
    #[error("the kernel {kernel} lacks {what}; take another, or build it so")]
    Config {
        /// Which kernel.
        kernel: String,
        /// What.
        what: String,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A name that is no folder's.
    #[error(
        "a name is 1 to 64 characters of a-z, 0-9, '.' and -, and begins with a letter or digit: not {0:?}"
    )]
    Name(String),
    /// The file system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl BuildError {
    /// For `map_err`: names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A file is not what it should be.
    pub fn malformed(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), what: what.into() }
    }
}
