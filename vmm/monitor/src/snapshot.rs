//! A Wasm guest at rest, written down and brought back.
//!
//! Taking: the vCPU thread says its registers and waits; the main thread writes every page that is not zero into a file it was
//! given, and answers with the state ([`warren_state`]). What nobody writes of the guest program, code and files are left out: they
//! are sealed files already.
//!
//! Restoring: large runs of the file become private mappings over the memory slot of a VM that is bare, so that a page is copied
//! when it is written and read from the host's page cache otherwise; a few small ones are copied (`snapshot/pieces.rs`). Or a
//! pager brings the runs page by page ([`crate::paging`]). System registers come
//! from the same place as at a first entry; the snapshot has none.
//!
//! Again, in the same VM ([`Image::again`]): pages that were touched since are given up, so that they are the file's again where it is
//! mapped and zero elsewhere, and the small runs are copied once more. No slot is made, nothing is mapped.

pub(crate) mod pages;
mod pieces;

use crate::bare::Bare;
use crate::load::sealed_len;
use crate::machine::{Artefacts, Machine, MachineError, host_isa};
use crate::mailbox::Mailbox;
use crate::paging::{PagerError, Paging};
use crate::ram::{Ram, RamError};
use crate::sys::FileUse;
use crate::sys::userfault::Userfault;
use crate::sys::vectored::Direction;
use pieces::Piece;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::fcntl_get_seals;
use warren_abi::window::PAGE_SIZE;
use warren_boot::OutOfRange;
use warren_boot::entry::{EntryState, Features};
use warren_boot::plan::HIGH_BASE;
use warren_state::wasm::{Area, CpuState, Processor, RUNS_MAX, WasmState};
use warren_state::{StateError, open, seal};

/// Zero pages between two runs that are written all the same: a mapping costs more than they do.
const GAP_PAGES: u64 = 8;

/// Why no snapshot was taken. The guest goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Nothing is loaded.
    #[error("there is no function to take a snapshot of")]
    Empty,
    /// Pages that are not zero are spread over more runs than a snapshot may have.
    #[error("memory is scattered over more than {RUNS_MAX} runs of pages")]
    Scattered,
    /// The state cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
    /// Guest memory that is planned is not there: a defect here.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    /// The file cannot be mapped: the caller's or the host's fault.
    #[error("cannot map the memory's file: {0}")]
    Map(String),
    /// The file is too small.
    #[error("the memory's file has no more room")]
    Room,
}

/// What a vCPU needs to go on.
#[derive(Debug)]
pub struct Resume {
    /// System registers, and where it goes on.
    pub entry: EntryState,
    /// The program's own registers.
    pub cpu: CpuState,
    /// The door to events and replies.
    pub mailbox: Mailbox,
    /// Bytes of the function's memory.
    pub memory_bytes: u64,
    /// Which generation of the guest this is.
    pub generation: u64,
}

/// A guest that was written down.
#[derive(Debug)]
pub struct Taken {
    /// Its state, in its envelope.
    pub state: Vec<u8>,
    /// Bytes of memory in the file.
    pub memory_len: u64,
}

/// Writes down a guest whose vCPU is held with these registers, as the restored one's `generation`; its memory goes to `file`.
pub fn take(machine: &Machine, cpu: CpuState, generation: u64, file: OwnedFd) -> Result<Taken, TakeError> {
    let loaded = machine.loaded().ok_or(TakeError::Empty)?;
    let bare = machine.bare();
    let (code, task) = (loaded.code, loaded.task);
    let banks = [Area { gpa: 0, len: bare.class_len }, Area { gpa: HIGH_BASE, len: loaded.plan.high_len }];
    let program = bare.program.ok_or(TakeError::Empty)?;
    let apart: Vec<_> = [Some(program), Some(code), task].into_iter().flatten().collect();
    let mut runs = Vec::new();
    for bank in banks {
        for piece in without(bank, &apart) {
            // Most of it was never touched: so it is looked at as huge pages of zeroes, not as hundreds of small ones each.
            bare.ram.advise_huge(piece.gpa, piece.len);
            let found = pages::find(&bare.ram, piece, GAP_PAGES);
            bare.ram.refuse_huge(piece.gpa, piece.len);
            runs.extend(found?);
        }
    }
    if runs.len() > RUNS_MAX {
        return Err(TakeError::Scattered);
    }
    let memory_len = pages::write(&bare.ram, &runs, file)?;
    let state = WasmState {
        abi_version: warren_abi::ABI_VERSION,
        processor: Processor { isa: loaded.isa, features: bits(bare.features), tsc_hz: bare.tsc_hz },
        low_len: bare.class_len,
        high_len: loaded.plan.high_len,
        memory_bytes: loaded.memory_bytes,
        program,
        mailbox: machine.mailbox(),
        code,
        task,
        root: machine.root(),
        cpu,
        runs,
        generation,
    };
    Ok(Taken { state: seal(&state)?, memory_len })
}

/// The descriptor that a snapshot's memory goes into: a memfd.
pub fn target(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, String> {
    let Ok([file]) = <[OwnedFd; 1]>::try_from(descriptors) else {
        return Err("one descriptor is needed, for the memory".into());
    };
    fcntl_get_seals(&file).map_err(|_| "the descriptor for the memory is no memfd".to_owned())?;
    Ok(file)
}

/// Where the memory of a snapshot comes from.
#[derive(Debug)]
pub enum Backing {
    /// From a sealed file, runs one behind the other.
    File(OwnedFd),
    /// From a pager behind this socket, page by page.
    Pager(OwnedFd),
}

/// A snapshot that was judged: it may be restored, as far as this VM has what it asks for.
#[derive(Debug)]
pub struct Admitted {
    /// All but memory, code and files.
    pub state: WasmState,
    /// Its memory.
    pub memory: Backing,
    /// Code and files.
    pub artefacts: Artefacts,
}

/// Judges a snapshot and its descriptors (memory or the pager's socket, code, and files if it has some). The text is the
/// caller's fault, always.
pub fn admit(state: &[u8], by_pager: bool, descriptors: Vec<OwnedFd>) -> Result<Admitted, String> {
    let state: WasmState = open(state).map_err(|error| error.to_string())?;
    let expected = 2 + usize::from(state.task.is_some());
    if descriptors.len() != expected {
        return Err(format!("{} descriptors came, {expected} are needed", descriptors.len()));
    }
    let mut descriptors = descriptors.into_iter();
    let mut take = |what: &str| descriptors.next().ok_or_else(|| format!("no descriptor for {what}"));
    let memory = take("the memory")?;
    let (memory, memory_len) = if by_pager {
        (Backing::Pager(memory), state.runs.iter().map(|run| run.len).fold(0, u64::saturating_add))
    } else {
        let len = sealed_len("the memory", &memory)?;
        (Backing::File(memory), len)
    };
    let mut next = |what: &str| {
        let fd = take(what)?;
        let len = sealed_len(what, &fd)?;
        Ok::<_, String>((fd, len))
    };
    let (code, code_len) = next("the code")?;
    let task = state.task.map(|_| next("the files")).transpose()?;
    state.check(memory_len).map_err(|error| error.to_string())?;
    let pages = |len: u64| len.next_multiple_of(PAGE_SIZE);
    if pages(code_len) != state.code.len {
        return Err(format!("code of {code_len} bytes came, the snapshot was made with another"));
    }
    if let (Some((_, len)), Some(area)) = (&task, state.task)
        && pages(*len) != area.len
    {
        return Err(format!("files of {len} bytes came, the snapshot was made with others"));
    }
    if !host_isa().covers(state.processor.isa) {
        return Err("this host lacks instruction sets that the snapshot's code uses".into());
    }
    Ok(Admitted { state, memory, artefacts: Artefacts { code, task: task.map(|(fd, _)| fd) } })
}

/// Where the memory of a guest that was brought back comes from as long as it lives.
#[derive(Debug)]
pub enum Source {
    /// From its snapshot, also once more.
    Image(Box<Image>),
    /// From a pager.
    Pager(Paging),
}

/// A snapshot that a guest was brought back from, and can be again.
#[derive(Debug)]
pub struct Image {
    state: WasmState,
    memory: OwnedFd,
    /// How often its guest was brought back from it.
    lives: u64,
}

impl Image {
    /// Puts memory back to what it is in the snapshot, in the VM that it was put in before, whose vCPU is held. Of what was written
    /// since nothing is left. What the vCPU needs to go on, as another generation than all before.
    pub fn again(&mut self, bare: &Bare) -> Result<Resume, MachineError> {
        let apart: Vec<_> = self.state.apart().collect();
        for bank in
            [Area { gpa: 0, len: self.state.low_len }, Area { gpa: HIGH_BASE, len: self.state.high_len }]
        {
            for piece in without(bank, &apart) {
                bare.ram
                    .give_back(piece.gpa, piece.len)
                    .map_err(|source| RamError::Map { what: MEMORY, source })?;
            }
        }
        // What is mapped is the file's again.
        copy(&bare.ram, &pieces::of(&self.state.runs), &self.memory)?;
        self.lives += 1;
        let mut resume = resume_of(bare, &self.state);
        resume.generation = resume.generation.saturating_add(self.lives - 1);
        Ok(resume)
    }
}

/// What errors call it.
const MEMORY: &str = "the snapshot's memory";

/// Brings a guest back in a VM that is bare.
pub fn restore(
    bare: &mut Bare,
    admitted: Admitted,
    userfault: Option<&Userfault>,
) -> Result<(Resume, Source), MachineError> {
    let Admitted { state, memory, artefacts } = admitted;
    let refused = |why: String| MachineError::Refused(why);
    if state.low_len != bare.class_len {
        let (of, here) = (state.low_len >> 20, bare.class_len >> 20);
        return Err(refused(format!("a snapshot of a slot of {of} MiB, this one has {here} MiB")));
    }
    if state.processor.features != bits(bare.features) {
        return Err(refused("the snapshot was made on another kind of processor".into()));
    }
    if state.processor.tsc_hz != bare.tsc_hz {
        let (of, here) = (state.processor.tsc_hz, bare.tsc_hz);
        return Err(refused(format!("the snapshot's clock ticks at {of} Hz, this host's at {here} Hz")));
    }
    if bare.program != Some(state.program) {
        return Err(refused("the snapshot was made with another guest program".into()));
    }
    if state.high_len > 0 {
        bare.ram.add_bank(&bare.vm, HIGH_BASE, state.high_len)?;
    }
    let show = |what, area: Area, file: &OwnedFd| {
        bare.ram.map_file(what, area.gpa, area.len, (file.as_fd(), 0), FileUse::ReadOnly)
    };
    show("the function's code", state.code, &artefacts.code)?;
    if let (Some(area), Some(task)) = (state.task, &artefacts.task) {
        show("the function's files", area, task)?;
    }
    let resume = resume_of(bare, &state);
    let source = match memory {
        Backing::File(memory) => {
            let pieces = pieces::of(&state.runs);
            map(&bare.ram, &pieces, &memory)?;
            copy(&bare.ram, &pieces, &memory)?;
            Source::Image(Box::new(Image { state, memory, lives: 1 }))
        }
        // A page that is there already would never be brought.
        Backing::Pager(_) if bare.rehearsed => {
            return Err(refused("pages were touched in this machine".into()));
        }
        Backing::Pager(socket) => {
            let userfault = userfault.ok_or(PagerError::NotStartedForIt)?;
            let apart: Vec<_> = state.apart().collect();
            Source::Pager(Paging::begin(&bare.ram, &state.runs, &apart, (userfault, socket))?)
        }
    };
    Ok((resume, source))
}

/// What a vCPU goes on with.
fn resume_of(bare: &Bare, state: &WasmState) -> Resume {
    Resume {
        entry: EntryState::new(state.cpu.rip, state.root, bare.features),
        cpu: state.cpu,
        mailbox: Mailbox::new(bare.ram.clone(), state.mailbox),
        memory_bytes: state.memory_bytes,
        generation: state.generation,
    }
}

/// Maps the large runs of a snapshot's memory.
fn map(ram: &Ram, pieces: &[Piece], memory: &OwnedFd) -> Result<(), RamError> {
    for piece in pieces {
        if let Piece::Mapped { run, offset } = piece {
            ram.map_file(MEMORY, run.gpa, run.len, (memory.as_fd(), *offset), FileUse::CopyOnWrite)?;
        }
    }
    Ok(())
}

/// Copies the small ones.
fn copy(ram: &Ram, pieces: &[Piece], memory: &OwnedFd) -> Result<(), RamError> {
    for piece in pieces {
        if let Piece::Copied { ranges, offset } = piece {
            ram.transfer(memory.as_fd(), *offset, ranges, Direction::Read)
                .map_err(|source| RamError::Map { what: MEMORY, source })?;
        }
    }
    Ok(())
}

fn bits(features: Features) -> u8 {
    let Features { xsave, avx, smep, smap, umip } = features;
    [xsave, avx, smep, smap, umip].into_iter().rev().fold(0, |bits, has| bits << 1 | u8::from(has))
}

/// What is left of an area without others, ascending.
fn without(area: Area, apart: &[Area]) -> Vec<Area> {
    let mut apart: Vec<_> = apart.iter().map(|area| area.range()).collect();
    apart.sort_by_key(|range| range.start);
    let (mut left, mut at) = (Vec::new(), area.gpa);
    let end = area.range().end;
    for range in apart {
        if range.end <= at || range.start >= end {
            continue;
        }
        if range.start > at {
            left.push(Area { gpa: at, len: range.start - at });
        }
        at = range.end;
    }
    if at < end {
        left.push(Area { gpa: at, len: end - at });
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_apart_is_left_out() {
        let area = |gpa, len| Area { gpa, len };
        let bank = area(0, 100);
        for (apart, left) in [
            (vec![], vec![bank]),
            (vec![area(10, 5), area(20, 80)], vec![area(0, 10), area(15, 5)]),
            (vec![area(20, 10), area(0, 20)], vec![area(30, 70)]),
            (vec![area(200, 10)], vec![bank]),
        ] {
            assert_eq!(without(bank, &apart), left, "{apart:?}");
        }
    }
}
