//! Client tokens: 32 random bytes as hex. The control side keeps only hashes.

use crate::IdentityError;
use std::{fmt, fmt::Write, sync::Arc};
use zeroize::Zeroizing;

const TOKEN_BYTES: usize = 32;

/// A bearer token. Never printed by `Debug`.
#[derive(Clone)]
pub struct ClientToken(Zeroizing<String>);

impl ClientToken {
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(IdentityError::Random)?;
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_BYTES * 2));
        for byte in bytes.iter() {
            let _infallible = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = text.len() == TOKEN_BYTES * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself, for the client's configuration file or an `authorization: Bearer` header.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(..)")
    }
}

/// The tokens that are good: a file of lines `<name> <blake3 of the token, hex>`.
#[derive(Clone, Debug, Default)]
pub struct TokenHashes {
    known: Vec<(Arc<str>, blake3::Hash)>,
}

impl TokenHashes {
    /// Reads the file's text; lines that are none are skipped, for they can let nobody in.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let known = text.lines().filter_map(|line| {
            let (name, hash) = line.trim().split_once(' ')?;
            Some((Arc::from(name), blake3::Hash::from_hex(hash.trim()).ok()?))
        });
        Self { known: known.collect() }
    }

    pub(crate) fn with_line(text: &str, name: &str, token: &ClientToken) -> String {
        let mut kept = String::new();
        for line in text.lines().filter(|line| !line.starts_with(&format!("{name} "))) {
            kept.push_str(line);
            kept.push('\n');
        }
        format!("{kept}{name} {}\n", blake3::hash(token.reveal().as_bytes()).to_hex())
    }

    /// Whose token this is. Compares hashes in constant time and always all of them.
    #[must_use]
    pub fn name_of(&self, token: &str) -> Option<Arc<str>> {
        // Longer text is no token; the bound keeps a hostile header from buying hashing time.
        if token.len() != TOKEN_BYTES * 2 {
            return None;
        }
        let hash = blake3::hash(token.as_bytes());
        // `blake3::Hash` compares in constant time.
        self.known
            .iter()
            .fold(None, |found, (name, known)| if *known == hash { Some(name) } else { found })
            .cloned()
    }

    /// Whether this token is good.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        self.name_of(token).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_is_known() {
        let (right, wrong) = (ClientToken::generate().unwrap(), ClientToken::generate().unwrap());
        let hashes = TokenHashes::parse(&TokenHashes::with_line("", "admin", &right));
        assert_eq!(hashes.name_of(right.reveal()).as_deref(), Some("admin"));
        for bad in [wrong.reveal(), "", "x", &right.reveal()[1..], &format!("{}0", right.reveal())] {
            assert!(!hashes.contains(bad), "{bad}");
        }
        assert!(!TokenHashes::default().contains(right.reveal()));
    }

    #[test]
    fn a_new_token_of_a_name_replaces_the_old() {
        let (old, new) = (ClientToken::generate().unwrap(), ClientToken::generate().unwrap());
        let text = TokenHashes::with_line(&TokenHashes::with_line("", "admin", &old), "admin", &new);
        let hashes = TokenHashes::parse(&text);
        assert!(hashes.contains(new.reveal()) && !hashes.contains(old.reveal()));
    }

    #[test]
    fn the_file_and_debug_never_hold_the_token() {
        let token = ClientToken::generate().unwrap();
        assert!(!TokenHashes::with_line("", "admin", &token).contains(token.reveal()));
        assert!(!format!("{token:?}").contains(token.reveal()));
    }
}
