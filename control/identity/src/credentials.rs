//! A service's certificate while it runs: new files are taken up, those that are of no use are told and left.
//!
//! ```text
//!            every 5 s: are the files those that were taken up last?
//!   in use ──┬─ yes ────────────────────────────────────────────▶ nothing
//!     ▲      ├─ no, and they changed since the last look ───────▶ settling: whoever writes them is given time
//!     │      ╰─ no, and they rest ─ read ─ judge ─┬─ unfit ─────▶ refused: told once, looked at again each time
//!     ╰──── good: generation + 1 ─────────────────╯
//! ```
//! - What is in use is replaced as a whole: certificate, key, CAs, and with them all TLS sessions that could be resumed. So no
//!   new connection shows an old certificate, or trusts an old CA.
//! - Connections are not cut: they go on with what they began with. Who made them can see by the generation that there is another.
//! - Files and no signal: whoever renews them need not know who uses them, and a signal that ends what does not know it is none to send.

use crate::{
    IdentityError, Peer, Service, StatementSigner, StatementVerifier, Unfit,
    files::CA_PEM,
    material::{AsRead, Material},
};
use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A service's certificate, key and CAs, as they are just now. Clones share them.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    service: Service,
    used: ArcSwap<InUse>,
    /// Of what is in use; beside it, for whoever only wants to know whether it is still the same.
    generation: AtomicU64,
    seen: Mutex<Seen>,
}

/// What connections are made with.
struct InUse {
    material: Material,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    signer: Arc<StatementSigner>,
    verifier: Arc<StatementVerifier>,
}

/// What the last look saw.
#[derive(Default)]
struct Seen {
    /// Taken up.
    used: Stamps,
    last: Stamps,
    /// Told of the files that are there.
    told: Option<String>,
}

/// By which a file that was written again, or whose mode or owner changed, is known: device, inode, bytes, and when it changed.
type Stamp = Option<(u64, u64, u64, i64, i64)>;
/// Of CA, certificate and key.
type Stamps = [Stamp; 3];

/// What a look at the files came to.
#[derive(Debug)]
pub enum Looked {
    /// They are those in use.
    Same,
    /// They changed since the last look, and may change further.
    Settling,
    /// Others are in use from now on.
    TakenUp {
        /// The certificate's number, hexadecimal.
        serial: String,
        /// To when it is valid.
        until: SystemTime,
    },
    /// They are not used; those before are.
    Refused {
        /// Why.
        why: IdentityError,
        /// Nobody was told of this yet.
        news: bool,
    },
}

impl Credentials {
    /// Loads the files of `service` in `dir`.
    ///
    /// # Errors
    /// They are unreadable, do not belong together, or the key is open to others. A certificate that is over is loaded: whoever is
    /// asked for it refuses it, and the next one is taken up.
    pub fn load(dir: &Path, service: Service) -> Result<Self, IdentityError> {
        let stamps = stamps(dir, service);
        let read = AsRead::read(dir, service)?;
        let unfit = |why| IdentityError::Unfit { dir: dir.to_owned(), service, why };
        let material = Material::judge(&read, service).map_err(unfit)?;
        if let Err(why) = material.in_time(SystemTime::now()) {
            tracing::error!(
                service = service.stem(),
                serial = material.serial,
                "no peer will believe this service: {why}"
            );
        }
        let used = InUse::new(material, service).map_err(unfit)?;
        Ok(Self(Arc::new(Shared {
            dir: dir.to_owned(),
            service,
            used: ArcSwap::from_pointee(used),
            generation: AtomicU64::new(0),
            seen: Mutex::new(Seen { used: stamps, last: stamps, told: None }),
        })))
    }

    /// Whose it is.
    #[must_use]
    pub fn service(&self) -> Service {
        self.0.service
    }

    /// Which role it proves.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.0.used.load().material.peer.clone()
    }

    /// The certificate's number, hexadecimal.
    #[must_use]
    pub fn serial(&self) -> String {
        self.0.used.load().material.serial.clone()
    }

    /// How often others were taken up. A connection made at another number was made with others than those in use.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// How to listen. Agents demand a certificate of every peer; control lets clients come with a token instead.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.used.load().server)
    }

    /// How to connect. The peer's name is given when it is dialled, and must be a role's ([`Peer::server_name`]).
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.used.load().client)
    }

    /// Signs for this service.
    #[must_use]
    pub fn signer(&self) -> Arc<StatementSigner> {
        Arc::clone(&self.0.used.load().signer)
    }

    /// Judges what workers of the CAs signed.
    #[must_use]
    pub fn verifier(&self) -> Arc<StatementVerifier> {
        Arc::clone(&self.0.used.load().verifier)
    }

    /// Looks at the files every few seconds, takes up what is good, and tells; for ever.
    pub async fn watch(self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let service = self.0.service.stem();
        loop {
            every.tick().await;
            match self.look(SystemTime::now()) {
                Looked::TakenUp { serial, until } => {
                    let days = until.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400;
                    tracing::info!(service, serial, days, "another certificate is in use");
                }
                Looked::Refused { why, news: true } => {
                    tracing::error!(
                        service,
                        serial = self.serial(),
                        "new certificate files are refused, the ones before stay in use: {why}"
                    );
                }
                Looked::Same | Looked::Settling | Looked::Refused { news: false, .. } => {}
            }
        }
    }

    /// Looks at the files once. What [`Credentials::watch`] does, for whoever has a clock of his own.
    #[must_use]
    pub fn look(&self, now: SystemTime) -> Looked {
        let Shared { dir, service, .. } = &*self.0;
        let found = stamps(dir, *service);
        let mut seen = self.seen();
        let rest = seen.last == found;
        seen.last = found;
        if seen.used == found {
            seen.told = None;
            return Looked::Same;
        }
        if !rest {
            return Looked::Settling;
        }
        match self.read(now) {
            Ok(fresh) => {
                let (serial, until) = (fresh.material.serial.clone(), fresh.material.not_after);
                self.0.used.store(Arc::new(fresh));
                self.0.generation.fetch_add(1, Ordering::Release);
                // If they changed while they were read, the next look sees other stamps than these.
                seen.used = found;
                seen.told = None;
                Looked::TakenUp { serial, until }
            }
            Err(why) => {
                let text = why.to_string();
                let news = seen.told.as_ref() != Some(&text);
                seen.told = Some(text);
                Looked::Refused { why, news }
            }
        }
    }

    /// The files as they are, if they may take the place of what is in use.
    fn read(&self, now: SystemTime) -> Result<InUse, IdentityError> {
        let Shared { dir, service, .. } = &*self.0;
        let unfit = |why| IdentityError::Unfit { dir: dir.clone(), service: *service, why };
        let read = AsRead::read(dir, *service)?;
        let judge = || {
            let material = Material::judge(&read, *service)?;
            material.may_follow(&self.0.used.load().material)?;
            material.in_time(now)?;
            InUse::new(material, *service)
        };
        judge().map_err(unfit)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each field is whole by itself; at worst a look is repeated.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InUse {
    fn new(material: Material, service: Service) -> Result<Self, Unfit> {
        let unusable = |error: rustls::Error| Unfit::Stranger(error.to_string());
        Ok(Self {
            server: Arc::new(material.server(service).map_err(unusable)?),
            client: Arc::new(material.client().map_err(unusable)?),
            signer: Arc::new(StatementSigner::of(&material)?),
            verifier: Arc::new(StatementVerifier::of(&material.cas).ok_or(Unfit::NoCa)?),
            material,
        })
    }
}

fn stamps(dir: &Path, service: Service) -> Stamps {
    let stem = service.stem();
    [CA_PEM.to_owned(), format!("{stem}.pem"), format!("{stem}.key")].map(|name| {
        let facts = fs::metadata(dir.join(name)).ok()?;
        // The change time also moves when the owner or the mode does.
        Some((facts.dev(), facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec()))
    })
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, generation) = (self.0.service, self.generation());
        f.debug_struct("Credentials")
            .field("service", &service)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
