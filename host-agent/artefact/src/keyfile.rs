//! The builder's key on disk: 32 secret bytes in a file only its owner can read, made on first use.

use crate::signing::SigningKey;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why there is no usable key. The host or its operator is at fault, never a function.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can be neither read nor made.
    #[error("cannot {action} the builder key {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others may read it, or it belongs to somebody else: it may have leaked. Remove it; a new one is made.
    #[error("builder key {path} has mode {mode:o} and owner {owner}: it must be 0600 and ours; remove it to get a new one", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It is not 32 bytes long.
    #[error("builder key {path} is not 32 bytes: remove it to get a new one", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl SigningKey {
    /// Reads the key at `path`, or makes one there. Two processes that make it at once end up with the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match load(path)? {
            Some(key) => Ok(key),
            None => create(path),
        }
    }
}

fn load(path: &Path) -> Result<Option<SigningKey>, KeyFileError> {
    let io = |source| KeyFileError::Io { action: "read", path: path.to_owned(), source };
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let facts = file.metadata().map_err(io)?;
    let (mode, owner) = (facts.permissions().mode() & 0o777, facts.uid());
    if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode, owner });
    }
    if facts.len() != 32 {
        return Err(KeyFileError::Malformed { path: path.to_owned() });
    }
    let mut secret = Zeroizing::new([0; 32]);
    file.read_exact(secret.as_mut()).map_err(io)?;
    Ok(Some(SigningKey::from_secret(&secret)))
}

/// Writes a whole key under another name first and links it into place: `path` never holds half a key, and the first
/// of two makers wins.
fn create(path: &Path) -> Result<SigningKey, KeyFileError> {
    let io = |source| KeyFileError::Io { action: "make", path: path.to_owned(), source };
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut()).map_err(|error| io(error.into()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(io)?;
    let temporary = directory.join(format!(".builder-key-{}-{}", std::process::id(), crate::store::unique()));
    let outcome = write_new(&temporary, secret.as_ref()).and_then(|()| std::fs::hard_link(&temporary, path));
    let removed = std::fs::remove_file(&temporary);
    match outcome {
        Ok(()) => {
            removed.and_then(|()| File::open(directory)?.sync_all()).map_err(io)?;
            Ok(SigningKey::from_secret(&secret))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path)?.ok_or_else(|| io(error)),
        Err(error) => Err(io(error)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn first_use_makes_it_later_uses_find_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/on/the/way/builder.key");
        let first = SigningKey::load_or_create(&path).unwrap().verifying_key();
        let facts = std::fs::metadata(&path).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600);
        assert_eq!(facts.nlink(), 1, "the temporary name is gone");
        assert_eq!(SigningKey::load_or_create(&path).unwrap().verifying_key(), first);
    }

    #[test]
    fn many_makers_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("builder.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| SigningKey::load_or_create(&path).unwrap().verifying_key()))
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn exposed_short_and_linked_keys_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("builder.key");
        SigningKey::load_or_create(&path).unwrap();

        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::load_or_create(&path), Err(KeyFileError::Exposed { mode: 0o640, .. })));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(SigningKey::load_or_create(&link), Err(KeyFileError::Io { action: "read", .. })));

        std::fs::write(&path, [1; 31]).unwrap();
        assert!(matches!(SigningKey::load_or_create(&path), Err(KeyFileError::Malformed { .. })));
    }
}
