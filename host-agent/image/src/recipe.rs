//! What each runtime is made of: a table.

/// The Debian release everything is from.
pub const SUITE: &str = "bookworm";
/// The time every file is from when `SOURCE_DATE_EPOCH` names no other: 14 November 2023, 22:13:20 UTC.
pub const EPOCH: u64 = 1_700_000_000;
/// Raised when the way of making changes what is made.
const FORMAT: u32 = 2;

/// How a runtime is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Debian packages besides the essential ones.
    pub packages: &'static [&'static str],
    /// Python packages, each with its version.
    pub wheels: &'static [&'static str],
    /// Files of our own: path, permissions, text.
    pub files: &'static [(&'static str, u32, &'static str)],
    /// A command that ends well in it only if it is whole.
    pub proof: &'static [&'static str],
}

/// Every runtime that can be made.
pub const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "debian-base",
        about: "a shell, curl and certificates: for functions that bring their own `bootstrap`",
        packages: &["ca-certificates", "curl", "jq"],
        wheels: &[],
        files: &[],
        proof: &["/usr/bin/curl", "--version"],
    },
    Recipe {
        name: "debian-python",
        about: "Python 3.11 with awslambdaric: handlers `module.function`",
        // The client of awslambdaric is C++.
        packages: &["ca-certificates", "libstdc++6", "python3"],
        wheels: &["awslambdaric==4.2.2", "simplejson==4.3.0", "snapshot-restore-py==1.0.0"],
        files: &[(
            "var/runtime/bootstrap",
            0o755,
            "#!/bin/sh\n# The function's own packages come first, as in Lambda.\n\
             export PYTHONPATH=\"${LAMBDA_TASK_ROOT:-/var/task}${PYTHONPATH:+:$PYTHONPATH}\"\n\
             exec /usr/bin/python3 -m awslambdaric \"$_HANDLER\"\n",
        )],
        proof: &["/usr/bin/python3", "-B", "-c", "import awslambdaric.bootstrap, runtime_client"],
    },
];

/// Documentation, translations and what only maintainers run: half of an installation, and never read in a sandbox.
pub const EXCLUDED: [&str; 7] = [
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
];

impl Recipe {
    /// The recipe with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        RECIPES.into_iter().find(|recipe| recipe.name == name)
    }

    /// The programs it takes.
    #[must_use]
    pub fn tools(&self) -> Vec<&'static str> {
        let mut tools = vec!["mmdebstrap", "mke2fs", "debugfs"];
        if !self.wheels.is_empty() {
            tools.push("pip3");
        }
        tools
    }

    /// A digest of everything it is made from but the archive's state: what is made of the same inputs is not made again.
    #[must_use]
    pub fn inputs(&self, mirror: Option<&str>, epoch: u64) -> String {
        let text = format!("{FORMAT} {SUITE} {mirror:?} {epoch} {EXCLUDED:?} {self:?}");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_tell_recipes_apart() {
        let all: Vec<_> = RECIPES
            .iter()
            .flat_map(|r| [r.inputs(None, 1), r.inputs(None, 2), r.inputs(Some("m"), 1)])
            .collect();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert_eq!(Recipe::named("debian-base").map(|recipe| recipe.tools().len()), Some(3));
        assert_eq!(Recipe::named("debian"), None);
    }
}
