//! `warren-lab`: runs one shell command on the lab host and exits with its code.

use anyhow::{Context as _, Result};
use clap::Parser;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use warren_image::alone;
use warren_lab::{
    disk,
    emulator::Emulator,
    guest,
    initramfs::{self, Carry},
    kernel::{self, Kernel, Series},
    machine::{Machine, Time, Verdict},
};

/// Boot a whole worker host (stock Debian kernel, KVM on emulated SVM, cgroup v2, Landlock) and run a command on it.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  warren-lab -- uname -a
  warren-lab --carry target/warren/bin=/opt/warren/bin -- warren doctor
  warren-lab --kernel 6.12 --virtual-time -- cat /sys/kernel/security/lsm

Exit codes: the command's own; 124 when the limit passed; 125 when the machine died.")]
struct Arguments {
    /// Which kernel: 6.1 or 6.12.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// MiB of memory.
    #[arg(long, default_value_t = 3072)]
    memory_mib: u32,
    /// CPUs. With more than one, software emulation now and then loses a race with a kernel that patches itself,
    /// as KVM makes it do for a host's first and last VM.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// One instruction is one virtual nanosecond: repeatable figures on one CPU.
    #[arg(long)]
    virtual_time: bool,
    /// Who emulates the machine. `mended` builds a QEMU first, minutes, once: the installed one now and then delivers an
    /// interrupt to a guest twice, which long runs in virtual time do not survive.
    #[arg(long, value_enum, default_value = "installed")]
    emulator: Emulator,
    /// Seconds of wall time.
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// A file or folder to carry into the lab, FROM=TO with an absolute TO; may be repeated.
    #[arg(long = "carry", value_name = "FROM=TO")]
    carries: Vec<String>,
    /// Where kernels and initramfs images are kept.
    #[arg(long, default_value = "target/lab")]
    cache: PathBuf,
    /// Carry what Linux guests are made of, in /guest: kernels (6.1 and 6.12), their modules, a root file system; and
    /// the host's own modules for their network cards and disks.
    #[arg(long)]
    guests: bool,
    /// Load what sandboxes' network needs of the kernel: taps, pairs of links, nftables.
    #[arg(long)]
    network: bool,
    /// MiB of a disk for /var/lib, in memory that is charged to nobody; else that is memory of whoever writes it.
    #[arg(long, value_name = "MIB")]
    disk: Option<u32>,
    /// The shell command, run as root with PATH=/bin:/opt/warren/bin.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let (kernel, files) = prepare(&arguments)?;
    // One image a run, so that runs side by side do not meet.
    let image = arguments.cache.join(format!("initramfs-{}.cpio", std::process::id()));
    initramfs::build(&image, &kernel, &files, &arguments.command.join(" "))?;
    let machine = Machine {
        memory_mib: arguments.memory_mib,
        cpus: arguments.cpus,
        time: if arguments.virtual_time { Time::Virtual } else { Time::Wall },
        emulator: arguments.emulator,
        limit: Duration::from_secs(arguments.limit),
    };
    let verdict = machine.run(&kernel, &image, &arguments.cache, |line| {
        // A closed pipe on our side must not end the machine half way.
        let _ = writeln!(io::stdout(), "{line}");
    });
    fs::remove_file(&image)?;
    let verdict = verdict?;
    eprintln!("lab: {verdict:?} after {:.1} s", began.elapsed().as_secs_f32());
    Ok(match verdict {
        Verdict::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Verdict::TimedOut => ExitCode::from(124),
        Verdict::Died => ExitCode::from(125),
    })
}

/// Kernel and files, with what is kept between runs made first: by one of the runs that begin at once, while the others wait.
fn prepare(arguments: &Arguments) -> Result<(Kernel, Vec<Carry>)> {
    let _alone = alone::at(&arguments.cache.join("prepare"))?;
    let kernel = kernel::prepare(kernel::series(&arguments.kernel)?, &arguments.cache)?;
    let kernel = if arguments.network { kernel.with_network()? } else { kernel };
    let mut files = Vec::new();
    for carry in &arguments.carries {
        let (from, to) = carry.split_once('=').with_context(|| format!("--carry {carry}: write FROM=TO"))?;
        collect(Path::new(from), Path::new(to), &mut files)?;
    }
    if arguments.guests {
        for series in Series::ALL {
            let kernel = kernel::prepare(series, &arguments.cache)?;
            files.extend(guest::carries(series, &kernel, &arguments.cache)?);
        }
        files.push(guest::root_image(&kernel, &arguments.cache)?);
        files.extend(guest::host_modules(&kernel)?);
    }
    if let Some(mib) = arguments.disk {
        files.extend(disk::carries(&kernel, &arguments.cache, mib)?);
    }
    Ok((kernel, files))
}

fn collect(from: &Path, to: &Path, files: &mut Vec<Carry>) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            collect(&entry.path(), &to.join(entry.file_name()), files)?;
        }
    } else {
        files.push(Carry { from: from.to_owned().into(), to: to.to_owned() });
    }
    Ok(())
}
