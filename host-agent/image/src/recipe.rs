//! What each runtime is made of: a table.

/// The Debian release everything is from.
pub const SUITE: &str = "bookworm";
/// The time every file is from when `SOURCE_DATE_EPOCH` names no other: 14 November 2023, 22:13:20 UTC.
pub const EPOCH: u64 = 1_700_000_000;
/// Raised when the way of making changes what is made.
const FORMAT: u32 = 3;

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
    /// A package of the npm registry that compiles code of its own.
    pub addon: Option<Addon>,
    /// Files of our own: path, permissions, text.
    pub files: &'static [(&'static str, u32, &'static str)],
    /// A command that ends well in it only if it is whole.
    pub proof: &'static [&'static str],
}

/// A package of the npm registry with native code, and what it takes to compile that: all of it in a tree of its own, of
/// which only `keep` comes into the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addon {
    /// The package itself first, then those that its code is compiled against.
    pub packages: &'static [Package],
    /// Debian packages of the tree in which it is compiled.
    pub tools: &'static [&'static str],
    /// Sources of our own beside its, in the package's folder: name and text.
    pub sources: &'static [(&'static str, &'static str)],
    /// What compiles it, as a shell runs it in the package's folder, without network or privilege.
    pub script: &'static str,
    /// What of the package's folder is run later, or must stay with it.
    pub keep: &'static [&'static str],
}

/// One archive of the npm registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// blake3 of the archive, hex.
    pub digest: &'static str,
}

/// Every runtime that can be made.
pub const RECIPES: [Recipe; 3] = [
    Recipe {
        name: "debian-base",
        about: "a shell, curl and certificates: for functions that bring their own `bootstrap`",
        packages: &["ca-certificates", "curl", "jq"],
        wheels: &[],
        addon: None,
        files: &[],
        proof: &["/usr/bin/curl", "--version"],
    },
    Recipe {
        name: "debian-python",
        about: "Python 3.11 with awslambdaric: handlers `module.function`",
        // The client of awslambdaric is C++.
        packages: &["ca-certificates", "libstdc++6", "python3"],
        wheels: &["awslambdaric==4.2.2", "simplejson==4.3.0", "snapshot-restore-py==1.0.0"],
        addon: None,
        files: &[
            (
                "var/runtime/bootstrap",
                0o755,
                "#!/bin/sh\n# The function's own packages come first, as in Lambda.\n\
             export PYTHONPATH=\"${LAMBDA_TASK_ROOT:-/var/task}${PYTHONPATH:+:$PYTHONPATH}\"\n\
             exec /usr/bin/python3 /var/runtime/main.py \"$_HANDLER\"\n",
            ),
            ("var/runtime/main.py", 0o644, include_str!("../runtimes/python.py")),
        ],
        proof: &["/usr/bin/python3", "-B", "-c", "import awslambdaric.bootstrap, runtime_client"],
    },
    Recipe {
        name: "debian-node",
        about: "Node.js 18 with aws-lambda-ric: handlers `module.function`",
        packages: &["ca-certificates", "nodejs"],
        wheels: &[],
        addon: Some(RIC),
        files: &[
            (
                "var/runtime/bootstrap",
                0o755,
                "#!/bin/sh\n# What a caller says of itself comes in a header, and may be longer than Node's usual limit.\n\
             exec /usr/bin/node --max-http-header-size=81920 --require /var/runtime/main.cjs \\\n    \
             /var/runtime/node_modules/aws-lambda-ric/bin/index.mjs \"$_HANDLER\"\n",
            ),
            ("var/runtime/main.cjs", 0o644, include_str!("../runtimes/node.cjs")),
        ],
        proof: &[
            "/usr/bin/node",
            "-e",
            "process.env.AWS_LAMBDA_RUNTIME_API = '-'; \
             require('/var/runtime/node_modules/aws-lambda-ric/dist/rapid-client.node').next.call; \
             require('/var/runtime/node_modules/aws-lambda-ric/dist/renew.node')()",
        ],
    },
];

/// As its own install scripts have it; Debian's node-gyp and headers in place of those it would fetch.
const RIC: Addon = Addon {
    packages: &[
        Package {
            name: "aws-lambda-ric",
            version: "3.3.0",
            digest: "4a08fce16e99572b14e1f66ae859171610dd6ee05223a7b98dc77d8f9e58882a",
        },
        Package {
            name: "node-addon-api",
            version: "6.1.0",
            digest: "22a549f436f52799a490cd44c4e8de3fd973b3836c6121ca07e0552c404dbd8c",
        },
    ],
    tools: &["autoconf", "automake", "cmake", "g++", "libtool", "make", "node-gyp"],
    sources: &[("renew.c", include_str!("../runtimes/renew.c"))],
    script: "sh scripts/preinstall.sh\nnode-gyp rebuild --nodedir=/usr\ncp build/Release/rapid-client.node dist/\n\
             cc -O2 -shared -fPIC -o dist/renew.node renew.c\n",
    keep: &["bin", "dist", "package.json", "LICENSE", "NOTICE", "THIRD-PARTY-LICENSES"],
};

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
        if self.addon.is_some() {
            tools.extend(["npm", "tar", "unshare"]);
        }
        tools
    }

    /// Packages of other registries in it, `name version`.
    #[must_use]
    pub fn extra(&self) -> Vec<String> {
        let wheels = self.wheels.iter().map(|wheel| wheel.replace("==", " "));
        // The others are only compiled against.
        let addon = self.addon.and_then(|addon| addon.packages.first().copied());
        wheels.chain(addon.map(|package| format!("{} {}", package.name, package.version))).collect()
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
