//! `warren-jailer plan`.

use crate::{probe, serve::start::Place};
use rustix::fs::{CWD, Mode, OFlags, openat};
use warren_sandbox_plan::{
    facts::{Availability, HostFacts},
    name::SandboxName,
    plan::Plan,
    request::{CompileOptions, CompilePurpose, Limits, LinuxMachine, PAGER_NAME, PagerOptions, Program},
    second,
};

/// What `plan` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which program.
    #[arg(long, value_enum, default_value = "vmm")]
    program: Kind,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    /// First uid of the jails.
    #[arg(long, default_value_t = 70_000)]
    uid_base: u32,
    /// The slot.
    #[arg(long, default_value_t = 0)]
    slot: u32,
    /// Memory limit in MiB.
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
    /// CPU in thousandths of a core.
    #[arg(long, default_value_t = 1000)]
    cpu_millis: u32,
    /// CPU as a ceiling too.
    #[arg(long)]
    cpu_hard: bool,
    /// Tasks.
    #[arg(long, default_value_t = 32)]
    pids: u32,
    /// RLIMIT_CPU in seconds, 0 for none.
    #[arg(long, default_value_t = 0)]
    cpu_seconds: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Vmm,
    /// The VMM of a Wasm guest that is brought back from a snapshot.
    Restore,
    /// The same, its memory brought by a pager.
    PagedRestore,
    Compile,
    /// The VMM of a Linux guest.
    Linux,
    /// The same, its memory and scratch disk brought by a pager.
    PagedLinux,
    /// What brings memory of paged VMs.
    Pager,
}

/// A machine to show.
const LINUX: LinuxMachine =
    LinuxMachine { memory_mib: 128, cpus: 1, disks: 2, disk_bytes: 0, network: false };

/// Prints it.
pub(crate) fn print(options: &Options) -> anyhow::Result<()> {
    let processes =
        openat(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    // Without privilege only one's own id can be mapped; with it, any.
    let probe_id = if rustix::process::geteuid().is_root() {
        options.uid_base
    } else {
        rustix::process::geteuid().as_raw()
    };
    let facts = HostFacts {
        cgroups: options.place.cgroups()?,
        user_namespace: probe::user_namespace(&processes, probe_id),
        kvm: kvm.map_or_else(|error| Availability::No(format!("/dev/kvm: {error}")), |_| Availability::Yes),
        last_capability: probe::last_capability(),
        page_bytes: rustix::param::page_size() as u64,
    };
    let program = match options.program {
        Kind::Vmm => Program::Vmm,
        Kind::Restore => Program::Restore,
        Kind::PagedRestore => Program::PagedRestore,
        Kind::Linux => Program::Linux(LINUX),
        Kind::PagedLinux => Program::PagedLinux(LINUX),
        Kind::Pager => Program::Pager(PagerOptions { cache_mib: 4096, memory_mib: 128 }),
        Kind::Compile => Program::Compile(CompileOptions { purpose: CompilePurpose::Function, isa: 0 }),
    };
    let limits = Limits {
        memory_bytes: options.memory_mib << 20,
        cpu_millis: options.cpu_millis,
        cpu_hard: options.cpu_hard,
        pids: options.pids,
        cpu_seconds: options.cpu_seconds,
    };
    let uid = options.uid_base.saturating_add(options.slot);
    let name = if let Program::Pager(_) = program { PAGER_NAME } else { "example" };
    let plan = Plan::new(&facts, options.slot, uid, &SandboxName::new(name)?, program, &limits);
    let second = second::lines(program);
    if options.json {
        let both = serde_json::json!({ "facts": facts, "part_one": plan, "part_two": second });
        println!("{}", serde_json::to_string_pretty(&both)?);
    } else {
        if let Some(mib) = options.place.max_memory_mib {
            println!("all jails together: {mib} MiB, written to their parent group");
        }
        print!("{plan}");
        println!("part two: {}, before it reads from any descriptor", plan.program.file_name());
        for line in second {
            println!("  {line}");
        }
        let needs_kvm = !matches!(program, Program::Compile(_) | Program::Pager(_));
        if let (true, Availability::No(why)) = (needs_kvm, &facts.kvm) {
            println!("on this host such a jail is refused: {why}");
        }
    }
    Ok(())
}
