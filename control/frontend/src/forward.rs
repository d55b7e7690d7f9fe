//! One invocation, from a sandbox's lease to the worker's answer.
//!
//! ```text
//! take a lease --> ask the worker --answer--> done
//!    ^                  |
//!    |                  +-- "busy" / "gone": not started, the hint was old ----> another (at most HINTS times)
//!    +------------------+-- "lost before start": not started ------------------> another (once)
//!                       +-- the function's own error ------------------------> to the client, sandbox kept
//!                       +-- timeout ---------------------------------------> to the client, sandbox is gone
//!                       +-- connection lost, sandbox lost: may have started --> UNAVAILABLE, retryable said
//! ```

use crate::{catalog::Version, detach::ClientGone, hub::Hub, pool::Lease};
use bytes::Bytes;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tonic::{Code, Response, Status};
use warren_assignment::{Sandbox, StartTiming};
use warren_placement::{Client, worker_error};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{InvokeEvent, InvokeSandboxRequest, InvokeSandboxResponse, invoke_event, invoke_sandbox_event},
};

/// Most old hints that one invocation puts up with.
const HINTS: u32 = 8;
/// Beyond the function's own timeout, how long the worker may take to say so.
const GRACE: Duration = Duration::from_secs(10);

/// When a client whose function has not started may come again.
const SOON: Duration = Duration::from_millis(100);

/// Where log lines go as they come.
pub(crate) type Follow = mpsc::Sender<Result<InvokeEvent, Status>>;

/// What one invocation brings along.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// Its id.
    pub request_id: String,
    /// Its event.
    pub payload: Bytes,
    /// Whether its log lines are wanted.
    pub want_log: bool,
    /// Where its log lines go while it runs, if somebody follows.
    pub follow: Option<Follow>,
    /// The grant it runs under.
    pub grant_id: u64,
    /// The grant's epoch.
    pub grant_epoch: u64,
}

/// A worker's answer, and what it took to get there.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The worker's answer.
    pub response: InvokeSandboxResponse,
    /// Leasing, in all attempts, microseconds.
    pub assignment_us: u64,
    /// Set if the sandbox was new.
    pub start: Option<StartTiming>,
}

/// Why one attempt ended, for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Not started; the hint was old, and the sandbox is busy or gone.
    OldHint { gone: bool },
    /// Not started; the sandbox died.
    DiedBeforeStart,
    /// The function's own failure; the sandbox lives.
    SandboxLives,
    /// The sandbox is gone, and the function may have started.
    SandboxGone,
}

fn next(error: &WireError) -> Next {
    match error.reason.as_str() {
        reason::SANDBOX_BUSY => Next::OldHint { gone: false },
        reason::SANDBOX_GONE => Next::OldHint { gone: true },
        reason::SANDBOX_LOST_BEFORE_START => Next::DiedBeforeStart,
        reason::FUNCTION_TIMED_OUT | reason::SANDBOX_LOST => Next::SandboxGone,
        _ => match error.fault {
            Fault::Function | Fault::Caller | Fault::Throttle => Next::SandboxLives,
            Fault::System => Next::SandboxGone,
        },
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    /// What the client is told.
    pub(crate) error: WireError,
    /// Set if the function may still run, in this sandbox, until then at the latest.
    pub(crate) may_run: Option<(Arc<Sandbox>, Instant)>,
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self { error, may_run: None }
    }
}

/// Runs one invocation to its end.
pub(crate) async fn run(
    hub: &Arc<Hub>,
    version: &Arc<Version>,
    invocation: &Invocation,
    client: &ClientGone,
) -> Result<Answered, Failed> {
    let (mut hints, mut died) = (0, false);
    let mut assignment_us = 0;
    loop {
        let began = Instant::now();
        let lease = hub.take(version, &invocation.request_id).await.map_err(WireError::from)?;
        assignment_us += micros(began);
        if client.is_set() {
            let gone = WireError::new(Code::Cancelled, "CLIENT_GONE", Fault::Caller, "the client went away");
            return Err(gone.into());
        }
        let asked = Instant::now();
        let (lease, error) = match ask(lease, version, invocation).await {
            Ok((response, start)) => {
                if let Some(report) = &response.report {
                    let mib = report.memory_peak_bytes.div_ceil(1 << 20);
                    version.memory_used.record(u32::try_from(mib).unwrap_or(u32::MAX));
                }
                return Ok(Answered { response, assignment_us, start });
            }
            Err(failed) => failed,
        };
        match next(&error) {
            Next::OldHint { gone } => {
                if gone {
                    lease.dead();
                } else {
                    lease.stolen();
                }
                hints += 1;
                if hints > HINTS {
                    return Err(not_started(&error).into());
                }
            }
            Next::DiedBeforeStart => {
                lease.dead();
                if std::mem::replace(&mut died, true) {
                    return Err(error.retryable(Some(SOON)).into());
                }
            }
            Next::SandboxLives => {
                let mut lease = lease;
                lease.served();
                return Err(error.into());
            }
            Next::SandboxGone => {
                let lost = error.reason == reason::WORKER_LOST;
                let may_run = lost.then(|| (Arc::clone(lease.sandbox()), asked + patience(version)));
                if lost {
                    lease.stolen();
                } else {
                    lease.dead();
                }
                return Err(Failed { error, may_run });
            }
        }
    }
}

async fn ask(
    mut lease: Lease,
    version: &Version,
    invocation: &Invocation,
) -> Result<(InvokeSandboxResponse, Option<StartTiming>), (Lease, WireError)> {
    let timeout_ms = timeout_ms(version);
    let request = InvokeSandboxRequest {
        sandbox_id: lease.sandbox().id.to_string(),
        request_id: invocation.request_id.clone(),
        payload: invocation.payload.clone(),
        timeout_ms,
        grant_id: invocation.grant_id,
        grant_epoch: invocation.grant_epoch,
        want_log: invocation.want_log,
        client_deadline_unix_ms: 0,
    };
    let worker = &lease.sandbox().worker;
    let answer = async {
        match &invocation.follow {
            Some(follow) => followed(&mut worker.client(), request, follow).await,
            None => worker.express().invoke_sandbox(request).await.map(Response::into_inner),
        }
    };
    match tokio::time::timeout(patience(version), answer).await {
        Ok(Ok(response)) => {
            let start = lease.start();
            lease.served();
            Ok((response, start))
        }
        Ok(Err(status)) => {
            let error =
                worker_error(&status, "the connection to the worker broke; the function may have run");
            Err((lease, error))
        }
        Err(_elapsed) => {
            let message = "the worker did not answer in time; the function may have run";
            Err((lease, lost(message)))
        }
    }
}

async fn followed(
    worker: &mut Client,
    request: InvokeSandboxRequest,
    follow: &Follow,
) -> Result<InvokeSandboxResponse, Status> {
    let mut events = worker.invoke_sandbox_stream(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            // A follower who left or dawdles must not hold up the function: lines he cannot take are dropped.
            Some(invoke_sandbox_event::Event::Log(line)) => {
                let event = InvokeEvent { event: Some(invoke_event::Event::Log(line)) };
                drop(follow.try_send(Ok(event)));
            }
            Some(invoke_sandbox_event::Event::End(response)) => return Ok(response),
            None => {}
        }
    }
    Err(Status::unavailable("the worker ended the stream without an answer"))
}

fn timeout_ms(version: &Version) -> u32 {
    version.spec.limits.as_ref().map_or(0, |limits| limits.timeout_ms)
}

/// When an invocation must have ended, whatever became of it.
fn patience(version: &Version) -> Duration {
    Duration::from_millis(u64::from(timeout_ms(version))) + GRACE
}

/// What a worker says between it and us is not the client's affair: to him a sandbox was lost, and nothing has run.
fn not_started(error: &WireError) -> WireError {
    let message = format!(
        "{} sandboxes in a row were gone or busy before the function started; the last: {}",
        HINTS + 1,
        error.message
    );
    WireError::new(Code::Unavailable, reason::SANDBOX_LOST_BEFORE_START, Fault::System, message)
        .retryable(Some(SOON))
}

fn lost(message: &str) -> WireError {
    WireError::new(Code::Unavailable, reason::WORKER_LOST, Fault::System, message)
        .retryable(Some(Duration::from_millis(500)))
}

/// Microseconds since.
pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
