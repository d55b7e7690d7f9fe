//! The identities of one machine: made on the first start, renewed on later ones.

use crate::{
    ClientToken, HostId, IdentityError, Peer, Service, TokenHashes,
    authority::{Authority, describe},
    files::{self, CA_KEY, CA_PEM, CLIENT_TOKEN, FLEET_KEY, TOKEN_HASHES},
    secret::FleetSecret,
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// How long a service's certificate is good for; it is renewed past half of it.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(24 * 30);

/// What the starter of a machine needs to know of its identities.
#[derive(Clone, Debug)]
pub struct LocalIdentity {
    /// The CA's certificate, for clients.
    pub ca_pem: String,
    /// The admin client's token.
    pub token: ClientToken,
    /// The name this machine's agent is certified for.
    pub host_id: HostId,
    /// Services whose certificate was made anew; running ones take it up by themselves.
    pub renewed: Vec<Service>,
}

/// Makes whatever is missing or half used up in `dir`; what is good stays as it is.
pub fn ensure_local(dir: &Path) -> Result<LocalIdentity, IdentityError> {
    ensure_local_at(dir, None, SystemTime::now())
}

/// The same with the agent's name (by default the one it has, else the machine's) and the time given.
pub fn ensure_local_at(
    dir: &Path,
    host: Option<HostId>,
    now: SystemTime,
) -> Result<LocalIdentity, IdentityError> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|source| files::fault(dir, source))?;
    let _lock = files::lock(dir)?;
    let (ca_pem, authority) = ensure_authority(dir, now)?;
    let host_id = match host {
        Some(host) => host,
        None => certified_host(dir, &ca_pem)?.unwrap_or_else(machine_name),
    };
    let mut renewed = Vec::new();
    for (service, peer) in
        [(Service::Control, Peer::Control), (Service::Agent, Peer::Worker(host_id.clone()))]
    {
        if ensure_certificate(dir, service, &peer, &ca_pem, &authority, now)? {
            renewed.push(service);
        }
    }
    ensure_secret(dir)?;
    let token = ensure_token(dir)?;
    Ok(LocalIdentity { ca_pem, token, host_id, renewed })
}

fn ensure_authority(dir: &Path, now: SystemTime) -> Result<(String, Authority), IdentityError> {
    if let Some(ca_pem) = files::read(dir, CA_PEM)? {
        let key = Zeroizing::new(files::demand(dir, CA_KEY)?);
        let authority = Authority::load(&ca_pem, &key)
            .map_err(|_| IdentityError::Damaged { path: dir.join(CA_KEY), what: "not the CA's key" })?;
        return Ok((ca_pem, authority));
    }
    let made = Authority::create(now)?;
    // The key first: a certificate without its key would be taken for a whole CA by the next start.
    files::write(dir, CA_KEY, &made.key)?;
    files::write(dir, CA_PEM, &made.certificate)?;
    let authority = Authority::load(&made.certificate, &made.key)?;
    Ok((made.certificate, authority))
}

/// Returns whether a new one was made.
fn ensure_certificate(
    dir: &Path,
    service: Service,
    peer: &Peer,
    ca_pem: &str,
    authority: &Authority,
    now: SystemTime,
) -> Result<bool, IdentityError> {
    let (pem_name, key_name) = (format!("{}.pem", service.stem()), format!("{}.key", service.stem()));
    if let (Some(pem), Some(key)) = (files::read(dir, &pem_name)?, files::read(dir, &key_name)?) {
        let key = Zeroizing::new(key);
        if describe(&pem).is_some_and(|has| {
            has.peer == *peer && fresh(has.not_before, has.not_after, now) && has.belongs_to(&key, ca_pem)
        }) {
            return Ok(false);
        }
    }
    let made = authority.issue(peer, now, CERTIFICATE_LIFETIME)?;
    files::write(dir, &key_name, &made.key)?;
    files::write(dir, &pem_name, &made.certificate)?;
    Ok(true)
}

/// In the first half of its life.
fn fresh(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> bool {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    now.duration_since(not_before).is_ok_and(|age| age < life / 2)
}

/// What is there and is none is not replaced: others may have the one that it was.
fn ensure_secret(dir: &Path) -> Result<(), IdentityError> {
    match files::read(dir, FLEET_KEY)?.map(Zeroizing::new) {
        Some(text) if FleetSecret::parse(&text).is_some() => Ok(()),
        Some(_) => Err(IdentityError::Damaged { path: dir.join(FLEET_KEY), what: "not 64 hex digits" }),
        None => files::write(dir, FLEET_KEY, &FleetSecret::generate()?.text()),
    }
}

fn ensure_token(dir: &Path) -> Result<ClientToken, IdentityError> {
    let token = if let Some(text) = files::read(dir, CLIENT_TOKEN)? {
        let damaged = || IdentityError::Damaged { path: dir.join(CLIENT_TOKEN), what: "not a token" };
        ClientToken::parse(&text).ok_or_else(damaged)?
    } else {
        let token = ClientToken::generate()?;
        files::write(dir, CLIENT_TOKEN, &format!("{}\n", token.reveal()))?;
        token
    };
    let known = files::read(dir, TOKEN_HASHES)?.unwrap_or_default();
    if !TokenHashes::parse(&known).contains(token.reveal()) {
        files::write(dir, TOKEN_HASHES, &TokenHashes::with_line(&known, "admin", &token))?;
    }
    Ok(token)
}

/// A stranger's certificate does not rename this host: only one of these CAs says what it is called.
fn certified_host(dir: &Path, ca_pem: &str) -> Result<Option<HostId>, IdentityError> {
    let described = files::read(dir, "agent.pem")?.and_then(|pem| describe(&pem));
    Ok(described.filter(|has| has.is_of(ca_pem)).and_then(|has| has.host().cloned()))
}

fn machine_name() -> HostId {
    HostId::from_any(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn ensure(dir: &Path, after: Duration) -> LocalIdentity {
        ensure_local_at(dir, Some(HostId::from_any("h1")), SystemTime::now() + after).unwrap()
    }

    #[test]
    fn the_second_start_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = ensure(dir.path(), Duration::ZERO);
        let read =
            || files::FILES.iter().map(|f| fs::read(dir.path().join(f.name)).unwrap()).collect::<Vec<_>>();
        let before = read();
        let second = ensure(dir.path(), Duration::ZERO);
        assert_eq!(read(), before);
        assert_eq!((first.renewed.len(), second.renewed.len()), (2, 0));
        assert_eq!(first.token.reveal(), second.token.reveal());
        assert_eq!(ensure_local(dir.path()).unwrap().host_id.as_str(), "h1", "the name sticks");
    }

    #[test]
    fn certificates_are_renewed_past_half_of_their_life_and_the_ca_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = ensure(dir.path(), Duration::ZERO);
        assert!(ensure(dir.path(), CERTIFICATE_LIFETIME * 2 / 5).renewed.is_empty());
        let later = ensure(dir.path(), CERTIFICATE_LIFETIME * 3 / 5);
        assert_eq!(later.renewed, [Service::Control, Service::Agent]);
        assert_eq!(later.ca_pem, first.ca_pem);
    }

    #[test]
    fn modes_are_those_of_the_table() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), Duration::ZERO);
        for rule in files::FILES {
            let mode = fs::metadata(dir.path().join(rule.name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, rule.mode, "{}", rule.name);
        }
    }

    #[test]
    fn a_half_written_pair_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), Duration::ZERO);
        // A crash between the two files of a renewal: new key, old certificate.
        fs::copy(dir.path().join("agent.key"), dir.path().join("control.key")).unwrap();
        assert_eq!(ensure(dir.path(), Duration::ZERO).renewed, [Service::Control]);
        fs::remove_file(dir.path().join("agent.pem")).unwrap();
        assert_eq!(ensure(dir.path(), Duration::ZERO).renewed, [Service::Agent]);
    }

    #[test]
    fn a_new_ca_reissues_everything() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), Duration::ZERO);
        fs::remove_file(dir.path().join(CA_PEM)).unwrap();
        assert_eq!(ensure(dir.path(), Duration::ZERO).renewed.len(), 2);
    }

    #[test]
    fn a_strangers_certificate_renames_no_host() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ensure(ours.path(), Duration::ZERO);
        let stranger = Some(HostId::from_any("stranger"));
        ensure_local_at(theirs.path(), stranger, SystemTime::now()).unwrap();
        for name in ["agent.pem", "agent.key"] {
            fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
        }
        let mended = ensure_local(ours.path()).unwrap();
        assert_eq!((mended.host_id, &*mended.renewed), (machine_name(), &[Service::Agent][..]));
        // Of a CA that is no longer the first it still does.
        let ca = |dir: &tempfile::TempDir| fs::read_to_string(dir.path().join(CA_PEM)).unwrap();
        let named = ensure(ours.path(), Duration::ZERO).host_id;
        fs::copy(theirs.path().join(CA_KEY), ours.path().join(CA_KEY)).unwrap();
        fs::write(ours.path().join(CA_PEM), format!("{}{}", ca(&theirs), ca(&ours))).unwrap();
        assert_eq!(ensure_local(ours.path()).unwrap().host_id, named);
    }

    #[test]
    fn a_ca_signs_with_its_own_key_only() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ensure(ours.path(), Duration::ZERO);
        ensure(theirs.path(), Duration::ZERO);
        let before = fs::read(ours.path().join("agent.pem")).unwrap();
        fs::copy(theirs.path().join(CA_KEY), ours.path().join(CA_KEY)).unwrap();
        assert!(matches!(ensure_local(ours.path()), Err(IdentityError::Damaged { .. })));
        assert_eq!(fs::read(ours.path().join("agent.pem")).unwrap(), before);
        // Its certificate before the other one's: it takes over, and the other is trusted on.
        let ca = |dir: &tempfile::TempDir| fs::read_to_string(dir.path().join(CA_PEM)).unwrap();
        fs::write(ours.path().join(CA_PEM), format!("{}{}", ca(&theirs), ca(&ours))).unwrap();
        assert_eq!(ensure(ours.path(), Duration::ZERO).renewed, [Service::Control, Service::Agent]);
        assert!(ensure(ours.path(), Duration::ZERO).renewed.is_empty());
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), Duration::ZERO);
        fs::write(dir.path().join(CLIENT_TOKEN), "short").unwrap();
        assert!(matches!(ensure_local(dir.path()), Err(IdentityError::Damaged { .. })));
    }
}
