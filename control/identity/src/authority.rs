//! The built-in certificate authority: makes itself, issues and reads role-bound certificates.

use crate::{HostId, IdentityError, Peer};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

/// How far back a certificate is valid, for peers whose clock is a little behind.
const CLOCK_SLACK: Duration = Duration::from_mins(5);
/// The CA outlives every machine it is used on; replacing it is an operator's decision.
const CA_LIFETIME: Duration = Duration::from_hours(24 * 365 * 10);

/// A certificate and its private key, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: Zeroizing<String>,
}

/// The CA, able to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new CA.
    pub(crate) fn create(now: SystemTime) -> Result<Issued, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = params("Warren CA", now, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Loads the CA from its two files' contents. Of several CAs the first one signs; the others are only trusted.
    pub(crate) fn load(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key)?;
        let its = first_pem(certificate).and_then(|der| public_key_of(&der));
        // What another key signed would be refused by everybody, and look here as if it were the CA's.
        if its.as_deref() != Some(key.public_key_raw()) {
            return Err(IdentityError::Sign);
        }
        Ok(Self { issuer: Issuer::from_ca_cert_pem(certificate, key)? })
    }

    /// Issues a certificate for one role.
    pub(crate) fn issue(
        &self,
        peer: &Peer,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = params(&peer.server_name(), now, lifetime)?;
        params.subject_alt_names = names(peer)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// What a certificate on disk says.
pub(crate) struct Description {
    pub(crate) peer: Peer,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    public_key: Vec<u8>,
    issuer_key_id: Vec<u8>,
}

impl Description {
    /// Whether this certificate belongs to this private key and was issued by this CA.
    pub(crate) fn belongs_to(&self, key_pem: &str, ca_pem: &str) -> bool {
        let same_key = KeyPair::from_pem(key_pem).is_ok_and(|key| key.public_key_raw() == self.public_key);
        same_key && first_pem(ca_pem).is_some_and(|der| self.names(&der))
    }

    /// Whether it names one of these CAs as the one that signed it.
    pub(crate) fn is_of(&self, ca_pem: &str) -> bool {
        let cas = crate::material::certificates(ca_pem).unwrap_or_default();
        cas.iter().any(|ca| self.names(ca))
    }

    /// Whether it names this CA (DER).
    fn names(&self, ca: &[u8]) -> bool {
        let Ok((_, ca)) = x509_parser::certificate::X509Certificate::from_der(ca) else { return false };
        key_id(&ca).is_some_and(|id| id == self.issuer_key_id)
    }
}

/// Reads a role-bound certificate; `None` if it is none.
pub(crate) fn describe(pem: &str) -> Option<Description> {
    let der = first_pem(pem)?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).ok()?;
    let (not_before, not_after) = validity(&certificate)?;
    let issuer_key_id = certificate.extensions().iter().find_map(|extension| {
        use x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier;
        match extension.parsed_extension() {
            AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        }
    })?;
    Some(Description {
        peer: peer_of(&der)?,
        not_before,
        not_after,
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        issuer_key_id,
    })
}

/// The role of a certificate (DER). The chain is the TLS layer's to verify; this only reads the name.
///
/// Exactly one URI name is accepted: two would leave it to the reader which one counts.
pub(crate) fn peer_of(der: &[u8]) -> Option<Peer> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let peer = Peer::from_uri(uris.next()?)?;
    uris.next().is_none().then_some(peer)
}

/// The bits of a certificate's (DER) public key.
pub(crate) fn public_key_of(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    Some(certificate.public_key().subject_public_key.data.to_vec())
}

/// A certificate's (DER) serial number, hexadecimal.
pub(crate) fn serial_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    Some(certificate.raw_serial_as_string().replace(':', ""))
}

/// From when to when a certificate (DER) is valid.
pub(crate) fn validity_of(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    validity(&certificate)
}

fn validity(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<(SystemTime, SystemTime)> {
    let moment = |at: i64| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(at).ok()?));
    let validity = certificate.validity();
    Some((moment(validity.not_before.timestamp())?, moment(validity.not_after.timestamp())?))
}

fn first_pem(pem: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.contents)
}

fn key_id(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn params(
    common_name: &str,
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = now.checked_sub(CLOCK_SLACK).unwrap_or(UNIX_EPOCH).into();
    params.not_after = now.checked_add(lifetime).unwrap_or(now).into();
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(IdentityError::Random)?;
    // RFC 5280, 4.1.2.2: positive, at most 20 octets.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// Only control answers to the machine's own names as well: people and foreign tools reach it by those.
fn names(peer: &Peer) -> Result<Vec<SanType>, IdentityError> {
    let mut names =
        vec![SanType::URI(peer.uri().as_str().try_into()?), SanType::DnsName(peer.server_name().try_into()?)];
    if matches!(peer, Peer::Control) {
        names.push(SanType::DnsName("localhost".try_into()?));
        names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    Ok(names)
}

impl Description {
    /// The host it names, if it is a worker's.
    pub(crate) fn host(&self) -> Option<&HostId> {
        match &self.peer {
            Peer::Worker(host) => Some(host),
            Peer::Control => None,
        }
    }
}
