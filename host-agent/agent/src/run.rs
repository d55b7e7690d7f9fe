//! Start, serve, stop.
//!
//! ```text
//! open ─▶ adopt (waits for the jailer) ─▶ listen ─▶ "ready" ─▶ serve ─▶ SIGTERM/SIGINT ─┬─▶ drain, kill all ─▶ exit 0
//!                                                                                      └─ --leave ─────────▶ exit 0
//! ```
//! After `kill -9` everything stays as it is and the next start adopts it.

use crate::{
    config::Config,
    fleet::{self, Announcement},
    host::Host,
    sandbox::{
        Sandbox, adopt,
        machine::{Cause, Event},
    },
    service,
    snapshot::Snapshots,
    zygote,
};
use anyhow::Context as _;
use futures::future::join_all;
use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};
use tonic::transport::Server;
use warren_identity::Incoming;
use warren_proto::v1::{HostResources, worker_service_server::WorkerServiceServer};
use warren_vmm_protocol::rates::{DiskIops, DiskMib, NetworkMbit};

/// How long reclaiming everything may take at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Most calls under way on one connection.
const MAX_STREAMS: u32 = 8192;
/// How long connections may take to close at a stop.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// Runs the agent to its end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let host = Host::open(&config)?;
    let adoption = tokio::select! {
        adoption = adopt::adopt_all(&host) => adoption?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    host.learn_network().await;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen at {}", config.listen))?;
    let address = listener.local_addr()?;
    let (close, closing) = oneshot::channel::<()>();
    let mut server = tokio::spawn(serve(Arc::clone(&host), listener, closing));
    // These end by a defect alone. An agent without one of them would look alive and be of no use: it ends, is started
    // again, and adopts what runs.
    let mut chores = JoinSet::new();
    chores.spawn(Arc::clone(&host).make_room());
    chores.spawn(zygote::tend(Arc::clone(&host)));
    chores.spawn(host.credentials.clone().watch());
    Snapshots::share_all(&host);
    if let Some(fleet) = host.snapshots.fleet().cloned() {
        chores.spawn(async move { fleet.scrub_own().await });
    }
    chores.spawn(Snapshots::rescue(Arc::clone(&host)));
    chores.spawn(Snapshots::bring_chunks(Arc::clone(&host)));
    chores.spawn(fleet::report(Arc::clone(&host), announcement(&config, &host, address)));

    let adopted = adoption.adopted;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "ready listen={address} host={} adopted={adopted} reclaimed={}",
        host.id, adoption.reclaimed
    )?;
    out.flush()?;

    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut server => Some(ended),
        Some(ended) = chores.join_next() => {
            return Err(anyhow::anyhow!("a part of the agent ended: {:?}", ended.err()));
        }
    };
    host.stop();
    let _ = timeout(STOP_PATIENCE, host.zygotes.close(&host)).await;
    let _ = timeout(STOP_PATIENCE, host.snapshots.close(&host)).await;
    if !config.leave {
        destroy_all(&host, Duration::from_millis(config.drain_ms)).await;
    }
    chores.abort_all();
    let _ = close.send(());
    // Every line published so far is on its way to the disk when this answers.
    host.logs.tail("", 0).await;
    if let Some(ended) = ended {
        return ended.context("the server task ended")?;
    }
    // Last answers go out; followers of logs would stay for ever.
    let _ = timeout(CLOSE_PATIENCE, server).await;
    Ok(())
}

async fn serve(host: Arc<Host>, listener: TcpListener, closing: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkerServiceServer<service::Worker>>().await;
    let incoming = Incoming::new(listener, host.credentials.clone());
    let server = Server::builder()
        // A payload each way fits a stream's window, so that an invocation waits for no window update.
        .initial_stream_window_size(Some(8 << 20))
        .initial_connection_window_size(Some(64 << 20))
        // All of a host's invocations may come over one connection of control's.
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_service(health_service)
        .add_optional_service(host.snapshots.fleet().map(|fleet| service::for_workers(fleet.server())))
        .add_service(service::gated(host))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = closing.await;
        });
    server.await.context("the server ended")
}

fn announcement(config: &Config, host: &Host, address: SocketAddr) -> Announcement {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (guests, no_linux_because) = host.offer.guests();
    // A jailer without Linux guests is told to make no network: that is no wish of its operator's.
    let no_network_because = if no_linux_because.is_empty() {
        host.no_network_because().unwrap_or_default()
    } else {
        "it runs no Linux functions"
    };
    let (cpu_template, cpu_digest) =
        host.offer.processor().map(|here| (here.template.clone(), here.seen.to_string())).unwrap_or_default();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Announcement {
        address: config.advertise.clone().unwrap_or_else(|| address.to_string()),
        resources: HostResources {
            cpu_millis: u32::try_from(cores * 1000).unwrap_or(u32::MAX),
            memory_mib: host.memory.total_mib(),
            zone: config.zone.clone(),
            isa: host.versions.compiler().isa().0,
            kernel,
            guests,
            no_linux_because,
            no_network_because: no_network_because.to_owned(),
            cpu_template,
            cpu_digest,
            network_mbit: host.rates.network.map(NetworkMbit::get),
            disk_mib: host.rates.disk.map(DiskMib::get),
            disk_iops: host.rates.disk_requests.map(DiskIops::get),
        },
    }
}

/// Lets running invocations go on for a while, then kills; returns when everything is reclaimed.
async fn destroy_all(host: &Host, drain: Duration) {
    let sandboxes = host.sandboxes.all();
    for sandbox in &sandboxes {
        // `Drain` is legal in every state.
        let _ = sandbox.apply(Event::Drain(Cause::Stopping));
    }
    if timeout(drain, all_gone(&sandboxes)).await.is_err() {
        for sandbox in &sandboxes {
            sandbox.kill(Cause::Stopping);
        }
        if timeout(STOP_PATIENCE, all_gone(&sandboxes)).await.is_err() {
            tracing::error!("not everything was reclaimed before the stop; the next start does it");
        }
    }
    // Nobody is served by it any more.
    let _ = timeout(STOP_PATIENCE, host.pager.end()).await;
    // Compilations and what is written down are no sandboxes, but jailed all the same.
    host.jailer.close();
    let left = timeout(CLOSE_PATIENCE, host.jailer.list()).await;
    for jailed in left.ok().and_then(Result::ok).unwrap_or_default() {
        let _ = timeout(CLOSE_PATIENCE, host.jailer.kill(&jailed.name)).await;
    }
}

async fn all_gone(sandboxes: &[Arc<Sandbox>]) {
    join_all(sandboxes.iter().map(|sandbox| sandbox.wait_gone())).await;
}
