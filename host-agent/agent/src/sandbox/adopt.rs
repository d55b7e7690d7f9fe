//! Taking over the sandboxes of an earlier agent: VMMs outlive it.
//!
//! What the jailer lists and a record describes is asked for its status over its own socket. Idle ones are idle again;
//! busy ones stay busy until their VM says idle (their caller is gone, their answer is lost, their grant still counts).
//! A Linux sandbox's guest is asked itself, and what it runs stands in its mark: `linux`.
//! Everything else is killed and reclaimed: a name without record, a record without process, a VM that does not answer.

mod linux;

use super::{
    birth::Vitals,
    grants::Running,
    invoke::parse_running_id,
    live::{Guest, Sandbox, Startup},
    machine::{Cause, Event, Machine},
    owner,
    record::Record,
};
use crate::{
    host::Host,
    logs::InvocationLog,
    pidfd::Pidfd,
    resources::Reservation,
    vmm::{ChannelError, ControlChannel, InvokeChannel},
};
use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::sleep};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Jailed, PAGER_NAME},
};
use warren_vmm_protocol::{Status, VmState};

/// How often a busy VM is asked whether it is done: soon at first, then rarely.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(250);
/// How often a jailer that is not there yet is asked.
const JAILER_RETRY: Duration = Duration::from_millis(100);

/// What became of the sandboxes found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Taken over.
    pub adopted: usize,
    /// Killed and reclaimed.
    pub reclaimed: usize,
}

/// Why one was not adopted.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("no record describes it")]
    NoRecord,
    #[error("its process is another than the record's")]
    OtherProcess,
    #[error("it is {0:?}, not idle or busy")]
    State(VmState),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its id is taken")]
    Taken,
}

/// Looks at everything the jailer runs. Waits for the jailer: without it there is nothing to serve.
pub async fn adopt_all(host: &Arc<Host>) -> io::Result<Adoption> {
    let (records, names) = host.run.read_all()?;
    let mut records: HashMap<SandboxName, Record> =
        records.into_iter().map(|record| (record.jail().clone(), record)).collect();
    let mut adoption = Adoption::default();
    let mut listed = list(host).await;
    // It is no sandbox, and its own client's to take over.
    listed.retain(|jailed| host.pager.known().is_none() || jailed.name.as_str() != PAGER_NAME);
    // A pid may be reused between the list and the pidfd: what is still listed after it was opened is the same.
    let opened: Vec<_> = listed.into_iter().map(|jailed| (Pidfd::open(jailed.pid), jailed)).collect();
    let still: HashMap<_, _> = list(host).await.into_iter().map(|jailed| (jailed.name, jailed.pid)).collect();
    for (pidfd, jailed) in opened {
        let record = records.remove(&jailed.name);
        let same = still.get(&jailed.name) == Some(&jailed.pid);
        let outcome =
            if same { adopt(host, &jailed, pidfd, record).await } else { Err(AdoptError::OtherProcess) };
        match outcome {
            Ok(()) => adoption.adopted += 1,
            Err(error) => {
                tracing::warn!(sandbox = %jailed.name, %error, "not adopted: killed");
                if host.jailer.kill(&jailed.name).await.is_err() {
                    // The jailer itself has just gone: nothing waits for it, and nothing is forgotten.
                    let (jailer, name) = (host.jailer.clone(), jailed.name.clone());
                    tokio::spawn(async move { jailer.kill_until_gone(&name).await });
                }
                host.run.remove(&jailed.name);
                adoption.reclaimed += 1;
            }
        }
    }
    for name in names.iter().filter(|name| !still.contains_key(*name)) {
        host.run.remove(name);
    }
    Ok(adoption)
}

async fn list(host: &Host) -> Vec<Jailed> {
    loop {
        match host.jailer.list().await {
            Ok(listed) => return listed,
            Err(error) => {
                tracing::warn!(%error, "waiting for the jailer");
                sleep(JAILER_RETRY).await;
            }
        }
    }
}

async fn adopt(
    host: &Arc<Host>,
    jailed: &Jailed,
    pidfd: io::Result<Pidfd>,
    record: Option<Record>,
) -> Result<(), AdoptError> {
    let record = record.ok_or(AdoptError::NoRecord)?;
    if record.pid != jailed.pid {
        return Err(AdoptError::OtherProcess);
    }
    let pidfd = pidfd?;
    let socket = host.run.socket(&jailed.name);
    let mut control = ControlChannel::connect(&socket).await?;
    let status = control.status().await?;
    let reservation = host.memory.reserve_adopted(record.about.guest, record.about.memory_mib);
    let origin = record.origin();
    let sandbox = Sandbox::new(record.about, Machine::with_finished(status.invocations));
    sandbox.set_jailed(&jailed.name, jailed.pid);
    sandbox.set_origin(origin);
    let drain = follow_log(host, &sandbox).await;
    if sandbox.about.guest == Guest::Linux {
        let found = Found { vitals: Vitals { pidfd, control, _kept: None }, reservation, drain };
        return linux::adopt(host, sandbox, found).await;
    }
    let counted = match status.state {
        VmState::Idle => {
            let channel = InvokeChannel::connect(&socket).await?;
            sandbox.ready(Event::Adopt(None), channel, Startup::default()).map_err(|_| AdoptError::Taken)?;
            None
        }
        VmState::Busy => Some(adopt_busy(host, &sandbox, status)?),
        state => return Err(AdoptError::State(state)),
    };
    enter(host, &sandbox).await?;
    let found = Found { vitals: Vitals { pidfd, control, _kept: None }, reservation, drain };
    tokio::spawn(own(Arc::clone(host), sandbox, found, counted));
    Ok(())
}

/// What an adopted sandbox's owner gets.
struct Found {
    vitals: Vitals,
    reservation: Reservation,
    /// Who reads its VMM's log.
    drain: Option<JoinHandle<()>>,
}

/// Reads its VMM's log from here on, so that its last words are known. What was written to the agent before is gone with that.
async fn follow_log(host: &Host, sandbox: &Sandbox) -> Option<JoinHandle<()>> {
    match host.jailer.log(&sandbox.jail()).await {
        Ok(log) => Some(tokio::spawn(sandbox.vmm_log.clone().drain(sandbox.about.id.to_string(), log))),
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.about.id, %error, "its log cannot be read on");
            None
        }
    }
}

/// From now on it is in the table.
async fn enter(host: &Host, sandbox: &Arc<Sandbox>) -> Result<(), AdoptError> {
    if !host.sandboxes.insert(sandbox) {
        return Err(AdoptError::Taken);
    }
    // Usually known from the file; an adopted epoch may also be older than another adopted one.
    let _ = host.fence.admit(sandbox.about.partition, sandbox.about.epoch).await;
    host.report(sandbox);
    Ok(())
}

fn adopt_busy(host: &Host, sandbox: &Sandbox, status: Status) -> Result<Running, AdoptError> {
    let (request_id, grant) = parse_running_id(&status.running.unwrap_or_default());
    sandbox.apply(Event::Adopt(Some(request_id))).map_err(|_| AdoptError::Taken)?;
    Ok(host.grants.adopt(grant))
}

/// The owner task of an adopted sandbox.
async fn own(host: Arc<Host>, sandbox: Arc<Sandbox>, found: Found, counted: Option<Running>) {
    let Found { mut vitals, reservation, drain } = found;
    if let Some(counted) = counted {
        let request_id = sandbox.on_wire(&host.id).request_id;
        let socket = host.run.socket(&sandbox.jail());
        let ended = tokio::select! {
            ended = until_idle(&sandbox, &mut vitals.control, &socket) => ended,
            _ = vitals.pidfd.exited() => Err(ChannelError::Closed),
            () = sandbox.died.notified() => Ok(()),
        };
        if let Err(error) = ended {
            sandbox.kill(Cause::Lost(error.to_string()));
        }
        drop(counted);
        log_lost(&host, &sandbox, &request_id);
        host.report(&sandbox);
    }
    owner::watch(&host, &sandbox, vitals).await;
    owner::reclaim(&host, &sandbox, drain, reservation).await;
}

/// The end of an event whose caller is gone.
fn log_lost(host: &Host, sandbox: &Sandbox, request_id: &str) {
    let mut log = InvocationLog::new(host.logs.clone(), sandbox.line_context(request_id), false, None);
    log.line(
        "[warren] the agent restarted while this invocation ran; its log and answer are lost".to_owned(),
    );
    log.line(format!("END RequestId: {request_id}"));
    let _ = log.finish();
}

/// Asks until the VM is idle, then connects for the next invocation. The VMM itself ends one that runs too long.
async fn until_idle(
    sandbox: &Sandbox,
    control: &mut ControlChannel,
    socket: &Path,
) -> Result<(), ChannelError> {
    let mut wait = FIRST_LOOK;
    while control.status().await?.state == VmState::Busy {
        sleep(wait).await;
        wait = (wait * 2).min(LAST_LOOK);
    }
    let channel = InvokeChannel::connect(socket).await?;
    // Refused if it was killed meanwhile; the owner sees that by itself.
    let _ = sandbox.ready(Event::End(None), channel, Startup::default());
    Ok(())
}
