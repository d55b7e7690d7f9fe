//! The vCPU thread: owner of the sandbox's life.
//!
//! ```text
//!            Order::Start          Ready                 whole request
//!   Empty ----------------> Initialising ------> Idle <=================> Busy
//!     |    Order::Resume         |                ^
//!     +--------------------------|----------------+
//!     |                          |                |    Response, Error      |
//!     | shutdown                 | error, timeout,| shutdown                | timeout, fault,
//!     |                          | fault, shutdown|                         | panic, shutdown
//!     +--------------------------+--------> Dead <+-------------------------+
//! ```
//! - **Empty**: VM and guest program are there, no function. Only orders are waited for.
//! - **Initialising**: the guest runs until it rings `Ready`. An error, a panic, a fault, a reply out of contract or
//!   the deadline is reported as a failed load, and the state is Dead.
//! - **Idle**: the vCPU is held in its doorbell; a guest that was brought back begins here, and for a snapshot it says its
//!   registers and waits for the main thread's word before it looks at anything else. One that is reset forgets its registers, waits
//!   until its memory is what it was, and is Idle as one that was just brought back. Orders and the invoke connection are waited for; a new connection
//!   replaces the old one together with whatever had half arrived on it; a closed or misbehaving connection is dropped.
//! - **Busy**: the guest runs an event. Its logs go out when its log area is full and at the end. A connection that
//!   breaks now loses the result, and the next state is still Idle. A new connection waits for Idle: it gets nothing
//!   of an event it did not ask for. Anything out of contract, the deadline and Shutdown end in Dead, after the
//!   outcome was sent.
//! - **Dead**: the end is reported; the main thread ends the process.

mod init;
mod rest;

use crate::bare::Rehearsal;
use crate::cpu::{Cpu, GuestFault, Stop};
use crate::end::End;
use crate::link::{Link, LinkError, PayloadProgress, SMALL_RESPONSE, frame_log};
use crate::log;
use crate::machine::Start;
use crate::mailbox::Mailbox;
use crate::orders::{Order, Orders, Report, Reports};
use crate::progress::{Progress, StopCause, monotonic_ns, wall_ns};
use crate::seeds::Seeds;
use crate::waiting::wait;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use warren_abi::mailbox::{EventHeader, Reply, ReplyBody};
use warren_boot::entry::EntryState;
use warren_vmm_protocol::frame::{self, FrameError};
use warren_vmm_protocol::{Done, InvokeReply, InvokeRequest, Outcome, VmState};

/// The generation of a guest that was never restored.
pub const FIRST_GENERATION: u64 = 1;

/// The vCPU thread's belongings.
#[derive(Debug)]
pub struct Life {
    cpu: Cpu,
    /// What to do before anything, and who waits for it.
    rehearsal: Option<(Rehearsal, Sender<Infallible>)>,
    orders: Orders,
    reports: Reports,
    progress: Arc<Progress>,
    link: Option<Link>,
    sequence: u64,
    /// One more for every time this guest was restored: it forgets what it drew and knew of time before.
    generation: u64,
    /// Whether the function drew random bytes in init: no clone is made of it.
    drew: bool,
    seeds: Seeds,
}

/// What a loaded guest is, whether it was built or restored.
#[derive(Debug)]
struct Guest {
    entry: EntryState,
    mailbox: Mailbox,
    memory_bytes: u64,
}

/// What an idle guest does next.
enum Next {
    /// An event.
    Event(InvokeRequest),
    /// What it did when it was brought back.
    Again,
}

/// Why the guest stopped for good.
#[derive(Debug)]
enum Halted {
    Told(StopCause),
    Fault(GuestFault),
    Host(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Halted {
    fn from(error: E) -> Self {
        Self::Host(error.into())
    }
}

impl Life {
    /// A life not yet begun.
    #[must_use]
    pub fn new(
        (cpu, rehearsal): (Cpu, Option<(Rehearsal, Sender<Infallible>)>),
        orders: Orders,
        reports: Reports,
        progress: Arc<Progress>,
    ) -> Self {
        let (link, sequence, generation, seeds) = (None, 0, FIRST_GENERATION, Seeds::default());
        Self { cpu, rehearsal, orders, reports, progress, link, sequence, generation, drew: false, seeds }
    }

    /// Lives, on the calling thread, and reports the end.
    pub fn live(mut self) {
        self.progress.set_kicker(Some(self.cpu.kicker()));
        let Err(end) = self.states();
        let _ = self.progress.end(VmState::Dead, self.cpu.exits());
        self.progress.set_kicker(None);
        self.reports.send(Report::Ended(end));
    }

    /// Ends before it began.
    pub fn refuse(self, error: anyhow::Error) {
        self.reports.send(Report::Ended(End::Host(error)));
    }

    fn states(&mut self) -> Result<Infallible, End> {
        if let Some((rehearsal, _performed)) = self.rehearsal.take() {
            rehearsal.perform(&mut self.cpu).map_err(|error| End::Host(error.into()))?;
        }
        let mut guest = self.empty()?;
        loop {
            match self.idle(&guest)? {
                Next::Event(request) => self.busy(&guest, &request)?,
                Next::Again => guest = self.again()?,
            }
        }
    }

    /// Waits for a guest, and brings it to where it can take events.
    fn empty(&mut self) -> Result<Guest, End> {
        loop {
            wait(&self.orders, None, &self.progress)?;
            while let Some(order) = self.orders.next() {
                match order {
                    Order::Start(start) => {
                        self.initialising(&start)?;
                        let Start { entry, mailbox, memory_bytes, .. } = *start;
                        return Ok(Guest { entry, mailbox, memory_bytes });
                    }
                    Order::Resume(resume) => return self.resume(*resume),
                    Order::Link(link) => self.link = Some(link),
                    Order::Hold => self.reports.send(Report::Held(Err("nothing is loaded".into()))),
                    Order::Release | Order::Reset => {}
                }
            }
        }
    }

    /// Waits for a whole request, its payload in the mailbox, or for the word to begin again.
    fn idle(&mut self, guest: &Guest) -> Result<Next, End> {
        let mut arriving = None;
        loop {
            match self.advance(&guest.mailbox, arriving.take()) {
                Ok(Some((request, at))) if at.done == at.len => return Ok(Next::Event(request)),
                Ok(partial) => arriving = partial,
                Err(error) => self.drop_link(&error),
            }
            let ready = wait(&self.orders, self.link.as_ref(), &self.progress)?;
            // A payload is read by `advance`, straight into the mailbox.
            if ready.link && arriving.is_none() {
                let received = self.link.as_mut().map_or(Ok(()), Link::receive);
                if let Err(error) = received {
                    self.drop_link(&error);
                }
            }
            if ready.orders {
                while let Some(order) = self.orders.next() {
                    match order {
                        Order::Link(link) => {
                            self.link = Some(link);
                            arriving = None;
                        }
                        Order::Hold => self.hold(guest)?,
                        Order::Reset => {
                            // What arrived of it lies in memory that goes.
                            if arriving.is_some() {
                                log!("invoke connection dropped: reset in the middle of a request");
                                self.link = None;
                            }
                            return Ok(Next::Again);
                        }
                        Order::Start(_) | Order::Resume(_) | Order::Release => {}
                    }
                }
            }
        }
    }

    fn drop_link(&mut self, error: &LinkError) {
        if !matches!(error, LinkError::Closed) {
            log!("invoke connection dropped: {error}");
        }
        self.link = None;
    }

    /// Takes what has arrived as far as it goes.
    fn advance(
        &mut self,
        mailbox: &Mailbox,
        arriving: Option<(InvokeRequest, PayloadProgress)>,
    ) -> Result<Option<(InvokeRequest, PayloadProgress)>, LinkError> {
        let Some(link) = &mut self.link else {
            return Ok(None);
        };
        let (request, mut at) = match arriving {
            Some(arriving) => arriving,
            None => match link.take_request()? {
                None => return Ok(None),
                Some(request) => {
                    mailbox.put_context(&request.context).map_err(std::io::Error::other)?;
                    let context_len = u32::try_from(request.context.len()).unwrap_or(0);
                    let at = PayloadProgress { context_len, done: 0, len: request.payload_len };
                    (request, at)
                }
            },
        };
        if at.done < at.len {
            link.take_payload(mailbox, &mut at)?;
        }
        Ok(Some((request, at)))
    }

    fn busy(&mut self, guest: &Guest, request: &InvokeRequest) -> Result<(), End> {
        let exits_before = self.cpu.exits();
        let begin = monotonic_ns();
        let result = self.run_event(&guest.mailbox, request, begin);
        let told = self.progress.end(VmState::Idle, self.cpu.exits());
        // The deadline may have passed while the last exit was on its way: then the vCPU is stopped for good.
        let result = match told {
            Some(StopCause::Deadline) => Err(Halted::Told(StopCause::Deadline)),
            _ => result,
        };
        let peak = guest.mailbox.memory_peak().unwrap_or(0).min(guest.memory_bytes);
        let (outcome, payload_len, end) = match result {
            Ok((outcome, payload_len)) => (outcome, payload_len, None),
            Err(Halted::Told(StopCause::Deadline)) => (Outcome::TimedOut, 0, Some(End::TimedOut)),
            Err(Halted::Told(StopCause::Shutdown)) => (Outcome::Stopped, 0, Some(End::Shutdown)),
            Err(Halted::Fault(fault)) => (Outcome::Guest(fault.to_string()), 0, Some(End::Guest(fault))),
            Err(Halted::Host(error)) => (Outcome::Guest(format!("{error:#}")), 0, Some(End::Host(error))),
        };
        let done = Done {
            outcome,
            handler_us: monotonic_ns().saturating_sub(begin) / 1000,
            memory_peak_bytes: peak,
            payload_len,
            exits: self.cpu.exits() - exits_before,
        };
        self.send_done(&guest.mailbox, done);
        end.map_or(Ok(()), Err)
    }

    /// Runs the guest to the end of one event: its outcome and the bytes of its response.
    fn run_event(
        &mut self,
        mailbox: &Mailbox,
        request: &InvokeRequest,
        begin: u64,
    ) -> Result<(Outcome, u32), Halted> {
        let deadline_ns = begin.saturating_add(u64::from(request.timeout_ms) * 1_000_000);
        self.progress.begin(VmState::Busy, Some(&request.id), deadline_ns);
        self.sequence += 1;
        let header = EventHeader {
            sequence: self.sequence,
            generation: self.generation,
            deadline_ns,
            context_len: u32::try_from(request.context.len()).unwrap_or(0),
            payload_len: request.payload_len,
            ..Default::default()
        };
        hand_over(mailbox, &mut self.seeds, header)?;
        loop {
            let reply = self.next_reply(mailbox)?;
            match reply.body {
                ReplyBody::LogFlush => {
                    let log = mailbox.take_log()?;
                    self.send_with(|out| frame_log(out, &log), None);
                }
                ReplyBody::Response { payload_len } => return Ok((Outcome::Response, payload_len)),
                ReplyBody::Error { error, exit_code, detail_len } => {
                    let detail = mailbox.detail(detail_len)?;
                    return Ok((Outcome::Function { error, exit_code, detail }, 0));
                }
                body => return Err(Halted::Fault(fault_of(body, mailbox)?)),
            }
        }
    }

    /// Runs the guest to its next doorbell.
    fn next_reply(&mut self, mailbox: &Mailbox) -> Result<Reply, Halted> {
        loop {
            match self.cpu.run(mailbox.ram()) {
                Stop::Doorbell => {
                    return mailbox.reply()?.map_err(|fault| Halted::Fault(GuestFault::Reply(fault)));
                }
                Stop::Fault(fault) => return Err(Halted::Fault(fault)),
                Stop::Interrupted => {
                    if let Some(cause) = self.progress.stop_cause() {
                        return Err(Halted::Told(cause));
                    }
                }
            }
        }
    }

    /// The end of an event: the rest of its log, the outcome, the response.
    fn send_done(&mut self, mailbox: &Mailbox, done: Done) {
        let len = done.payload_len;
        let log = mailbox.take_log().unwrap_or_default();
        let head = |out: &mut Vec<u8>| {
            frame_log(out, &log)?;
            out.extend(frame::encode(&InvokeReply::Done(done))?);
            if len > 0 && len <= SMALL_RESPONSE {
                out.extend(mailbox.response(len).unwrap_or_default());
            }
            Ok(())
        };
        self.send_with(head, (len > SMALL_RESPONSE).then_some((mailbox, len)));
    }

    /// Sends what `frames` writes and then a response, if there is a connection; one that fails is given up.
    fn send_with(
        &mut self,
        frames: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
        response: Option<(&Mailbox, u32)>,
    ) {
        let Some(link) = &mut self.link else {
            return;
        };
        let mut out = Vec::with_capacity(512);
        let sent = frames(&mut out)
            .map_err(LinkError::from)
            .and_then(|()| link.send(&out))
            .and_then(|()| response.map_or(Ok(()), |(mailbox, len)| link.send_response(mailbox, len)));
        if let Err(error) = sent {
            log!("result dropped: {error}");
            self.link = None;
        }
    }
}

/// Completes a header with clocks and seed, and writes it.
fn hand_over(mailbox: &Mailbox, seeds: &mut Seeds, header: EventHeader) -> Result<(), Halted> {
    let seed = seeds.draw()?;
    let (wall_ns, monotonic_ns) = (wall_ns(), monotonic_ns());
    mailbox.put_event(&EventHeader { wall_ns, monotonic_ns, seed, ..header })?;
    Ok(())
}

/// Replies that end a guest wherever they come.
fn fault_of(body: ReplyBody, mailbox: &Mailbox) -> Result<GuestFault, Halted> {
    Ok(match body {
        ReplyBody::Panic { detail_len } => GuestFault::Panic(mailbox.detail(detail_len)?),
        ReplyBody::Ready { .. } => GuestFault::Unexpected("ready again"),
        ReplyBody::Response { .. } => GuestFault::Unexpected("a response to no event"),
        ReplyBody::Error { .. } => GuestFault::Unexpected("an error to no event"),
        ReplyBody::LogFlush => GuestFault::Unexpected("a log flush"),
    })
}
