//! All VMs of one pager, and the agent's requests about them.

use crate::fetch::Source;
use crate::journal::{Figures, Journal};
use crate::packet::{self, Packet};
use crate::protocol::{
    HostFigures, PACKET_MAX, PROTOCOL_VERSION, RETIRED_MAX, Reply, Request, Serve, decode, encode,
};
use crate::serve::{Order, serve};
use crate::upstream::Upstream;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::io;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use warren_chunks::{Name, TenantKey};
use zeroize::Zeroizing;

/// Journals of VMs that ended, until somebody asks; the oldest go when there are more.
const ENDED_MAX: usize = 1024;
/// Of a thread that serves a VM.
const STACK_BYTES: usize = 256 << 10;

/// Every VM that is served.
#[derive(Debug)]
pub struct Pager {
    source: Source,
    upstream: Upstream,
    most: usize,
    serving: Arc<AtomicUsize>,
    journals: Mutex<Journals>,
}

#[derive(Debug, Default)]
struct Journals {
    next: u64,
    all: BTreeMap<u64, Journal>,
    /// Counts of those that were forgotten.
    past: Figures,
}

impl Pager {
    /// One that serves so many VMs at most. What its source cannot reach is asked of the agent by `upstream`.
    #[must_use]
    pub fn new(source: Source, upstream: Upstream, most: usize) -> Self {
        Self { source, upstream, most, serving: Arc::default(), journals: Mutex::default() }
    }

    /// Answers the requests of one connection to its end.
    pub fn converse(&self, connection: &OwnedFd) -> io::Result<()> {
        let mut greeted = false;
        while let Some(Packet { bytes, descriptors }) = packet::receive(connection, PACKET_MAX)? {
            self.upstream.heard();
            // There may be a key in it.
            let bytes = Zeroizing::new(bytes);
            let reply = match decode(&bytes) {
                None => refused("this is no request"),
                Some(Request::Hello { version }) if version != PROTOCOL_VERSION => {
                    refused(&format!("version {version}, this is {PROTOCOL_VERSION}"))
                }
                Some(Request::Hello { version }) => {
                    greeted = true;
                    Reply::Hello { version }
                }
                Some(_) if !greeted => refused("no greeting came before"),
                Some(Request::Serve(serve)) => self.begin(&serve, descriptors),
                Some(Request::Report { id }) => self.report(id),
                Some(Request::Figures) => self.figures(),
                Some(Request::Rescued { names }) => {
                    self.source.rescued(&names.into_iter().map(Name).collect::<Vec<_>>());
                    self.figures()
                }
                Some(Request::Upstream) => self.attach(descriptors),
            };
            let packet = encode(&reply).ok_or(io::ErrorKind::InvalidData)?;
            packet::send(connection.as_fd(), &packet, &[])?;
        }
        Ok(())
    }

    /// VMs that are served now.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving.load(Ordering::SeqCst)
    }

    fn figures(&self) -> Reply {
        let tiers = self.source.figures();
        let (served, pages) = {
            let journals = self.journals();
            (journals.next, journals.together())
        };
        let retired = self.source.to_rescue(RETIRED_MAX).into_iter().map(|name| name.0).collect();
        let figures = HostFigures {
            serving: u32::try_from(self.serving()).unwrap_or(u32::MAX),
            served,
            pages,
            memory: tiers.memory.into(),
            disk: tiers.disk.into(),
            agent: tiers.proxy.into(),
            peers: tiers.peers.into(),
            origin: tiers.origin.into(),
        };
        Reply::Figures { figures: Box::new(figures), retired }
    }

    fn attach(&self, descriptors: Vec<OwnedFd>) -> Reply {
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return refused("one descriptor is needed, the socket whose other end the agent has");
        };
        match self.upstream.attach(socket) {
            Ok(()) => self.figures(),
            Err(error) => refused(&format!("no thread for it: {error}")),
        }
    }

    fn begin(&self, what: &Serve, descriptors: Vec<OwnedFd>) -> Reply {
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return refused("one descriptor is needed, the socket whose other end the VMM has");
        };
        let Some(place) = Place::take(&self.serving, self.most) else {
            return refused("this pager serves as many VMs as it may");
        };
        let (manifest, key) = (Name(what.manifest), TenantKey::new(what.key));
        let order = Order { manifest, key, manner: what.manner, socket };
        let (id, journal) = self.journals().add();
        let source = self.source.clone();
        let thread = std::thread::Builder::new().name(format!("vm-{id}")).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let _place = place;
            serve(&order, &source, &journal);
        });
        match spawned {
            Ok(_) => Reply::Serving { id },
            Err(error) => {
                self.journals().forget(id);
                refused(&format!("no thread: {error}"))
            }
        }
    }

    fn report(&self, id: u64) -> Reply {
        let mut journals = self.journals();
        let Some(entry) = journals.all.get(&id).map(Journal::read) else {
            return refused("no such VM");
        };
        if entry.ended.is_some() {
            journals.forget(id);
        }
        entry.into()
    }

    fn journals(&self) -> MutexGuard<'_, Journals> {
        // Whole between any two statements.
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journals {
    fn add(&mut self) -> (u64, Journal) {
        let over: Vec<u64> =
            self.all.iter().filter(|(_, journal)| journal.is_over()).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(ENDED_MAX)) {
            self.forget(*id);
        }
        self.next += 1;
        let journal = Journal::default();
        self.all.insert(self.next, journal.clone());
        (self.next, journal)
    }

    /// Its counts stay. Only of what is over, or never began.
    fn forget(&mut self, id: u64) {
        if let Some(gone) = self.all.remove(&id) {
            self.past.add(&gone.figures());
        }
    }

    /// Counts of all VMs since the pager began.
    fn together(&self) -> Figures {
        let mut sum = self.past;
        for journal in self.all.values() {
            sum.add(&journal.figures());
        }
        sum
    }
}

/// One of the VMs that may be served.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(serving: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |count: usize| (count < most).then_some(count + 1);
        serving.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Self(Arc::clone(serving)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn refused(why: &str) -> Reply {
    Reply::Refused { why: why.to_owned() }
}
