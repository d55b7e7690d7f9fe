//! One invocation: START, the event to the VMM, its log and its end back, END and REPORT.
//!
//! ```text
//! begin (refused unless idle) ─▶ send ─┬─▶ log* ─▶ done ─┬─ response ───────────────▶ answer     sandbox idle
//!                                      │                 ├─ function failed ────────▶ its fault  sandbox idle
//!                                      │                 └─ timed out, guest fault ─▶ error      sandbox dead
//!                                      └─ connection gone ─────────────────────────▶ lost       sandbox dead
//! ```
//! The whole runs to its end even if the caller leaves: see [`super::detach`].

use super::{
    error::InvokeError,
    grants::Grant,
    live::{Begun, Sandbox},
    machine::Cause,
};
use crate::{
    host::Host,
    logs::{InvocationLog, Line, ReportLine, billed_ms, now_ms, now_us},
    vmm::Progress,
};
use bytes::Bytes;
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};
use warren_proto::{
    MAX_PAYLOAD_BYTES,
    error::Said,
    v1::{InvokeSandboxRequest, InvokeSandboxResponse, Report},
};
use warren_vmm_protocol::{Done, InvokeRequest, Outcome};

/// What a VMM may take beyond the handler's timeout before it is taken for wedged.
const GRACE: Duration = Duration::from_secs(5);
/// How long a lost sandbox's last words are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Longest request id.
const MAX_REQUEST_ID: usize = 64;

/// What a function is told of its invocation, as JSON.
#[derive(Serialize)]
struct Context<'a> {
    request_id: &'a str,
    function: &'a str,
    version: u64,
    memory_mib: u32,
    timeout_ms: u32,
    deadline_unix_ms: u64,
}

/// A checked request.
#[derive(Debug)]
pub struct Invocation {
    request_id: String,
    payload: Bytes,
    timeout_ms: u32,
    grant: Grant,
    want_log: bool,
}

/// What the VMM said in the end.
enum Ending {
    Done(Done, Bytes),
    NotStarted(String),
    Lost(String),
}

impl Invocation {
    /// The one door from the wire, for a function that may run so long.
    pub fn check(request: InvokeSandboxRequest, longest_ms: u32) -> Result<Self, InvokeError> {
        let id_fits = (1..=MAX_REQUEST_ID).contains(&request.request_id.len())
            && request.request_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !id_fits {
            return Err(InvokeError::Request("a request id is 1 to 64 characters of A-Z, a-z, 0-9 and -"));
        }
        if request.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(InvokeError::PayloadTooLarge(request.payload.len()));
        }
        if request.client_deadline_unix_ms != 0 && request.client_deadline_unix_ms <= now_ms() {
            return Err(InvokeError::TooLate);
        }
        Ok(Self {
            request_id: request.request_id,
            payload: request.payload,
            timeout_ms: if request.timeout_ms == 0 { longest_ms } else { request.timeout_ms.min(longest_ms) },
            grant: Grant { id: request.grant_id, epoch: request.grant_epoch },
            want_log: request.want_log,
        })
    }

    /// How long the function gets.
    #[must_use]
    pub const fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// What its VMM knows it by.
    #[must_use]
    pub fn running_id(&self) -> String {
        running_id(&self.request_id, self.grant)
    }

    /// Lets it in, or says what the sandbox is doing instead.
    pub async fn begin(&self, host: &Host, sandbox: &Arc<Sandbox>) -> Result<Begun, InvokeError> {
        // Ready at once, but for the first invocation of a new epoch.
        host.fence.grant(self.grant.epoch).await?;
        let begun = sandbox.begin(&self.request_id, self.grant, &host.grants)?;
        host.report(sandbox);
        Ok(begun)
    }
}

/// Runs an invocation that was let in; `live` gets its log lines as they come.
pub async fn run(
    host: Arc<Host>,
    mut begun: Begun,
    invocation: Invocation,
    live: Option<mpsc::Sender<Line>>,
) -> Result<InvokeSandboxResponse, InvokeError> {
    let sandbox = Arc::clone(begun.sandbox());
    let context = sandbox.line_context(&invocation.request_id);
    let mut log = InvocationLog::new(host.logs.clone(), context, invocation.want_log, live);
    log.line(format!("START RequestId: {} Version: {}", invocation.request_id, sandbox.about.version));
    let start = Instant::now();
    let patience = Duration::from_millis(invocation.timeout_ms.into()) + GRACE;
    let ending = match timeout(patience, exchange(&mut begun, &invocation, &mut log)).await {
        Ok(ending) => ending,
        Err(_) => Ending::Lost(format!("its VMM did not answer within {patience:?}")),
    };
    log.function_ended();
    // Before the sandbox is let go: what lies between START and END, nothing else ran there.
    let ended = now_us();

    let report = report(&sandbox, &begun, &invocation, &ending, start);
    let handler_us = report.duration_us;
    let (result, cause) = judge(&sandbox, &invocation, ending);
    begun.end(cause.clone(), report.memory_peak_bytes);
    host.report(&sandbox);
    if let Err(error) = &result {
        log.line_at(ended, format!("[warren] {error}"));
    }
    log.line_at(ended, format!("END RequestId: {}", invocation.request_id));
    log.line_at(ended, ReportLine(&report).to_string());
    let log_tail = log.finish();
    match result {
        Ok(payload) => Ok(InvokeSandboxResponse { payload, report: Some(report), log_tail, handler_us }),
        Err(InvokeError::Lost(text)) => Err(InvokeError::Lost(with_last_words(&sandbox, text).await)),
        Err(InvokeError::LostBeforeStart(text)) => {
            Err(InvokeError::LostBeforeStart(with_last_words(&sandbox, text).await))
        }
        Err(error) => Err(error),
    }
}

async fn exchange(begun: &mut Begun, invocation: &Invocation, log: &mut InvocationLog) -> Ending {
    let about = &begun.sandbox().about;
    let context = Context {
        request_id: &invocation.request_id,
        function: &about.function,
        version: about.version,
        memory_mib: about.memory_mib,
        timeout_ms: invocation.timeout_ms,
        deadline_unix_ms: now_ms() + u64::from(invocation.timeout_ms),
    };
    let request = InvokeRequest {
        id: invocation.running_id(),
        timeout_ms: invocation.timeout_ms,
        context: serde_json::to_vec(&context).unwrap_or_default(),
        payload_len: u32::try_from(invocation.payload.len()).unwrap_or(u32::MAX),
    };
    let Some(channel) = begun.channel() else { return Ending::NotStarted("it has no connection".to_owned()) };
    if let Err(error) = channel.send(&request, &invocation.payload).await {
        return Ending::NotStarted(error.to_string());
    }
    loop {
        match channel.next().await {
            Ok(Progress::Log(bytes)) => log.bytes(&bytes),
            Ok(Progress::Done(done, payload)) => return Ending::Done(done, payload),
            Err(error) => return Ending::Lost(error.to_string()),
        }
    }
}

/// The answer, and whether the sandbox ends with it.
fn judge(
    sandbox: &Sandbox,
    invocation: &Invocation,
    ending: Ending,
) -> (Result<Bytes, InvokeError>, Option<Cause>) {
    let (done, payload) = match ending {
        Ending::Done(done, payload) => (done, payload),
        Ending::NotStarted(text) => {
            return (Err(InvokeError::LostBeforeStart(text.clone())), Some(Cause::Lost(text)));
        }
        Ending::Lost(text) => return (Err(InvokeError::Lost(text.clone())), Some(Cause::Lost(text))),
    };
    match done.outcome {
        Outcome::Response if sandbox.about.json_response => match check_json(&payload) {
            Ok(()) => (Ok(payload), None),
            Err(error) => (Err(InvokeError::NotJson(error)), None),
        },
        Outcome::Response => (Ok(payload), None),
        Outcome::Function { error, exit_code, detail } => {
            (Err(InvokeError::Function { error, exit_code, detail, said: said(&payload) }), None)
        }
        Outcome::TimedOut => (Err(InvokeError::TimedOut(invocation.timeout_ms)), Some(Cause::TimedOut)),
        Outcome::Guest(text) => (Err(InvokeError::GuestFault(text.clone())), Some(Cause::GuestFault(text))),
        Outcome::Stopped => (Err(InvokeError::Stopped), Some(Cause::Lost("it was shut down".to_owned()))),
    }
}

fn report(
    sandbox: &Sandbox,
    begun: &Begun,
    invocation: &Invocation,
    ending: &Ending,
    start: Instant,
) -> Report {
    let (duration_us, memory_peak_bytes) = match ending {
        Ending::Done(done, _) => (done.handler_us, done.memory_peak_bytes),
        Ending::NotStarted(_) => (0, 0),
        Ending::Lost(_) => (u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX), 0),
    };
    Report {
        request_id: invocation.request_id.clone(),
        duration_us,
        billed_ms: billed_ms(duration_us, begun.startup.init_us),
        memory_mib: sandbox.about.memory_mib,
        memory_peak_bytes,
        init_us: begun.startup.init_us,
        restore_us: begun.startup.restore_us,
    }
}

/// What a function's error document says (Linux functions have one).
fn said(payload: &[u8]) -> Option<Said> {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Document {
        error_type: String,
        error_message: String,
    }
    let document: Document = serde_json::from_slice(payload).ok()?;
    let Document { error_type, error_message } = document;
    (!error_type.is_empty()).then_some(Said { error_type, error_message })
}

fn check_json(payload: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// How its process ended and what it said last, if that is known soon.
async fn with_last_words(sandbox: &Sandbox, text: String) -> String {
    let exit = timeout(LAST_WORDS, sandbox.wait_gone()).await.unwrap_or_default();
    let log = sandbox.vmm_log.text();
    let parts = [text, exit, log].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

/// What the VMM knows an event by: the grant rides along, so that an agent that adopts a busy sandbox knows under which
/// grant it runs, and strict counting survives the restart.
pub(super) fn running_id(request_id: &str, grant: Grant) -> String {
    match grant.id {
        0 => request_id.to_owned(),
        id => format!("{request_id}/{id}.{}", grant.epoch),
    }
}

/// The reverse of what an event is known by.
#[must_use]
pub fn parse_running_id(text: &str) -> (String, Grant) {
    let parse = || {
        let (request_id, grant) = text.split_once('/')?;
        let (id, epoch) = grant.split_once('.')?;
        Some((request_id.to_owned(), Grant { id: id.parse().ok()?, epoch: epoch.parse().ok()? }))
    };
    parse().unwrap_or_else(|| (text.to_owned(), Grant::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_ride_along() {
        for grant in [Grant::default(), Grant { id: 7, epoch: 9 }, Grant { id: u64::MAX, epoch: 0 }] {
            assert_eq!(parse_running_id(&running_id("r-1", grant)), ("r-1".to_owned(), grant));
        }
        assert_eq!(parse_running_id("r/x.1"), ("r/x.1".to_owned(), Grant::default()));
    }

    #[test]
    fn documents_of_errors() {
        let good = said(br#"{"errorType":"ValueError","errorMessage":"no","stackTrace":[]}"#).unwrap();
        assert_eq!((good.error_type.as_str(), good.error_message.as_str()), ("ValueError", "no"));
        for bad in [&b""[..], b"not json", b"[]", br#"{"errorMessage":"no type"}"#, br#"{"errorType":1}"#] {
            assert_eq!(said(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn json_table() {
        for good in [&b"{}"[..], b" [1, \"\xc3\xa4\"] ", b"null"] {
            assert_eq!(check_json(good), Ok(()), "{good:?}");
        }
        for bad in [&b""[..], b"{", b"\"\xff\"", b"{} x"] {
            assert!(check_json(bad).is_err(), "{bad:?}");
        }
    }
}
