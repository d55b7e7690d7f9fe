//! Statements: bytes that a worker signed with the key of its certificate, for whoever knows the fleet's CA.
//!
//! ```text
//! 0   b"WRNSAID" version:u8
//! 8   u64 LE: when it was said, seconds since 1970
//! 16  u32 LE: generation
//! 20  u32 LE: bytes of the certificate
//! 24  u32 LE: bytes of the body
//! 28  u16 LE: TLS signature scheme
//! 30  certificate (DER), body
//!     signature, to the end: over a prefix that says what for, and everything before it
//!
//! verify: form ─▶ a CA in its time ─▶ not from the future ─▶ chain, at the time it was said ─▶ a worker's ─▶ signature ─▶ generation
//! ```
//! The body is shown to nobody before all of that holds. When it was said is the signer's word: a key that leaked can say a time at
//! which its certificate was valid for as long as the CA is. A generation ends what was said before it.

use crate::{
    HostId, IdentityError, Peer, Service,
    authority::{peer_of, public_key_of, validity_of},
    files::{self, CA_PEM},
    material::{AsRead, Material, Unfit, certificates},
};
use rustls::{
    CertificateError, RootCertStore, SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const MAGIC: [u8; 8] = *b"WRNSAID\x01";
const HEAD: usize = 30;
/// Most bytes of a certificate.
const MAX_CERTIFICATE_BYTES: usize = 8 << 10;
/// Most bytes of a signature.
const MAX_SIGNATURE_BYTES: usize = 512;
/// How far the clocks of two workers may be apart.
const CLOCK_SLACK: Duration = Duration::from_mins(5);
/// What is signed with, and believed.
const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];

/// Most bytes that a statement has beside its body.
pub const STATEMENT_OVERHEAD: usize = HEAD + MAX_CERTIFICATE_BYTES + MAX_SIGNATURE_BYTES;

/// Signs what a worker says.
pub struct StatementSigner {
    certified: Arc<CertifiedKey>,
}

/// Judges what workers say.
pub struct StatementVerifier {
    cas: Vec<Ca>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// One CA that is believed, for as long as it is valid itself.
struct Ca {
    chain: Arc<dyn ClientCertVerifier>,
    until: SystemTime,
}

/// What a worker of the fleet said. Holding one proves that its key signed the body for the purpose that was asked for; it does not
/// prove the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Who.
    pub host: HostId,
    /// When, by its own clock.
    pub said: SystemTime,
    /// Of which generation.
    pub generation: u32,
    /// What.
    pub body: &'a [u8],
}

/// Why a statement is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StatementError {
    /// It does not have the form: damaged, cut short, or of another version.
    #[error("it is no signed statement: {0}")]
    Malformed(&'static str),
    /// The fleet's CA itself has run out: nothing can be judged until an operator replaces it.
    #[error("the fleet's CA has expired")]
    CaExpired,
    /// It says that it was made later than now.
    #[error("it says that it is from the future")]
    Future,
    /// The certificate was not valid when it was said.
    #[error("its signer's certificate was not valid at the time")]
    NotThen,
    /// The certificate is not one of this fleet's CA.
    #[error("its signer is not of this fleet")]
    Stranger(#[source] rustls::Error),
    /// It is, and not a worker's.
    #[error("its signer is no worker")]
    NotAWorker,
    /// The signature is not one of that key over this.
    #[error("it is not what was signed")]
    Altered,
    /// Everything said before a later generation was taken back.
    #[error("it is of generation {found}, which was revoked: {least} is the least that is believed")]
    Revoked {
        /// Of which it is.
        found: u32,
        /// The first that is believed.
        least: u32,
    },
}

impl StatementSigner {
    /// With the certificate and key of a service in `dir`.
    pub fn load(dir: &Path, service: Service) -> Result<Self, IdentityError> {
        let unfit = |why| IdentityError::Unfit { dir: dir.to_owned(), service, why };
        let material = Material::judge(&AsRead::read(dir, service)?, service).map_err(unfit)?;
        Self::of(&material).map_err(unfit)
    }

    pub(crate) fn of(material: &Material) -> Result<Self, Unfit> {
        let certified = Arc::clone(material.certified());
        // Of P-256 or Ed25519: another one cannot sign what is believed.
        let usable = !certified.cert.is_empty() && certified.key.choose_scheme(&SCHEMES).is_some();
        if usable { Ok(Self { certified }) } else { Err(Unfit::NoKey) }
    }

    /// Signs a body for a purpose.
    pub fn sign(
        &self,
        purpose: &str,
        said: SystemTime,
        generation: u32,
        body: &[u8],
    ) -> Result<Vec<u8>, IdentityError> {
        let signer = self.certified.key.choose_scheme(&SCHEMES).ok_or(IdentityError::Sign)?;
        let certificate = self.certified.cert.first().ok_or(IdentityError::Sign)?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| IdentityError::Sign);
        let seconds = said.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut out = MAGIC.to_vec();
        out.extend(seconds.to_le_bytes());
        out.extend(generation.to_le_bytes());
        out.extend(length(certificate)?.to_le_bytes());
        out.extend(length(body)?.to_le_bytes());
        out.extend(u16::from(signer.scheme()).to_le_bytes());
        out.extend_from_slice(certificate);
        out.extend_from_slice(body);
        let signature = signer.sign(&signed(purpose, &out)).map_err(|_| IdentityError::Sign)?;
        out.extend(signature);
        Ok(out)
    }
}

impl StatementVerifier {
    /// That believes workers of the CAs in `dir`.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(CA_PEM);
        let found = certificates(&files::demand(dir, CA_PEM)?);
        found.and_then(|cas| Self::of(&cas)).ok_or(IdentityError::Damaged { path, what: "not a certificate" })
    }

    /// `None` if one of them is no CA.
    pub(crate) fn of(cas: &[CertificateDer<'static>]) -> Option<Self> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let ca = |ca: &CertificateDer<'static>| {
            let (_, until) = validity_of(ca)?;
            let mut roots = RootCertStore::empty();
            roots.add(ca.clone()).ok()?;
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(Ca { chain: chain.build().ok()?, until })
        };
        Some(Self { cas: cas.iter().map(ca).collect::<Option<_>>()?, algorithms })
    }

    /// Judges a statement for a purpose, of a generation or a later one. What is wrong with it first is what is told.
    pub fn verify<'a>(
        &self,
        purpose: &str,
        bytes: &'a [u8],
        now: SystemTime,
        least: u32,
    ) -> Result<Statement<'a>, StatementError> {
        let Parts { seconds, generation, scheme, certificate, body, covered, signature } = split(bytes)?;
        let valid = || self.cas.iter().filter(|ca| now <= ca.until);
        if valid().next().is_none() {
            return Err(StatementError::CaExpired);
        }
        let since = Duration::from_secs(seconds);
        let said = UNIX_EPOCH.checked_add(since).ok_or(StatementError::Future)?;
        if said.duration_since(now).is_ok_and(|ahead| ahead > CLOCK_SLACK) {
            return Err(StatementError::Future);
        }
        let certificate = CertificateDer::from(certificate);
        let at = UnixTime::since_unix_epoch(since);
        let mut judged = Err(StatementError::CaExpired);
        for ca in valid() {
            let said = ca.chain.verify_client_cert(&certificate, &[], at).map(drop).map_err(not_believed);
            // Of the CA that signed it, it is told what is wrong in particular.
            if judged.is_err() && !matches!((&judged, &said), (Err(StatementError::NotThen), Err(_))) {
                judged = said;
            }
        }
        judged?;
        let Some(Peer::Worker(host)) = peer_of(&certificate) else { return Err(StatementError::NotAWorker) };
        let public = public_key_of(&certificate).ok_or(StatementError::NotAWorker)?;
        let message = signed(purpose, covered);
        let known = SCHEMES.contains(&scheme);
        let algorithms = self.algorithms.mapping.iter().filter(|(name, _)| known && *name == scheme);
        let good = algorithms
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| algorithm.verify_signature(&public, &message, signature).is_ok());
        if !good {
            return Err(StatementError::Altered);
        }
        if generation < least {
            return Err(StatementError::Revoked { found: generation, least });
        }
        Ok(Statement { host, said, generation, body })
    }
}

fn not_believed(error: rustls::Error) -> StatementError {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => StatementError::NotThen,
        error => StatementError::Stranger(error),
    }
}

struct Parts<'a> {
    seconds: u64,
    generation: u32,
    scheme: SignatureScheme,
    certificate: &'a [u8],
    body: &'a [u8],
    covered: &'a [u8],
    signature: &'a [u8],
}

fn split(bytes: &[u8]) -> Result<Parts<'_>, StatementError> {
    let short = StatementError::Malformed("cut short");
    let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(short.clone())?;
    let (magic, numbers) = head.split_first_chunk::<8>().ok_or(short.clone())?;
    if *magic != MAGIC {
        return Err(StatementError::Malformed("unknown beginning"));
    }
    let (seconds, numbers) = numbers.split_first_chunk::<8>().ok_or(short.clone())?;
    let (words, scheme) = numbers.as_chunks::<4>();
    let (&[generation, certificate_len, body_len], &[s0, s1]) = (words, scheme) else { return Err(short) };
    let certificate_len = u32::from_le_bytes(certificate_len) as usize;
    if certificate_len > MAX_CERTIFICATE_BYTES {
        return Err(StatementError::Malformed("a certificate longer than any"));
    }
    let (certificate, rest) = rest.split_at_checked(certificate_len).ok_or(short.clone())?;
    let (body, signature) =
        rest.split_at_checked(u32::from_le_bytes(body_len) as usize).ok_or(short.clone())?;
    if signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
        return Err(StatementError::Malformed("a signature of no length"));
    }
    let covered = bytes.get(..bytes.len() - signature.len()).ok_or(short)?;
    Ok(Parts {
        seconds: u64::from_le_bytes(*seconds),
        generation: u32::from_le_bytes(generation),
        scheme: u16::from_le_bytes([s0, s1]).into(),
        certificate,
        body,
        covered,
        signature,
    })
}

/// What a signature is over: nothing else that this key signs begins so.
fn signed(purpose: &str, covered: &[u8]) -> Vec<u8> {
    let mut message = b"warren statement 1\0".to_vec();
    message.extend((purpose.len() as u64).to_le_bytes());
    message.extend(purpose.as_bytes());
    message.extend(covered);
    message
}

impl fmt::Debug for StatementSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementSigner").finish_non_exhaustive()
    }
}

impl fmt::Debug for StatementVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementVerifier").field("cas", &self.cas.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
