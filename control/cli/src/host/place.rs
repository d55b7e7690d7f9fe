//! Where everything of a prepared host stands. All of it lies below one root: `/`, but for tests.

use std::path::{Path, PathBuf};

/// The places below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    /// Below this root.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether this is the machine itself. Only then devices, accounts and services of the machine are touched.
    pub(crate) fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The root, when it is not the machine's: what a command that shall find the same host has to name.
    pub(crate) fn other_root(&self) -> Option<&Path> {
        (!self.is_machine()).then_some(self.root.as_path())
    }

    /// What was prepared, for whom, and what that made.
    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("etc/warren/host.json")
    }

    /// One folder a build.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("usr/local/lib/warren")
    }

    /// The jailer's state, unless another place is asked for.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("var/lib/warren-host")
    }

    /// What lives until the next boot.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run/warren")
    }

    /// Where the jailer listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run().join("jailer.sock")
    }

    /// The jailer's process, where no service manager keeps it.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run().join("jailer.pid")
    }

    /// The service.
    pub(crate) fn unit(&self) -> PathBuf {
        self.root.join("etc/systemd/system").join(UNIT)
    }

    /// The rule that gives /dev/kvm its group at each boot.
    pub(crate) fn udev_rule(&self) -> PathBuf {
        self.root.join("etc/udev/rules.d/70-warren-kvm.rules")
    }

    /// Accounts and groups.
    pub(crate) fn accounts(&self, file: &str) -> PathBuf {
        self.root.join("etc").join(file)
    }
}

/// The service's name.
pub(crate) const UNIT: &str = "warren-jailer.service";
