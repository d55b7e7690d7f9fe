//! Certificates that are replaced while eight clients call: no call fails, new connections show the new ones, bad ones are refused.

use crate::{until, wire};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use warren_client::{Client, Config};
use warren_identity::{CERTIFICATE_LIFETIME, HostId, Service, ensure_local_at};
use warren_proto::v1::{InvokeRequest, StatusRequest};
use warren_suites::{Deploy, Installation, full};

const CLIENTS: usize = 8;
/// Answers between two replacements.
const STEADY: u64 = 50;

/// Clients that call until told to stop, and end at the first call that fails.
struct Load {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Result<()>>,
}

impl Load {
    async fn begin(warren: &Installation) -> Result<Self> {
        let name = warren.deploy_built("hello", Deploy::default()).await?;
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, name) = (warren.client.clone(), name.clone());
            let (answers, stop) = (Arc::clone(&answers), Arc::clone(&stop));
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let payload = r#"{"name":"load"}"#.into();
                    let request =
                        InvokeRequest { function: name.clone(), payload, ..InvokeRequest::default() };
                    let answer = client.invoke().invoke(request).await.context("a call failed")?.into_inner();
                    ensure!(answer.payload == br#"{"message":"Hello, load!"}"#[..], "a wrong answer");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Ok(Self { answers, stop, clients })
    }

    /// Waits for some more answers.
    async fn goes_on(&mut self) -> Result<()> {
        let goal = self.answers.load(Ordering::Relaxed) + STEADY;
        until("more answers", async || {
            if let Some(ended) = self.clients.try_join_next() {
                ended??;
            }
            Ok((self.answers.load(Ordering::Relaxed) >= goal).then_some(()))
        })
        .await
    }

    /// How many answers there were; fails if one call did.
    async fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(self.answers.load(Ordering::Relaxed))
    }
}

pub(crate) async fn certificates_are_replaced_under_load(warren: &Installation) -> Result<()> {
    let served = wire::both(warren).await?;
    let [_, agent] = &served;
    let mut load = Load::begin(warren).await?;
    load.goes_on().await?;
    let rounds = if full() { 20 } else { 2 };
    for round in 0..rounds {
        let before = wire::connections_to(agent.address)?;
        let mut old = Vec::new();
        for one in &served {
            old.push(one.shown().await?);
        }
        wire::renew(warren, SystemTime::now())?;
        for (one, old) in served.iter().zip(&old) {
            let new = one.shows_what_is_kept(warren).await?;
            ensure!(new != *old, "round {round}: {} shows the one before", one.service.stem());
        }
        load.goes_on().await?;
        // What is not on a warm call's way has a connection of its own.
        warren.deploy_built("hello", Deploy::default()).await?;
        until("connections made anew", async || {
            let now = wire::connections_to(agent.address)?;
            Ok(now.is_disjoint(&before).then_some(()))
        })
        .await?;
        load.goes_on().await?;
    }
    println!("    {} answers while both certificates were replaced {rounds} times", load.end().await?);
    Ok(())
}

pub(crate) async fn certificates_past_half_of_their_life_are_renewed(warren: &Installation) -> Result<()> {
    let served = wire::both(warren).await?;
    wire::renew(warren, SystemTime::now() - CERTIFICATE_LIFETIME * 2 / 3)?;
    let half_used = [served[0].kept(warren)?, served[1].kept(warren)?];
    for (one, half_used) in served.iter().zip(half_used) {
        until("a renewed certificate", async || {
            Ok(one.kept(warren).is_ok_and(|kept| kept != half_used).then_some(()))
        })
        .await?;
        one.shows_what_is_kept(warren).await?;
    }
    Ok(())
}

pub(crate) async fn what_is_no_certificate_of_the_service_is_refused_and_told(
    warren: &Installation,
) -> Result<()> {
    let served = wire::both(warren).await?;
    let mut load = Load::begin(warren).await?;
    for one in served.iter().filter(|one| full() || one.service == Service::Agent) {
        let stem = one.service.stem();
        let before = one.shown().await?;
        let key = wire::identity(warren).join(format!("{stem}.key"));
        // Open to others: it may have leaked.
        fs::set_permissions(&key, Permissions::from_mode(0o644))?;
        until("a key being refused", async || Ok(log(warren, stem)?.contains("has mode 644").then_some(())))
            .await?;
        ensure!(one.shown().await? == before, "{stem} shows another certificate");
        fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        // Of somebody else's fleet. `warren up` may make it anew before the service has looked: then it is put there again.
        let theirs = strangers()?;
        let put = |end: &str| {
            let (from, to) = (theirs.path().join(format!("{stem}.{end}")), key.with_extension(end));
            fs::write(to, fs::read(from)?).context("put a stranger's file")
        };
        until("a stranger's certificate being refused", async || {
            if one.kept(warren).ok() != Some(wire::certificate(theirs.path(), stem)?) {
                put("key")?;
                put("pem")?;
            }
            let said = log(warren, stem)?;
            let refused = said.contains("the certificate is not one of the CA's");
            Ok(refused.then_some(()))
        })
        .await?;
        // It would not pass this handshake.
        one.shown().await.with_context(|| format!("{stem} shows what it refused"))?;
        load.goes_on().await?;
        wire::mend(warren)?;
        one.shows_what_is_kept(warren).await?;
        load.goes_on().await?;
    }
    println!("    {} answers meanwhile", load.end().await?);
    Ok(())
}

pub(crate) async fn another_ca_takes_over_under_load(warren: &Installation) -> Result<()> {
    let identity = wire::identity(warren);
    let theirs = strangers()?;
    let (old, new) =
        (fs::read_to_string(identity.join("ca.pem"))?, fs::read_to_string(theirs.path().join("ca.pem"))?);
    let mut load = Load::begin(warren).await?;
    load.goes_on().await?;

    taken_up(warren, async || replace(&identity.join("ca.pem"), &format!("{old}{new}"), 0o644)).await?;
    load.goes_on().await?;

    let served = wire::both(warren).await?;
    replace(&identity.join("ca.key"), &fs::read_to_string(theirs.path().join("ca.key"))?, 0o600)?;
    replace(&identity.join("ca.pem"), &format!("{new}{old}"), 0o644)?;
    wire::mend(warren)?;
    for one in &served {
        one.shows_what_is_kept(warren).await?;
    }
    load.goes_on().await?;
    warren.deploy_built("hello", Deploy::default()).await?;

    taken_up(warren, async || replace(&identity.join("ca.pem"), &new, 0o644)).await?;
    load.goes_on().await?;
    println!("    {} answers meanwhile", load.end().await?);

    // Who knows only the CA before does not believe control any more; who knows the new one does.
    let config = Config::load(&warren.data().join("client.toml"))?;
    ensure!(config.ca_pem == old, "the client knows another CA already");
    let status = async |config: &Config| {
        let client = Client::connect(config).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        client.admin().status(StatusRequest {}).await.context("status")
    };
    ensure!(status(&config).await.is_err(), "the CA before is still believed");
    status(&Config { ca_pem: new, ..config }).await.map(drop)
}

/// Another fleet's identity, of a host of some name.
fn strangers() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    ensure_local_at(dir.path(), Some(HostId::from_any("stranger")), SystemTime::now())?;
    Ok(dir)
}

/// Whole or not at all, by a rename.
fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text)?;
    fs::set_permissions(&fresh, Permissions::from_mode(mode))?;
    fs::rename(fresh, path).context("rename")
}

/// Does something to the files, and waits until both services say that they took it up.
async fn taken_up(warren: &Installation, change: impl AsyncFn() -> Result<()>) -> Result<()> {
    let said =
        |stem| Ok::<_, anyhow::Error>(log(warren, stem)?.matches("another certificate is in use").count());
    let before = [said("control")?, said("agent")?];
    change().await?;
    until("both services taking it up", async || {
        Ok((said("control")? > before[0] && said("agent")? > before[1]).then_some(()))
    })
    .await
}

fn log(warren: &Installation, stem: &str) -> Result<String> {
    let path = warren.data().join(format!("log/{stem}.log"));
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
