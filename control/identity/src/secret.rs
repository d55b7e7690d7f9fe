//! The fleet's secret: 32 bytes that every worker has and nobody else, from which the keys of what workers share are derived.
//!
//! It lies beside the agent's certificate and goes to a new worker with it. Who has it can open what the fleet's origin keeps; who
//! has only the origin cannot.

use crate::{
    IdentityError,
    files::{self, FLEET_KEY},
};
use rustix::fs::OFlags;
use std::{
    fmt,
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};
use zeroize::Zeroizing;

/// Hex digits of the secret.
const DIGITS: usize = 64;

/// The secret of a fleet. Overwritten when it is dropped, and never printed.
#[derive(Clone)]
pub struct FleetSecret(Zeroizing<[u8; 32]>);

impl FleetSecret {
    /// Reads the secret of an identity directory. One that others may read, or that is somebody else's, may have leaked: it is refused.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FLEET_KEY);
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let file = opened.map_err(|source| files::fault(&path, source))?;
        let facts = file.metadata().map_err(|source| files::fault(&path, source))?;
        let (mode, owner) = (facts.permissions().mode() & 0o777, facts.uid());
        if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
            return Err(IdentityError::Exposed { path, mode, owner });
        }
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + 2));
        let read = file.take(DIGITS as u64 + 2).read_to_string(&mut text);
        read.map_err(|source| files::fault(&path, source))?;
        Self::parse(&text).ok_or(IdentityError::Damaged { path, what: "not 64 hex digits" })
    }

    /// A key for one purpose (`context`, an application's constant) of one owner.
    #[must_use]
    pub fn derive(&self, context: &str, owner: &str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.0.as_ref()).update(owner.as_bytes());
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// One that nobody has had.
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut()).map_err(IdentityError::Random)?;
        Ok(Self(secret))
    }

    /// As it is written into its file.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}\n", blake3::Hash::from_bytes(*self.0).to_hex()))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hash = blake3::Hash::from_hex(text.trim_end_matches('\n')).ok()?;
        Some(Self(Zeroizing::new(*hash.as_bytes())))
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostId, ensure_local_at};
    use std::{fs, time::SystemTime};

    fn made() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        ensure_local_at(dir.path(), Some(HostId::from_any("h1")), SystemTime::now()).unwrap();
        dir
    }

    #[test]
    fn owners_and_purposes_have_keys_of_their_own() {
        let dir = made();
        let (secret, again) =
            (FleetSecret::load(dir.path()).unwrap(), FleetSecret::load(dir.path()).unwrap());
        assert_eq!(secret.derive("a", "x"), again.derive("a", "x"));
        assert_ne!(secret.derive("a", "x"), secret.derive("a", "y"));
        assert_ne!(secret.derive("a", "x"), secret.derive("b", "x"));
        assert_ne!(secret.derive("a", "x"), FleetSecret::load(made().path()).unwrap().derive("a", "x"));
        assert_eq!(format!("{secret:?}"), "FleetSecret(..)");
    }

    #[test]
    fn exposed_linked_and_damaged_ones_are_refused() {
        let dir = made();
        let path = dir.path().join(FLEET_KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(FleetSecret::load(dir.path()), Err(IdentityError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [&text[..63], &text.replace(&text[..1], "g"), &format!("{text}0"), ""] {
            fs::write(&path, damaged).unwrap();
            assert!(
                matches!(FleetSecret::load(dir.path()), Err(IdentityError::Damaged { .. })),
                "{damaged:?}"
            );
        }
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(FleetSecret::load(dir.path()), Err(IdentityError::File { .. })));
    }
}
