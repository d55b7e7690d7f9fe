//! `InvokeService`: the stack of layers an invocation goes through, top to bottom.

use crate::{
    Frontend,
    admit::reserved_of,
    catalog::Version,
    detach::{ClientGone, Detached},
    forward::{self, Answered, Failed, Follow, Invocation, micros},
    validate,
};
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use warren_counting::Ticket;
use warren_proto::{
    error::WireError,
    v1::{InvokeEvent, InvokeRequest, InvokeResponse, Timing, invoke_event::Event, invoke_service_server},
};

/// A piece of a streamed answer.
const CHUNK_BYTES: usize = 256 << 10;
/// Events that may wait for a slow client; more log lines are dropped.
const EVENTS_WAITING: usize = 256;

/// Serves invocations.
#[derive(Clone, Debug)]
pub struct Invokes(pub(crate) Arc<Frontend>);

type Events = Pin<Box<dyn Stream<Item = Result<InvokeEvent, Status>> + Send>>;

#[tonic::async_trait]
impl invoke_service_server::InvokeService for Invokes {
    async fn invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let admitted = self.admit(request).await?;
        let frontend = Arc::clone(&self.0);
        let call = Detached::new(|gone| frontend.run(admitted, None, gone));
        Ok(Response::new(call.await?))
    }

    type InvokeStreamStream = Events;

    async fn invoke_stream(&self, request: Request<InvokeRequest>) -> Result<Response<Events>, Status> {
        let admitted = self.admit(request).await?;
        let follow = admitted.request.want_log;
        let frontend = Arc::clone(&self.0);
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        // A task of its own: log lines go out while it runs, and it ends when the worker does, not the client.
        tokio::spawn(async move {
            let lines = follow.then(|| sender.clone());
            match frontend.run(admitted, lines, ClientGone::default()).await {
                Ok(response) => send_pieces(&sender, response).await,
                Err(error) => drop(sender.send(Err(error.into())).await),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

/// An invocation that may run.
struct Admitted {
    began: Instant,
    version: Arc<Version>,
    request: InvokeRequest,
    ticket: Ticket,
}

impl Invokes {
    /// Validates, admits. Not admitted is not begun: a client that leaves here is simply gone.
    async fn admit(&self, request: Request<InvokeRequest>) -> Result<Admitted, Status> {
        let began = Instant::now();
        let request = request.into_inner();
        let (entry, version) = validate::invocation(&self.0.catalog, &request)?;
        let reserved = reserved_of(&entry.latest.spec).is_some();
        let ticket = self.0.admit(&version.name, reserved).await?;
        Ok(Admitted { began, version, request, ticket })
    }
}

async fn send_pieces(events: &mpsc::Sender<Result<InvokeEvent, Status>>, mut response: InvokeResponse) {
    let mut payload = std::mem::take(&mut response.payload);
    let mut pieces = Vec::new();
    while !payload.is_empty() {
        pieces.push(Event::Chunk(payload.split_to(payload.len().min(CHUNK_BYTES))));
    }
    pieces.push(Event::End(response));
    for piece in pieces {
        if events.send(Ok(InvokeEvent { event: Some(piece) })).await.is_err() {
            return;
        }
    }
}

impl Frontend {
    /// Leases, forwards, and accounts for the time.
    async fn run(
        self: Arc<Self>,
        admitted: Admitted,
        follow: Option<Follow>,
        client: ClientGone,
    ) -> Result<InvokeResponse, WireError> {
        let Admitted { began, version, request, ticket } = admitted;
        let request_id = if request.request_id.is_empty() { self.ids.next() } else { request.request_id };
        let invocation = Invocation {
            request_id,
            payload: request.payload,
            want_log: request.want_log,
            follow,
            grant_id: ticket.grant_id(),
            grant_epoch: ticket.epoch(),
        };
        let admission_us = micros(began);
        self.invocations.fetch_add(1, Ordering::Relaxed);
        let answered = forward::run(&self.hub, &version, &invocation, &client).await;
        match answered {
            Ok(answered) => Ok(respond(began, admission_us, &version, invocation.request_id, answered)),
            Err(Failed { error, may_run }) => {
                // The slot comes back because the worker has ended the invocation, or because it never began; else
                // it waits for either.
                if let Some((sandbox, until)) = may_run {
                    self.lingering.keep(&sandbox, ticket, until);
                }
                Err(error)
            }
        }
    }
}

fn respond(
    began: Instant,
    admission_us: u64,
    version: &Version,
    request_id: String,
    answered: Answered,
) -> InvokeResponse {
    let Answered { response, assignment_us, start } = answered;
    let made = start.unwrap_or_default();
    let timing = Timing {
        admission_us,
        assignment_us: assignment_us.saturating_sub(made.total_us()),
        placement_us: made.placement_us,
        jail_us: made.jail_us,
        vm_us: made.vm_us,
        init_us: made.init_us,
        restore_us: made.restore_us,
        handler_us: response.handler_us,
        total_us: micros(began),
        cold: start.is_some(),
    };
    InvokeResponse {
        request_id,
        payload: response.payload,
        version: version.spec.version,
        timing: Some(timing),
        report: response.report,
        log_tail: response.log_tail,
    }
}
