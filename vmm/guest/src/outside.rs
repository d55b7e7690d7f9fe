//! What is outside the function: events and responses in the mailbox, logs, clocks, randomness.

use crate::raw::{self, Area, Field};
use warren_abi::mailbox::{DETAIL_MAX, LOG_MAX, PAYLOAD_MAX, ReplyKind};
use warren_wasi::{Host, ResponseTooLarge, random::Random, time::Timeline};

/// Log lines of a long run reach their followers at least this often (at the next write).
const LOG_FLUSH_NS: u64 = 100_000_000;

/// One sandbox's outside.
#[derive(Debug)]
pub(crate) struct Outside {
    time: Timeline,
    random: Random,
    drew: bool,
    generation: u64,
    /// Where the payload lies in the event area.
    payload: (u32, u32),
    context_len: u32,
    deadline_ns: u64,
    response_len: usize,
    flushed_ns: u64,
}

impl Outside {
    /// The outside at start-up: the monitor has already written clocks and a seed.
    pub(crate) fn new(ticks_per_second: u64) -> Self {
        let first = raw::event_header();
        let mut outside = Self {
            time: Timeline::new(ticks_per_second),
            random: Random::new(first.seed),
            drew: false,
            generation: first.generation,
            payload: (0, 0),
            context_len: 0,
            deadline_ns: first.deadline_ns,
            response_len: 0,
            flushed_ns: 0,
        };
        outside.take_event();
        outside
    }

    /// Takes over the event in the mailbox: clocks, seed, where its bytes lie.
    pub(crate) fn take_event(&mut self) {
        let header = raw::event_header();
        let forget = header.generation != self.generation;
        self.generation = header.generation;
        self.time.rebase(raw::ticks(), header.wall_ns, header.monotonic_ns, forget);
        self.random.reseed(header.seed, forget);
        self.context_len = header.context_len;
        self.payload = (header.context_len, header.payload_len);
        // The host's clock may lie behind ours after a restore; what counts is the time left.
        let left = header.deadline_ns.saturating_sub(header.monotonic_ns);
        self.deadline_ns = self.monotonic_ns().saturating_add(left);
        self.flushed_ns = self.monotonic_ns();
        self.response_len = 0;
    }

    /// The context, as the caller sent it.
    pub(crate) fn context(&self) -> &[u8] {
        raw::event_bytes((0, self.context_len))
    }

    /// Where the payload lies in the event area: offset and length.
    pub(crate) const fn payload(&self) -> (u32, u32) {
        self.payload
    }

    /// Time until the sandbox is stopped.
    pub(crate) fn remaining_ns(&mut self) -> u64 {
        self.deadline_ns.saturating_sub(self.monotonic_ns())
    }

    /// Whether anybody drew random bytes.
    pub(crate) const fn drew(&self) -> bool {
        self.drew
    }

    /// Bytes of response so far.
    pub(crate) const fn response_len(&self) -> usize {
        self.response_len
    }

    /// Hands the log over and waits until the monitor has taken it.
    fn flush_log(&mut self) {
        Field::Kind.set(ReplyKind::LogFlush as u32);
        raw::ring();
        self.flushed_ns = self.monotonic_ns();
    }
}

impl Host for Outside {
    fn wall_ns(&mut self) -> u64 {
        self.time.wall_ns(raw::ticks())
    }

    fn monotonic_ns(&mut self) -> u64 {
        self.time.monotonic_ns(raw::ticks())
    }

    fn pause(&mut self) {
        core::hint::spin_loop();
    }

    fn fill_random(&mut self, out: &mut [u8]) {
        self.drew = true;
        self.random.fill(out);
    }

    fn stdin(&self) -> &[u8] {
        raw::event_bytes(self.payload)
    }

    fn write_response(&mut self, bytes: &[u8]) -> Result<(), ResponseTooLarge> {
        let most = usize::try_from(PAYLOAD_MAX).unwrap_or(0);
        if bytes.len() > most.saturating_sub(self.response_len) {
            return Err(ResponseTooLarge);
        }
        self.response_len += raw::put(Area::Response, self.response_len, bytes);
        Ok(())
    }

    /// The length is stored after the bytes, so that what was logged before a kill is whole.
    fn write_log(&mut self, mut bytes: &[u8]) {
        let most = usize::try_from(LOG_MAX).unwrap_or(0);
        while !bytes.is_empty() {
            let len = Field::LogLen.get() as usize;
            if len >= most {
                self.flush_log();
                continue;
            }
            let done = raw::put(Area::Log, len, bytes);
            Field::LogLen.set(u32::try_from(len + done).unwrap_or(0));
            bytes = bytes.get(done..).unwrap_or_default();
        }
        if self.monotonic_ns().saturating_sub(self.flushed_ns) > LOG_FLUSH_NS {
            self.flush_log();
        }
    }
}

/// Rings with a reply and comes back with the next event in the mailbox.
pub(crate) fn reply(reply: &Reply, memory_peak_bytes: u64) {
    let (kind, error, exit_code) = match reply {
        Reply::Ready { drew } => (ReplyKind::Ready, 0, u32::from(*drew)),
        Reply::Response { payload_len } => {
            Field::PayloadLen.set(u32::try_from(*payload_len).unwrap_or(0));
            (ReplyKind::Response, 0, 0)
        }
        Reply::Failed(failure) => {
            put_detail(failure.detail.as_bytes());
            (ReplyKind::Error, failure.error as u32, failure.exit_code)
        }
    };
    Field::Kind.set(kind as u32);
    Field::Error.set(error);
    Field::ExitCode.set(exit_code);
    raw::set_memory_peak(memory_peak_bytes);
    raw::ring();
    Field::PayloadLen.set(0);
    Field::DetailLen.set(0);
}

/// What the guest has to say.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Set up; waits for the first event.
    Ready {
        /// Whether the function drew random bytes so far.
        drew: bool,
    },
    /// A response lies in the reply area.
    Response {
        /// Its bytes.
        payload_len: usize,
    },
    /// The function failed.
    Failed(crate::failure::Failure),
}

/// Writes error text, cut to its area at a character.
fn put_detail(text: &[u8]) {
    let most = usize::try_from(DETAIL_MAX).unwrap_or(0);
    let done = raw::put(Area::Detail, 0, text.get(..text.len().min(most)).unwrap_or_default());
    Field::DetailLen.set(u32::try_from(done).unwrap_or(0));
}

/// The last words of this program: the sandbox must be destroyed. Allocates nothing.
pub(crate) fn last_words(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut writer = DetailWriter(0);
    let _ = core::fmt::write(&mut writer, format_args!("{info}"));
    Field::DetailLen.set(u32::try_from(writer.0).unwrap_or(0));
    Field::Kind.set(ReplyKind::Panic as u32);
    loop {
        // The monitor does not come back from this; should it, it hears the same again.
        raw::ring();
    }
}

struct DetailWriter(usize);

impl core::fmt::Write for DetailWriter {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0 += raw::put(Area::Detail, self.0, text.as_bytes());
        Ok(())
    }
}
