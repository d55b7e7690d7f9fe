//! Puts the roles together and serves them.

use crate::{args::Args, collect, epoch, fleet::Fleets, policies, watch};
use anyhow::Context;
use std::{
    io::{self, Write},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tonic::{service::interceptor::InterceptedService, transport::Server};
use tonic_health::ServingStatus;
use warren_assignment::Assignment;
use warren_counting::{Admission, Counting};
use warren_frontend::{Catalog, Drains, Frontend, Hub, Lingering, Renewals, RequestIds};
use warren_identity::{Credentials, Gate, Incoming, Service, WorkersOnly};
use warren_placement::Fleet;
use warren_policy_engine::Routing;
use warren_proto::{FILE_DESCRIPTOR_SET, MAX_MESSAGE_BYTES, v1::fleet_service_server::FleetServiceServer};
use warren_store::{Blobs, Embedded};

/// After a signal, how long calls that run may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Calls at once on one connection: more than an account's usual limit, so that admission is what refuses.
const STREAMS: u32 = 4096;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    // Signals first: one that comes while things start is kept, not lost.
    let stop = signalled()?;
    let store = Embedded::open(&args.data).context("cannot open the store")?;
    let blobs = Arc::new(Blobs::open(&args.data.join("blobs")).context("cannot open the blobs")?);
    let epoch = epoch::claim(&store).await.context("cannot claim an epoch")?;
    let gate = Arc::new(Gate::with_tokens(&args.identity).context("cannot load the identity")?);
    let credentials =
        Credentials::load(&args.identity, Service::Control).context("cannot load the identity")?;
    let fleet = Arc::new(Fleet::default());
    let drains = Drains::new(Arc::new(store.clone()));
    fleet.begin_drained(drains.load().await.context("cannot read which hosts are drained")?);
    let assignment = Arc::new(Assignment::new(epoch, Arc::clone(&fleet)));
    let routing = Arc::new(Routing::new());
    let catalog = Catalog::load(Arc::new(store.clone())).await.context("cannot read the registry")?;
    let limits = warren_frontend::limits(&catalog, args.account_concurrency);
    let counting =
        Counting::begin(Arc::new(store.clone()), epoch, limits).await.context("cannot begin to count")?;
    let counting = Arc::new(counting);
    let admission = Admission::new(Arc::clone(&counting));
    // These end by a defect alone; control ends with them and is started again, rather than look alive.
    let mut chores = JoinSet::new();
    chores.spawn(Arc::clone(&admission).tend());
    let (retry_policies, retries) = tokio::sync::mpsc::channel(1);
    let frontend = Arc::new(Frontend {
        gate,
        catalog,
        counting,
        admission,
        blobs,
        fleet,
        drains,
        hub: Hub::new(Arc::clone(&assignment), routing),
        retry_policies,
        lingering: Lingering::default(),
        renewals: Renewals::default(),
        ids: RequestIds::new(getrandom::u64().map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?),
        invocations: AtomicU64::new(0),
        began: std::time::Instant::now(),
    });
    frontend.hub.set_zone(frontend.fleet.choosers().inventory.zone(&args.zone));
    tracing::info!(epoch, functions = frontend.catalog.len(), "the store is read");
    let old = Duration::from_secs(args.collect_seconds);
    chores.spawn(collect::garbage(Arc::clone(&frontend), args.data.join("policies"), old));
    chores.spawn(watch::hosts(Arc::clone(&frontend), Arc::clone(&assignment)));
    chores.spawn(credentials.clone().watch());

    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (builder, builders) = tokio::sync::watch::channel(None);
    if let Some(dir) = args.policies() {
        let (frontend, kept) = (Arc::clone(&frontend), args.data.join("policies"));
        tokio::spawn(async move {
            if let Err(error) = policies::load(frontend, dir, kept, builders, retries).await {
                tracing::error!(error = format!("{error:#}"), "no policies: the built-in defaults decide");
            }
        });
    } else {
        // Nobody loads any: who asks for another try is told so at once.
        drop(retries);
    }
    // Who is no worker is refused before a message of his is read.
    let fleets = Fleets::new(&frontend, assignment, credentials.clone(), builder);
    let fleets = FleetServiceServer::new(fleets).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let services = warren_frontend::services(&frontend);
    let server = Server::builder()
        .max_concurrent_streams(Some(STREAMS))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(64 << 20)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(services.invoke)
        .add_service(services.functions)
        .add_service(services.admin)
        .add_service(InterceptedService::new(fleets, WorkersOnly::new(Arc::clone(&frontend.gate))))
        .serve_with_incoming_shutdown(Incoming::new(listener, credentials), async move {
            stop.await;
            let _nobody = stopping.send(());
        });
    announce(address)?;
    tokio::select! {
        end = server => end.context("the server failed")?,
        Some(ended) = chores.join_next() => anyhow::bail!("a part of control ended: {:?}", ended.err()),
        // Streams that follow logs never end by themselves.
        () = async { let _ = stopped.await; tokio::time::sleep(LAST_WORDS).await } => {}
    }
    store.close().await;
    Ok(())
}

/// Signals to end are caught from the call on, and waited for by what it gives.
fn signalled() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// The data is control's alone.
pub(crate) fn close(data: &std::path::Path) -> anyhow::Result<()> {
    if let Some(mode) = warren_identity::close_folder(data)? {
        tracing::warn!(data = %data.display(), "others could reach the data (mode {mode:o}): it is closed now");
    }
    Ok(())
}

fn announce(address: std::net::SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready listen={address}")?;
    out.flush()
}
