//! What is told: to the host by the queue, to subscribers by records.

use super::Supervisor;
use crate::clock::unix_ms;
use crate::core::{Answer, Record, Said};
use crate::serve::{answers, environment};
use crate::telemetry::record::{self, Facts};
use crate::telemetry::subscription::Category;
use warren_vmm_protocol::Done;
use warren_vmm_protocol::guest::{GuestReply, InitFailure};

impl Supervisor {
    pub(super) fn say(&self, said: Said) {
        self.drain();
        let outgoing = &self.0.outgoing;
        match said {
            Said::Ready { took } => outgoing.init(&GuestReply::Ready { init_us: took }),
            Said::InitFailed { took, fault } => {
                let (whole, part) = (took / 1000, took % 1000 / 10);
                let kind = &fault.error_type;
                let (report, phase) = match fault.failure {
                    InitFailure::Restore => ("RESTORE_REPORT Restore Duration", "restore"),
                    _ => ("INIT_REPORT Init Duration", "init"),
                };
                let line = format!(
                    "{report}: {whole}.{part:02} ms\tPhase: {phase}\tStatus: error\tError Type: {kind}\n"
                );
                outgoing.log(line.as_bytes());
                outgoing.init(&GuestReply::InitFailed { init_us: took, error: answers::init_error(&fault) });
            }
            Said::Done { answer, took } => {
                let event = self.0.state.borrow_mut().event.take();
                let id = event.as_ref().map_or("", |(event, _)| event.request_id.as_str());
                if let Answer::Failed(fault) = &answer {
                    let text = format!("RequestId: {id} Error: {}\n{}\n", fault.message, fault.error_type);
                    outgoing.log(text.as_bytes());
                }
                let (outcome, payload) = answers::outcome(id, answer);
                let done = Done {
                    outcome,
                    handler_us: took,
                    memory_peak_bytes: self.peak(),
                    payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                    exits: 0,
                };
                outgoing.done(done, &payload);
            }
        }
    }

    pub(super) fn record(&self, record: &Record) {
        if matches!(record, Record::InitReport { .. }) {
            self.0.state.borrow().hub.flush();
        }
        if let Record::Extension { name, subscription } = record {
            let wanted = [("INVOKE", subscription.invoke), ("SHUTDOWN", subscription.shutdown)];
            let events: Vec<_> = wanted.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
            let events = events.join(", ");
            let line = format!("EXTENSION\tName: {name}\tState: Registered\tEvents: [{events}]\n");
            self.0.outgoing.log(line.as_bytes());
        }
        let state = self.0.state.borrow();
        if !state.hub.wants(Category::Platform) {
            return;
        }
        let event = state.event.as_ref().map(|(event, _)| event);
        let facts = Facts {
            unix_ms: unix_ms(),
            request_id: event.map_or("", |event| event.request_id.as_str()),
            trace_id: event.and_then(|event| event.trace_id.as_deref()),
            kind: environment::kind(self.0.config.kind),
            version: self.0.config.function_version.as_str(),
            memory_mib: self.0.config.memory.get(),
            peak_bytes: state.programs.peak_bytes(),
        };
        state.hub.publish(self.0.clock, Category::Platform, &record::platform(record, &facts));
    }

    fn peak(&self) -> u64 {
        self.0.state.borrow().programs.peak_bytes()
    }
}
