//! The client's configuration file: where Warren is and how to prove who asks.

use crate::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::{
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// `client.toml`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `https://host:port`.
    pub endpoint: String,
    /// Bearer token.
    pub token: String,
    /// The certificate authority the endpoint must be certified by.
    pub ca_pem: String,
}

/// `~/.config/warren/client.toml`.
pub fn default_path() -> PathBuf {
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".config");
    base.unwrap_or_else(home).join("warren/client.toml")
}

impl Config {
    /// Reads it.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!(
                    "no configuration at {}; start Warren here with `warren up`, or copy the file of the machine \
                     it runs on (--config FILE or WARREN_CONFIG name another place)",
                    path.display()
                );
                return Err(Failure::Local { message, source: None });
            }
            Err(error) => return Err(Failure::io(format!("cannot read {}", path.display()), error)),
        };
        toml::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{} is damaged: {}", path.display(), error.message())))
    }

    /// Writes it whole or not at all, readable by its owner alone: it holds the token.
    pub fn save(&self, path: &Path) -> Outcome {
        let text =
            toml::to_string(self).map_err(|error| Failure::local(format!("configuration: {error}")))?;
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)
        };
        write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn survives_the_disk_and_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/client.toml");
        let config =
            Config { endpoint: "https://127.0.0.1:1".into(), token: "t".into(), ca_pem: "-----\nx\n".into() };
        config.save(&path).unwrap();
        let read = Config::load(&path).unwrap();
        assert_eq!((read.endpoint, read.token, read.ca_pem), (config.endpoint, config.token, config.ca_pem));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn absence_and_damage_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.toml");
        assert_eq!(Config::load(&path).err().map(|failure| failure.code()), Some(5));
        std::fs::write(&path, "endpoint = 3").unwrap();
        assert_eq!(Config::load(&path).err().map(|failure| failure.code()), Some(2));
    }
}
