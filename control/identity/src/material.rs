//! Certificate, key and CA of one service: read together, judged together, used together.
//!
//! ```text
//!  files ── read (modes held against the rule) ──▶ as read ── judge (pure) ──▶ Material ── settings ──▶ connections
//!                                                     │
//!                                                     ╰─▶ Unfit: what is wrong with them first
//! ```

use crate::{
    IdentityError, Peer, Service,
    authority::{peer_of, serial_of, validity_of},
    files::{self, CA_PEM},
};
use rustls::{
    CertificateError, ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Most CAs that one file names: a fleet has one, and two while it goes over to another.
const MAX_CAS: usize = 8;

/// Why certificate files are of no use, whoever wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The CA file holds no certificate, or something else as well.
    #[error("the CA file is not certificates of one to {MAX_CAS} CAs")]
    NoCa,
    /// The certificate file holds none.
    #[error("the certificate file holds no certificate, or is cut short")]
    NoCertificate,
    /// The key file holds none.
    #[error("the key file holds no private key, or is cut short")]
    NoKey,
    /// They are of different pairs.
    #[error("the key is not the certificate's")]
    OtherKey,
    /// No CA of the CA file signed the certificate for what it is used for.
    #[error("the certificate is not one of the CA's: {0}")]
    Stranger(String),
    /// It is over, or not yet begun.
    #[error("the certificate is not valid now")]
    NotNow,
    /// It names somebody else.
    #[error("the certificate is of {found}, and not of {wanted}")]
    OtherRole {
        /// Whom it names.
        found: String,
        /// Whom it should.
        wanted: String,
    },
    /// None of the CAs is one that was trusted so far.
    #[error("no CA of the CA file was trusted before: going over to another takes a file with both")]
    OtherFleet,
}

/// The files as they are on the disk.
pub(crate) struct AsRead {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: Zeroizing<String>,
}

impl AsRead {
    /// The files of a service. The key's mode and owner must be what they should.
    pub(crate) fn read(dir: &Path, service: Service) -> Result<Self, IdentityError> {
        Ok(Self {
            ca: files::demand(dir, CA_PEM)?,
            certificate: files::demand(dir, &format!("{}.pem", service.stem()))?,
            key: files::demand_secret(dir, &format!("{}.key", service.stem()))?,
        })
    }
}

/// What was judged good. Holding one proves that certificate, key and CA belong together; not that it is still in time.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) peer: Peer,
    /// The certificate's, hexadecimal.
    pub(crate) serial: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// DER, as they are in the file: the first one signs what is made here, all are trusted.
    pub(crate) cas: Vec<CertificateDer<'static>>,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
}

impl Material {
    /// Judges what was read; pure. Times are the next step's ([`Material::in_time`]).
    pub(crate) fn judge(read: &AsRead, service: Service) -> Result<Self, Unfit> {
        let cas = certificates(&read.ca).filter(|cas| cas.len() <= MAX_CAS).ok_or(Unfit::NoCa)?;
        let mut roots = RootCertStore::empty();
        for ca in &cas {
            roots.add(ca.clone()).map_err(|_| Unfit::NoCa)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&read.certificate).ok_or(Unfit::NoCertificate)?;
        let first = chain.first().ok_or(Unfit::NoCertificate)?;
        let (not_before, not_after) = validity_of(first).ok_or(Unfit::NoCertificate)?;
        let serial = serial_of(first).ok_or(Unfit::NoCertificate)?;
        let found = peer_of(first);
        let peer = match (service, found) {
            (Service::Control, Some(Peer::Control)) => Peer::Control,
            (Service::Agent, Some(Peer::Worker(host))) => Peer::Worker(host),
            (_, found) => {
                let wanted = if service == Service::Control { "control" } else { "a worker" };
                return Err(other_role(found.as_ref(), wanted.to_owned()));
            }
        };
        check_chain(&roots, &chain, &peer, middle(not_before, not_after))?;
        let key = PrivateKeyDer::from_pem_slice(read.key.as_bytes()).map_err(|_| Unfit::NoKey)?;
        let provider = crate::tls::provider();
        let signing = provider.key_provider.load_private_key(key).map_err(|_| Unfit::NoKey)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| Unfit::OtherKey)?;
        Ok(Self { peer, serial, not_before, not_after, cas, certified: Arc::new(certified), roots })
    }

    /// Whether it may take the place of what is in use.
    pub(crate) fn may_follow(&self, used: &Self) -> Result<(), Unfit> {
        if self.peer != used.peer {
            return Err(other_role(Some(&self.peer), used.peer.uri()));
        }
        if !self.cas.iter().any(|ca| used.cas.contains(ca)) {
            return Err(Unfit::OtherFleet);
        }
        Ok(())
    }

    /// Whether it is valid at that time.
    pub(crate) fn in_time(&self, now: SystemTime) -> Result<(), Unfit> {
        if (self.not_before..=self.not_after).contains(&now) { Ok(()) } else { Err(Unfit::NotNow) }
    }

    /// How its owner listens: demands a certificate of every peer, or (control) lets clients come with a token instead.
    pub(crate) fn server(&self, service: Service) -> Result<ServerConfig, rustls::Error> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), crate::tls::provider());
        let clients =
            if service == Service::Control { clients.allow_unauthenticated() } else { clients }.build();
        let clients = clients.map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(crate::tls::VERSIONS)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&self.certified))));
        config.alpn_protocols = vec![crate::tls::ALPN.to_vec()];
        Ok(config)
    }

    /// How its owner connects.
    pub(crate) fn client(&self) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(crate::tls::VERSIONS)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![crate::tls::ALPN.to_vec()];
        Ok(config)
    }

    /// The certificate itself, DER, and the key that signs for it.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// All certificates of a PEM text; `None` if there is none, or one does not read.
pub(crate) fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// Both ways in which peers will look at it: as a server's of that name, and as a client's.
fn check_chain(
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'_>],
    peer: &Peer,
    at: UnixTime,
) -> Result<(), Unfit> {
    let stranger = |error: rustls::Error| match error {
        // Our CAs have all the same name: another fleet's shows by its signature.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Unfit::Stranger("none of them signed it".into()),
        error => Unfit::Stranger(error.to_string()),
    };
    let unusable = |error: rustls::server::VerifierBuilderError| Unfit::Stranger(error.to_string());
    let (first, between) = chain.split_first().ok_or(Unfit::NoCertificate)?;
    let name = ServerName::try_from(peer.server_name()).map_err(|_| Unfit::NoCertificate)?;
    let provider = crate::tls::provider;
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(unusable)?
        .verify_server_cert(first, between, &name, &[], at)
        .map_err(stranger)?;
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(unusable)?
        .verify_client_cert(first, between, at)
        .map_err(stranger)?;
    Ok(())
}

/// A moment at which it is valid, if it ever is.
fn middle(not_before: SystemTime, not_after: SystemTime) -> UnixTime {
    let half = not_after.duration_since(not_before).unwrap_or_default() / 2;
    let begin = not_before.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime::since_unix_epoch(begin + half)
}

fn other_role(found: Option<&Peer>, wanted: String) -> Unfit {
    let found = found.map_or_else(|| "nobody of a fleet".into(), Peer::uri);
    Unfit::OtherRole { found, wanted }
}

#[cfg(test)]
mod tests;
