//! `density` and `teardown`: many sandboxes of one function at once, what memory each takes, and how soon one is gone.
//!
//! The bench asks the worker for them itself, with control's certificate, one idle sandbox after the other: how many a function may have
//! at once, and how soon control would start them, is not what is measured.

use crate::{
    Places,
    floors::bare::{Bare, Shape},
    host_memory::{Fields, charged, mappings, memory_cgroup, private_by_mapping},
    report::Report,
    stats::Samples,
    system::{System, Worker},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    ops::Sub,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// Requests for sandboxes at once.
const MAKERS: usize = 4;
/// Bare processes beside them.
const BARE: usize = 200;
/// A machine is looked at so often before a figure counts, and the moment counts at which most was free: what is freed comes back after
/// grace periods, and whoever else uses the machine comes and goes.
const LOOKS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);
/// Fields of `/proc/meminfo` in which the kernel counts what it keeps for processes.
const KERNEL: [&str; 7] =
    ["SUnreclaim", "SReclaimable", "PageTables", "SecPageTables", "KernelStack", "Percpu", "VmallocUsed"];

/// Sandboxes alive: memory of each, beside a bare process.
pub(crate) async fn density(places: &Places, report: &mut Report, sandboxes: usize) -> Result<()> {
    // No zygotes: what waits for others is no sandbox. Memory that a function may use is given out on paper alone.
    let system =
        System::start_with(&places.bin, &["--zygotes-mib=0", "--memory-mib=4000000", "--idle-ms=36000000"])
            .await?;
    system.deploy(&places.functions, "hello", "dense").await?;
    let worker = Arc::new(system.worker("dense").await?);
    // The first one brings code and snapshot into memory, which all share.
    worker.create("first").await?;
    worker.invoke("first").await?;
    let pids = worker.pids().await?;
    let first = *pids.first().context("no sandbox")?;
    let group = memory_cgroup(first)?.parent().context("a jail's cgroup is below another")?.to_owned();
    let before = Look::at(&group, &pids).await?;

    all(sandboxes, &worker, &[Do::Create]).await?;
    let restored = Look::at(&group, &worker.pids().await?).await? - &before;
    all(sandboxes, &worker, &[Do::Invoke]).await?;
    let pids = worker.pids().await?;
    ensure!(pids.len() == sandboxes + 1, "{} sandboxes live, not {}", pids.len(), sandboxes + 1);
    let served = Look::at(&group, &pids).await? - &before;
    let shape = shape_of(first)?;
    // Without what the program itself takes, which is the bench's.
    let bare = bare_memory(shape)? - bare_memory(Shape { mappings: 0, pages: 0 })?;

    report.value(
        "density",
        "alive",
        "each",
        (count(sandboxes), count(sandboxes)),
        sandboxes,
        ("", 0.0),
        ">= 2000",
    );
    report.value(
        "density",
        "mappings",
        "each",
        (count(shape.mappings), count(shape.mappings)),
        1,
        ("", 0.0),
        "",
    );
    report.value("density", "bare-process", "MiB", (bare, bare), BARE, ("", 0.0), "");
    for (name, kib, reach) in [
        ("restored", restored.fallen(), ""),
        ("mib-each", served.fallen(), "<= 1 MiB"),
        ("charged", whole(served.charged), ""),
        ("process", whole(served.processes.get("Pss") + served.processes.get("VmPTE")), ""),
    ] {
        let each = kib / count(sandboxes) / 1024.0;
        report.value("density", name, "MiB", (each, each), sandboxes, ("bare-process", each / bare), reach);
    }
    for (name, kib) in served.parts(sandboxes) {
        let metric = format!("of-it-{name}");
        let all_of_it = whole(served.charged) / count(sandboxes);
        report.value("density", &metric, "KiB", (kib, kib), sandboxes, ("charged", kib / all_of_it), "");
    }
    for (name, kib) in private_by_mapping(first)?.into_iter().take(8) {
        let kib = whole(kib);
        report.value("density", &format!("private {name}"), "KiB", (kib, kib), 1, ("", 0.0), "");
    }
    system.stop().await
}

/// From the order to end a sandbox until nothing of it is left, one by one and as fast as they go.
pub(crate) async fn teardown(places: &Places, report: &mut Report, sandboxes: usize) -> Result<()> {
    let system = System::start_with(&places.bin, &["--zygotes-mib=0", "--memory-mib=4000000"]).await?;
    system.deploy(&places.functions, "hello", "ends").await?;
    let worker = Arc::new(system.worker("ends").await?);
    let (mut reaped, mut killed, mut vms) = (Samples::new(), Samples::new(), Samples::new());
    let half = sandboxes / 2;
    for number in 0..half {
        let name = format!("one-{number}");
        worker.create(&name).await?;
        worker.invoke(&name).await?;
        let pid = *worker.pids().await?.first().context("no sandbox")?;
        let (shape, group) = (shape_of(pid)?, memory_cgroup(pid)?);
        let began = Instant::now();
        worker.destroy(&name).await?;
        reaped.push(began.elapsed());
        // The answer is only worth something if it is so.
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "its process is there");
        ensure!(!group.exists(), "its cgroup is there: {}", group.display());
        killed.push(Bare::start(shape)?.end()?);
        let (_, vm) = crate::floors::kvm::create_to_first_exit()?;
        let began = Instant::now();
        drop(vm);
        vms.push(began.elapsed());
    }
    all(half, &worker, &[Do::Create, Do::Invoke]).await?;
    let began = Instant::now();
    all(half, &worker, &[Do::Destroy]).await?;
    let rate = count(half) / began.elapsed().as_secs_f64();
    ensure!(worker.pids().await?.is_empty(), "sandboxes are left");
    report.floor("teardown", "bare-kill", &killed);
    report.floor("teardown", "kvm-drop", &vms);
    report.times("teardown", "reap", &reaped, ("bare-kill", killed.p50_us()), "");
    report.times("teardown", "reap", &reaped, ("kvm-drop", vms.p50_us()), "");
    report.value("teardown", "rate", "1/s", (rate, rate), half, ("", 0.0), ">= create-rate");
    system.stop().await
}

/// What is done to each of many.
#[derive(Clone, Copy)]
enum Do {
    Create,
    Invoke,
    Destroy,
}

/// Does it for so many names, a few at a time.
async fn all(count: usize, worker: &Arc<Worker>, what: &'static [Do]) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut makers = JoinSet::new();
    for _ in 0..MAKERS {
        let (worker, next) = (Arc::clone(worker), Arc::clone(&next));
        makers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let name = format!("many-{number}");
                for step in what {
                    match step {
                        Do::Create => worker.create(&name).await?,
                        Do::Invoke => worker.invoke(&name).await?,
                        Do::Destroy => worker.destroy(&name).await?,
                    }
                }
            }
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

/// Memory at one moment; or what came between two, KiB.
struct Look {
    charged: i64,
    machine: Fields,
    processes: Fields,
}

impl Look {
    async fn at(group: &Path, pids: &[i32]) -> Result<Self> {
        let mut machine = Fields::of_machine()?;
        for _ in 0..LOOKS {
            sleep(BETWEEN).await;
            let now = Fields::of_machine()?;
            if now.get("MemAvailable") > machine.get("MemAvailable") {
                machine = now;
            }
        }
        let processes = Fields::of_processes(pids.iter().copied()).context("a sandbox is gone")?;
        Ok(Self { charged: charged(group)?, machine, processes })
    }

    /// How far `MemAvailable` fell: kernel memory is in it, and whatever else ran.
    fn fallen(&self) -> f64 {
        whole(-self.machine.get("MemAvailable"))
    }

    /// Where it is, KiB a sandbox.
    fn parts(&self, sandboxes: usize) -> Vec<(String, f64)> {
        let of = |name: &str, kib: i64| (name.to_owned(), whole(kib) / count(sandboxes));
        let process = |name: &str| of(name, self.processes.get(name));
        let mut parts: Vec<_> =
            ["Pss", "Pss_Anon", "Pss_Shmem", "Private_Dirty", "VmPTE"].map(process).into();
        parts.extend(KERNEL.map(|name| of(name, self.machine.get(name))));
        parts
    }
}

impl Sub<&Self> for Look {
    type Output = Self;

    fn sub(self, other: &Self) -> Self {
        Self {
            charged: self.charged - other.charged,
            machine: self.machine - &other.machine,
            processes: self.processes - &other.processes,
        }
    }
}

/// How a sandbox's process is made: its mappings, and the pages that are its alone.
fn shape_of(pid: i32) -> Result<Shape> {
    let own = Fields::of_process(pid).context("a sandbox is gone")?;
    Ok(Shape { mappings: mappings(pid)?, pages: usize::try_from(own.get("Private_Dirty") / 4)? })
}

/// MiB of a bare process of this shape: its share of pages, and its page tables.
fn bare_memory(shape: Shape) -> Result<f64> {
    let bare: Vec<_> = (0..BARE).map(|_| Bare::start(shape)).collect::<Result<_>>()?;
    let pids: Vec<_> = bare.iter().map(Bare::pid).collect::<Result<_>>()?;
    let all = Fields::of_processes(pids.into_iter()).context("a bare process is gone")?;
    bare.into_iter().try_for_each(|one| one.end().map(drop))?;
    Ok(whole(all.get("Pss") + all.get("VmPTE")) / count(BARE) / 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a machine are far below 2^52")]
const fn whole(kib: i64) -> f64 {
    kib as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
const fn count(number: usize) -> f64 {
    number as f64
}
