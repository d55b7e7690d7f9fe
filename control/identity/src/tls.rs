//! TLS 1.3 and nothing else, and settings for programs that end before their certificate does. Services have
//! [`Credentials`](crate::Credentials) instead.

use crate::{
    HostId, IdentityError, Peer, Service,
    authority::describe,
    files::{self, CA_PEM},
};
use rustls::{ProtocolVersion, SupportedProtocolVersion, crypto::CryptoProvider};
use std::{path::Path, sync::Arc, time::Duration};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// A peer that dawdles longer over its handshake is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Makes TLS 1.3 the only version this process speaks. Call once at start; the helpers below do it too.
///
/// tonic offers no setting for it and compiles 1.2 in; a process-wide provider that has only 1.3's cipher suites
/// leaves 1.2 nothing to agree on.
pub fn use_tls13_only() {
    // An error means that a provider is installed already, by an earlier call.
    let _already = modern().install_default();
}

/// The versions that connections of ours may have.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// HTTP/2, and nothing else.
pub(crate) const ALPN: &[u8] = b"h2";

/// The cryptography of our own connections.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(modern())
}

fn modern() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
    provider
}

/// How a service listens. Agents demand a certificate of every peer; control lets clients come with a token instead.
pub fn server_tls(dir: &Path, service: Service) -> Result<ServerTlsConfig, IdentityError> {
    use_tls13_only();
    Ok(ServerTlsConfig::new()
        .identity(identity(dir, service)?)
        .client_ca_root(Certificate::from_pem(files::demand(dir, CA_PEM)?))
        .client_auth_optional(matches!(service, Service::Control))
        .timeout(HANDSHAKE_TIME))
}

/// How `service` connects to `peer`: shows its certificate, and accepts only one of that very role.
pub fn client_tls(dir: &Path, service: Service, peer: &Peer) -> Result<ClientTlsConfig, IdentityError> {
    use_tls13_only();
    Ok(ClientTlsConfig::new()
        .identity(identity(dir, service)?)
        .ca_certificate(Certificate::from_pem(files::demand(dir, CA_PEM)?))
        .domain_name(peer.server_name()))
}

/// How a person's program connects to control: knows the CA, shows a token later.
#[must_use]
pub fn user_tls(ca_pem: &str) -> ClientTlsConfig {
    use_tls13_only();
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca_pem))
        .domain_name(Peer::Control.server_name())
}

/// The host name the agent's certificate in `dir` carries: the only one it can register under.
pub fn host_id(dir: &Path) -> Result<HostId, IdentityError> {
    let pem = files::demand(dir, "agent.pem")?;
    describe(&pem).and_then(|has| has.host().cloned()).ok_or_else(|| IdentityError::Damaged {
        path: dir.join("agent.pem"),
        what: "not a worker's certificate",
    })
}

fn identity(dir: &Path, service: Service) -> Result<Identity, IdentityError> {
    let pem = files::demand(dir, &format!("{}.pem", service.stem()))?;
    let key = files::demand_secret(dir, &format!("{}.key", service.stem()))?;
    Ok(Identity::from_pem(pem, key.as_bytes()))
}
