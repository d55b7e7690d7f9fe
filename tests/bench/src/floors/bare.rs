//! `bare-process`: a process that maps as much in as many pieces as a sandbox's VMM, and has written as many pages. It has no VM, no
//! jail and no thread but its own.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, MmapRegion, mmap::GuestRegionMmap};

const PAGE: usize = 4096;
/// `MAP_PRIVATE | MAP_NORESERVE`.
const PRIVATE: i32 = 0x2 | 0x4000;
/// `PROT_READ | PROT_WRITE`.
const READ_WRITE: i32 = 0x1 | 0x2;

/// What one is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// So many mappings of its own.
    pub(crate) mappings: usize,
    /// Pages that it has written.
    pub(crate) pages: usize,
}

/// The process itself: maps, writes, says so, and waits for its end.
pub(crate) fn be(shape: Shape) -> Result<()> {
    let _memory = if shape.mappings > 0 { Some(written(shape)?) } else { None };
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn written(shape: Shape) -> Result<GuestMemoryMmap> {
    let each = shape.pages.div_ceil(shape.mappings).max(1) * PAGE;
    // A page between any two, so that none is another's continuation.
    let apart = each + PAGE;
    let file = File::from(rustix::fs::memfd_create("bare", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.set_len((shape.mappings * apart) as u64)?;
    let region = |piece: usize| {
        let at = (piece * apart) as u64;
        let from = FileOffset::new(file.try_clone()?, at);
        let region = MmapRegion::<()>::build(Some(from), each, READ_WRITE, PRIVATE)?;
        GuestRegionMmap::new(region, GuestAddress(at)).context("no region")
    };
    let regions = (0..shape.mappings).map(region).collect::<Result<_>>()?;
    let memory = GuestMemoryMmap::from_regions(regions)?;
    for page in 0..shape.pages {
        let (piece, within) = (page % shape.mappings, page / shape.mappings * PAGE);
        memory.write_obj(1_u8, GuestAddress((piece * apart + within) as u64))?;
    }
    Ok(memory)
}

/// One that runs.
pub(crate) struct Bare(Child);

impl Bare {
    /// Starts one and waits until it has written all.
    pub(crate) fn start(shape: Shape) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            // Its allocator would begin with huge pages of which it needs a few KiB.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .args(["bare", &shape.mappings.to_string(), &shape.pages.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let out = child.stdout.take().context("stdout is a pipe")?;
        BufReader::new(out).read_line(&mut said)?;
        ensure!(said == "ready\n", "a bare process ended");
        Ok(Self(child))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.0.id())?)
    }

    /// Kills it; how long until it was reaped.
    pub(crate) fn end(mut self) -> Result<Duration> {
        let pid = Pid::from_child(&self.0);
        let began = Instant::now();
        kill_process(pid, Signal::KILL)?;
        self.0.wait()?;
        Ok(began.elapsed())
    }
}
