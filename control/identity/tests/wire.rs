//! Real servers and real clients: who gets in and who does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::pem::PemObject};
use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, ClientTlsConfig, Endpoint, Server},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient, health_server};
use warren_identity::{
    CERTIFICATE_LIFETIME, Credentials, Gate, HostId, IdentityError, Incoming, Line, LocalIdentity, Looked,
    Peer, Service, client_tls, ensure_local_at, require_client, require_control, require_worker, server_tls,
    user_tls,
};

/// Answers `service` = "client", "worker", "control" if the caller is that, else refuses.
struct Asks(Gate);

#[tonic::async_trait]
impl health_server::Health for Asks {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "client" => drop(require_client(&self.0, &request)?),
            "worker" => assert_eq!(require_worker(&self.0, &request)?.as_str(), "h1"),
            _ => require_control(&self.0, &request)?,
        }
        Ok(Response::new(HealthCheckResponse::default()))
    }
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn identity(dir: &Path, now: SystemTime) -> LocalIdentity {
    ensure_local_at(dir, Some(HostId::new("h1").unwrap()), now).unwrap()
}

async fn serve(dir: &Path, service: Service) -> SocketAddr {
    let gate = match service {
        Service::Control => Gate::with_tokens(dir).unwrap(),
        Service::Agent => Gate::certificates_only(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(server_tls(dir, service).unwrap())
        .unwrap()
        .add_service(health_server::HealthServer::new(Asks(gate)));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

async fn connect(address: SocketAddr, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

/// Asks as `role`; transport failures count as `Unavailable`.
async fn ask_as(address: SocketAddr, tls: ClientTlsConfig, role: &str, token: Option<&str>) -> Code {
    let Ok(channel) = connect(address, tls).await else { return Code::Unavailable };
    let mut request = Request::new(HealthCheckRequest { service: role.to_owned() });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    match HealthClient::new(channel).check(request).await {
        Ok(_) => Code::Ok,
        // A refused client certificate shows only when the first request meets the closed connection.
        Err(status) if status.code() == Code::Unknown => Code::Unavailable,
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn everyone_gets_what_their_role_allows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let local = identity(dir, SystemTime::now());
    let control = serve(dir, Service::Control).await;
    let agent = serve(dir, Service::Agent).await;
    let worker = Peer::Worker(HostId::new("h1").unwrap());
    let other = Peer::Worker(HostId::new("h2").unwrap());
    let user = || user_tls(&local.ca_pem);
    let as_agent = |peer: &Peer| client_tls(dir, Service::Agent, peer).unwrap();
    let as_control = |peer: &Peer| client_tls(dir, Service::Control, peer).unwrap();
    let token = Some(local.token.reveal());

    assert_eq!(ask_as(control, user(), "client", token).await, Code::Ok);
    assert_eq!(ask_as(control, user().domain_name("localhost"), "client", token).await, Code::Ok);
    assert_eq!(ask_as(control, as_agent(&Peer::Control), "worker", None).await, Code::Ok);
    assert_eq!(ask_as(agent, as_control(&worker), "control", None).await, Code::Ok);

    assert_eq!(ask_as(control, user(), "client", None).await, Code::Unauthenticated);
    assert_eq!(ask_as(control, user(), "client", Some("0")).await, Code::Unauthenticated);
    assert_eq!(ask_as(control, user(), "worker", token).await, Code::PermissionDenied);
    assert_eq!(ask_as(control, as_control(&Peer::Control), "worker", None).await, Code::PermissionDenied);
    assert_eq!(ask_as(agent, as_agent(&worker), "control", None).await, Code::PermissionDenied);
    // An agent demands a certificate, and a server must be who it was asked for.
    assert_eq!(
        ask_as(agent, user().domain_name(worker.server_name()), "control", token).await,
        Code::Unavailable
    );
    assert_eq!(ask_as(agent, as_control(&other), "control", None).await, Code::Unavailable);
    assert_eq!(ask_as(agent, as_control(&Peer::Control), "control", None).await, Code::Unavailable);
    assert_eq!(ask_as(agent, user().domain_name("localhost"), "control", None).await, Code::Unavailable);
}

#[tokio::test]
async fn another_ca_counts_for_nothing() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    identity(ours.path(), SystemTime::now());
    let foreign = identity(theirs.path(), SystemTime::now());
    let control = serve(ours.path(), Service::Control).await;
    assert_eq!(ask_as(control, user_tls(&foreign.ca_pem), "client", None).await, Code::Unavailable);
    // Their certificate, our CA as the root: the server refuses.
    std::fs::copy(ours.path().join("ca.pem"), theirs.path().join("ca.pem")).unwrap();
    let tls = client_tls(theirs.path(), Service::Agent, &Peer::Control).unwrap();
    assert_eq!(ask_as(control, tls, "worker", None).await, Code::Unavailable);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (ours, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    identity(ours.path(), SystemTime::now());
    let control = serve(ours.path(), Service::Control).await;
    for name in ["ca.pem", "ca.key"] {
        std::fs::copy(ours.path().join(name), old.path().join(name)).unwrap();
    }
    identity(old.path(), SystemTime::now() - CERTIFICATE_LIFETIME - Duration::from_mins(1));
    let tls = client_tls(old.path(), Service::Agent, &Peer::Control).unwrap();
    assert_eq!(ask_as(control, tls, "worker", None).await, Code::Unavailable);
    // And a server that shows one is not trusted either.
    let stale = serve(old.path(), Service::Control).await;
    let tls = client_tls(ours.path(), Service::Agent, &Peer::Control).unwrap();
    assert_eq!(ask_as(stale, tls, "worker", None).await, Code::Unavailable);
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    identity(dir.path(), SystemTime::now());
    for (service, key) in [(Service::Control, "control.key"), (Service::Agent, "agent.key")] {
        assert!(server_tls(dir.path(), service).is_ok() && Credentials::load(dir.path(), service).is_ok());
        let path = dir.path().join(key);
        for mode in [0o640, 0o604, 0o622] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            for error in [
                server_tls(dir.path(), service).unwrap_err(),
                client_tls(dir.path(), service, &Peer::Control).unwrap_err(),
                Credentials::load(dir.path(), service).unwrap_err(),
            ] {
                assert!(matches!(error, IdentityError::Exposed { .. }), "{error}");
                assert!(error.to_string().contains(key), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let local = identity(dir.path(), SystemTime::now());
    let address = serve(dir.path(), Service::Control).await;
    let handshake = |version: &'static rustls::SupportedProtocolVersion| {
        let ca_pem = local.ca_pem.clone();
        tokio::task::spawn_blocking(move || {
            let mut roots = RootCertStore::empty();
            roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
            let config =
                ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Ok::<_, std::io::Error>(())
        })
    };
    assert!(handshake(&rustls::version::TLS13).await.unwrap().is_ok());
    assert!(handshake(&rustls::version::TLS12).await.unwrap().is_err());
}

/// Tells by which certificate it was asked, in the answer's metadata.
struct Mirror;

#[tonic::async_trait]
impl health_server::Health for Mirror {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let shown = request.peer_certs().and_then(|certificates| Some(certificates.first()?.to_vec()));
        let mut answer = Response::new(HealthCheckResponse::default());
        let shown = tonic::metadata::MetadataValue::from_bytes(&shown.unwrap_or_default());
        answer.metadata_mut().insert_bin("shown-bin", shown);
        Ok(answer)
    }
    type WatchStream = tokio_stream::Pending<Result<HealthCheckResponse, Status>>;
    /// Stays open.
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

/// The agent of `dir`, with live credentials.
async fn live_agent(dir: &Path) -> (SocketAddr, Credentials) {
    let credentials = Credentials::load(dir, Service::Agent).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, credentials.clone());
    let server = Server::builder().add_service(health_server::HealthServer::new(Mirror));
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, credentials)
}

/// The certificate that the server saw on this channel.
async fn shown(channel: Channel) -> Vec<u8> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    answer.metadata().get_bin("shown-bin").unwrap().to_bytes().unwrap().to_vec()
}

fn in_file(dir: &Path, name: &str) -> Vec<u8> {
    rustls::pki_types::CertificateDer::from_pem_file(dir.join(name)).unwrap().to_vec()
}

fn renew(dir: &Path) {
    for name in ["control.pem", "agent.pem"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    identity(dir, SystemTime::now());
}

fn take_up(credentials: &Credentials) {
    let taken = || matches!(credentials.look(SystemTime::now()), Looked::TakenUp { .. });
    assert!(!taken() && taken(), "once they rest");
}

#[tokio::test]
async fn what_is_renewed_is_shown_on_new_connections_and_open_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    identity(dir, SystemTime::now());
    let (address, agent) = live_agent(dir).await;
    let control = Credentials::load(dir, Service::Control).unwrap();
    let worker = Peer::Worker(HostId::new("h1").unwrap());
    let line = Line::new(control.clone(), &worker, &address.to_string(), |endpoint| endpoint).unwrap();
    let first = line.channel();
    let began_with = in_file(dir, "control.pem");
    assert_eq!(shown(first.clone()).await, began_with);
    let mut open = HealthClient::new(first.clone()).watch(HealthCheckRequest::default()).await.unwrap();
    for _ in 0..3 {
        renew(dir);
        // Each side by itself: the other's certificate is of the same CA.
        take_up(&agent);
        take_up(&control);
        assert_eq!(shown(line.channel()).await, in_file(dir, "control.pem"));
        assert_eq!(shown(first.clone()).await, began_with, "what was open goes on");
    }
    drop(first);
    let ended = tokio::time::timeout(Duration::from_millis(50), open.get_mut().message()).await;
    assert!(ended.is_err(), "a call that runs was ended: {ended:?}");
}

#[tokio::test]
async fn a_line_leads_to_one_role_alone() {
    let dir = tempfile::tempdir().unwrap();
    identity(dir.path(), SystemTime::now());
    let (address, _) = live_agent(dir.path()).await;
    let control = Credentials::load(dir.path(), Service::Control).unwrap();
    let ask = async |peer: Peer| {
        let line = Line::new(control.clone(), &peer, &address.to_string(), |endpoint| endpoint).unwrap();
        HealthClient::new(line.channel()).check(HealthCheckRequest::default()).await.map(drop)
    };
    assert!(ask(Peer::Worker(HostId::new("h1").unwrap())).await.is_ok());
    for other in [Peer::Control, Peer::Worker(HostId::new("h2").unwrap())] {
        assert!(ask(other).await.is_err());
    }
    // Nor does anybody get in without a certificate, or without TLS.
    let user = user_tls(&std::fs::read_to_string(dir.path().join("ca.pem")).unwrap());
    let worker = Peer::Worker(HostId::new("h1").unwrap());
    assert_eq!(
        ask_as(address, user.domain_name(worker.server_name()), "control", None).await,
        Code::Unavailable
    );
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    assert!(HealthClient::new(plain).check(HealthCheckRequest::default()).await.is_err());
}
