//! `warren-vmm`: the monitor of one microVM.

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::process::ExitCode;
use warren_boot::linux::layout::VIRTIO_MAX;
use warren_sandbox_plan::linux::DISKS;
use warren_vmm::linux;
use warren_vmm::linux::machine::{LinuxOptions, Pages};
use warren_vmm::linux::run::LinuxDescriptors;
use warren_vmm::linux::windows::Kind;
use warren_vmm::machine::MachineOptions;
use warren_vmm::run::{Descriptors, run};
use warren_vmm::sys::pool::HugePage;

/// musl's own allocator maps and unmaps pages for every few hundred bytes that come and go, as a disk's requests do. This one
/// keeps what was given back, up to two megabytes of it.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The monitor of one microVM.
#[derive(Parser)]
#[command(name = "warren-vmm", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one sandbox over inherited descriptors: 3 control socket, 4 /dev/kvm, 5 guest program, with --paged 6
    /// /dev/userfaultfd. Started by warren-jailer.
    Run {
        /// MiB of the memory slot made in advance; a function that needs more gets a second slot when it is loaded.
        #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u64).range(32..=3072))]
        class_mib: u64,
        /// Ask for huge pages behind the function's memory.
        #[arg(long)]
        huge_pages: bool,
        /// Wait for a snapshot instead of a function.
        #[arg(long)]
        restore: bool,
        /// The snapshot's memory may be brought by a pager.
        #[arg(long, requires = "restore")]
        paged: bool,
    },
    /// Run one Linux guest over inherited descriptors: 3 control socket, 4 /dev/kvm, with --paged 5 /dev/userfaultfd. Started by
    /// warren-jailer.
    Linux {
        /// MiB of guest memory.
        #[arg(long, value_parser = clap::value_parser!(u64).range(64..=524_288))]
        memory_mib: u64,
        /// MiB more that can be plugged while the guest runs.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=524_288))]
        pluggable_mib: u64,
        /// vCPUs.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
        cpus: u8,
        /// Disks that the guest may have: each gets a thread. With --devices as many as it names.
        #[arg(long, default_value_t = DISKS, value_parser = clap::value_parser!(u8).range(0..=VIRTIO_MAX as i64))]
        disks: u8,
        /// Make ready for a guest of these devices, in the order of their windows, and refuse any other: block, rng, vsock,
        /// net, balloon, mem.
        #[arg(long, value_name = "KINDS", value_delimiter = ',', conflicts_with = "disks")]
        devices: Option<Vec<Kind>>,
        /// Ask for huge pages behind guest memory.
        #[arg(long)]
        huge_pages: bool,
        /// Take guest memory from huge pages that the host has set aside, or do not start.
        #[arg(long, value_name = "SIZE", conflicts_with = "huge_pages")]
        reserved_pages: Option<PageSize>,
        /// The memory of a guest that is restored may be brought by a pager, in small pages.
        #[arg(long, conflicts_with_all = ["huge_pages", "reserved_pages", "pluggable_mib"])]
        paged: bool,
    },
    /// Find out by trying what this host's KVM can do. Status 0 if Wasm sandboxes can run, else 1.
    Probe {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// Sizes of huge pages.
#[derive(Clone, Copy, ValueEnum)]
enum PageSize {
    #[value(name = "2M")]
    TwoMib,
    #[value(name = "1G")]
    OneGib,
}

fn main() -> ExitCode {
    // A monitor with one of its two threads gone is worse than none: a panic anywhere ends the process.
    std::panic::set_hook(Box::new(|panic| {
        warren_vmm::log!("{panic}");
        std::process::abort();
    }));
    match start() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            warren_vmm::log!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn start() -> Result<u8> {
    match Arguments::parse().command {
        Command::Run { class_mib, huge_pages, restore, paged } => {
            let descriptors =
                Descriptors::inherit(paged).context("warren-vmm run is started by warren-jailer")?;
            let options = MachineOptions { class_len: class_mib << 20, huge_heap: huge_pages, bare: restore };
            let end = run(descriptors, options);
            warren_vmm::log!("end: {end}");
            Ok(end.code())
        }
        Command::Linux {
            memory_mib,
            pluggable_mib,
            cpus,
            disks,
            devices,
            huge_pages,
            reserved_pages,
            paged,
        } => {
            let descriptors =
                LinuxDescriptors::inherit(paged).context("warren-vmm linux is started by warren-jailer")?;
            let (memory_bytes, pluggable_bytes) = (memory_mib << 20, pluggable_mib << 20);
            let pages = match (reserved_pages, huge_pages) {
                (Some(PageSize::TwoMib), _) => Pages::Reserved(HugePage::TwoMib),
                (Some(PageSize::OneGib), _) => Pages::Reserved(HugePage::OneGib),
                (None, true) => Pages::HugeIfThere,
                (None, false) => Pages::Small,
            };
            let disks = devices.as_deref().map_or(Ok(disks), disks_of)?;
            let options = LinuxOptions { memory_bytes, pluggable_bytes, cpus, disks, pages, devices };
            let end = linux::run::run(descriptors, &options);
            warren_vmm::log!("end: {end}");
            Ok(end.code())
        }
        Command::Probe { json } => {
            let probe = warren_vmm::probe::probe();
            let text = if json { serde_json::to_string(&probe)? + "\n" } else { probe.to_string() };
            std::io::stdout().write_all(text.as_bytes()).context("print what was found")?;
            Ok(u8::from(!probe.wasm.can))
        }
    }
}

/// How many disks there are among them.
fn disks_of(devices: &[Kind]) -> Result<u8> {
    ensure!(devices.len() <= VIRTIO_MAX, "{} devices: there is room for {VIRTIO_MAX}", devices.len());
    Ok(u8::try_from(devices.iter().filter(|kind| **kind == Kind::Block).count())?)
}
