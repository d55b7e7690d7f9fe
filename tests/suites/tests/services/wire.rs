//! What services show on new connections, and which connections there are.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig,
        client::Resumption,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use warren_client::Config;
use warren_identity::{Credentials, HostId, Owners, Peer, Service, ensure_local_at, give_files};
use warren_proto::v1::ListHostsRequest;
use warren_suites::Installation;

/// One of the two that have a certificate, and how it is reached.
pub(crate) struct Served {
    pub(crate) service: Service,
    peer: Peer,
    pub(crate) address: SocketAddr,
    ours: Credentials,
}

/// Control and agent, to be looked at with control's certificate as it is now.
pub(crate) async fn both(warren: &Installation) -> Result<[Served; 2]> {
    let hosts = warren.client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
    let host = hosts.into_iter().next().context("no host")?;
    let peer = Peer::Worker(HostId::new(host.id)?);
    let endpoint = Config::load(&warren.data().join("client.toml"))?.endpoint;
    let control = endpoint.strip_prefix("https://").context("an endpoint without TLS")?.parse()?;
    let ours = Credentials::load(&identity(warren), Service::Control)?;
    Ok([
        Served { service: Service::Control, peer: Peer::Control, address: control, ours: ours.clone() },
        Served { service: Service::Agent, peer, address: host.address.parse()?, ours },
    ])
}

impl Served {
    /// The certificate that a new connection is shown, by a full handshake both ways.
    pub(crate) async fn shown(&self) -> Result<CertificateDer<'static>> {
        let mut config = ClientConfig::clone(&self.ours.client());
        config.resumption = Resumption::disabled();
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.peer.server_name())?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).context("none shown")?;
        Ok(shown.clone().into_owned())
    }

    /// The certificate in the file.
    pub(crate) fn kept(&self, warren: &Installation) -> Result<CertificateDer<'static>> {
        certificate(&identity(warren), self.service.stem())
    }

    /// Waits until a new connection is shown the one in the file.
    pub(crate) async fn shows_what_is_kept(&self, warren: &Installation) -> Result<CertificateDer<'static>> {
        let what = format!("{} showing its new certificate", self.service.stem());
        crate::until(&what, async || {
            // In the middle of a renewal it may be missing.
            let Ok(kept) = self.kept(warren) else { return Ok(None) };
            Ok(Some(self.shown().await?).filter(|shown| *shown == kept))
        })
        .await
    }
}

/// A service's certificate in a folder.
pub(crate) fn certificate(dir: &Path, stem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(dir.join(format!("{stem}.pem"))).context("not a certificate")
}

/// Where the certificates are.
pub(crate) fn identity(warren: &Installation) -> PathBuf {
    warren.data().join("identity")
}

/// Makes both services' certificates anew, as of that time.
pub(crate) fn renew(warren: &Installation, at: SystemTime) -> Result<()> {
    for name in ["control.pem", "agent.pem"] {
        fs::remove_file(identity(warren).join(name))?;
    }
    ensure(warren, at)
}

/// Makes what is missing or does not fit anew, as `warren up` would in its minute.
pub(crate) fn mend(warren: &Installation) -> Result<()> {
    ensure(warren, SystemTime::now())
}

fn ensure(warren: &Installation, at: SystemTime) -> Result<()> {
    let dir = identity(warren);
    // Without a certificate that fits nothing says which host it is.
    let host = HostId::from_any(&fs::read_to_string("/proc/sys/kernel/hostname")?);
    let owners = owners(warren)?;
    ensure_local_at(&dir, Some(host), at)?;
    if rustix::process::geteuid().is_root() {
        give_files(&dir, owners)?;
    }
    Ok(())
}

/// Whose the files are.
fn owners(warren: &Installation) -> Result<Owners> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = |name: &str| Ok::<_, anyhow::Error>(fs::metadata(identity(warren).join(name))?.uid());
    Ok(Owners { control: uid("clients")?, agent: uid("fleet.key")? })
}

/// Local ports of the connections to this address that are open: a connection that was made anew has another one.
pub(crate) fn connections_to(address: SocketAddr) -> Result<BTreeSet<u16>> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let mut found = BTreeSet::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next(), words.next(), words.next());
        let port = |end: Option<&str>| {
            u16::from_str_radix(end.and_then(|end| end.split_once(':')).context("a table of sockets")?.1, 16)
                .context("a port")
        };
        if state == Some(ESTABLISHED) && port(remote)? == address.port() {
            found.insert(port(local)?);
        }
    }
    ensure!(!found.is_empty(), "nobody is connected to {address}");
    Ok(found)
}
