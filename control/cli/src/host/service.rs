//! The jailer as a service: its command line, its unit, and the process.

use super::{
    place::{Place, UNIT},
    record::{Record, Wish},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use warren_client::{Failure, Outcome};

/// How long a jailer may take to end its jails.
const STOP_WITHIN: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };

/// The jailer's command line.
pub(crate) fn command_line(place: &Place, programs: &Path, wish: &Wish) -> Vec<String> {
    let network = wish.network.then(|| "--network=auto".to_owned());
    let favordynmods = wish.favordynmods.then(|| "--favordynmods".to_owned());
    let line = vec![
        programs.join("warren-jailer").display().to_string(),
        "serve".into(),
        format!("--socket={}", place.socket().display()),
        format!("--state={}", wish.state.join("jailer").display()),
        format!("--agent-uid={}", wish.uid),
        format!("--uid-base={}", wish.uid_base),
        format!("--slots={}", wish.sandboxes),
        format!("--max-memory-mib={}", wish.memory_mib),
        // Not the group it happens to be started in: a session's or a service's ends with them.
        "--cgroup-root=/".into(),
        "--one-agent".into(),
    ];
    line.into_iter().chain(network).chain(favordynmods).collect()
}

/// The unit. Hardened as far as the work permits: the jailer makes namespaces, mounts, users and cgroups. No option that
/// works through a system call filter is in it: every VMM would inherit that filter and pay for it, and has a stricter
/// one of its own. (The jailer moreover confines itself: an empty root and an empty network.)
pub(crate) fn unit(place: &Place, programs: &Path, wish: &Wish) -> String {
    let line = command_line(place, programs, wish).join(" ");
    // For taps and rules; and to find, in a VMM that lives, the namespace that an earlier jailer made.
    let (more, tun) = if wish.network {
        (" CAP_NET_ADMIN CAP_SYS_PTRACE", "\nDeviceAllow=/dev/net/tun rw")
    } else {
        ("", "")
    };
    format!(
        "\
# Written by `warren host prepare`; removed by `warren host unprepare`.
[Unit]
Description=Warren's jailer, for user {user}
Documentation=file:{record}

[Service]
Type=exec
ExecStart={line}
Restart=always
RestartSec=1
# The jails are in a group of their own and outlive a jailer: a restart hands them over, a stop ends them.
KillMode=process
KillSignal=SIGTERM
RestartKillSignal=SIGHUP
TimeoutStopSec=30
LimitNOFILE=65536
RuntimeDirectory=warren
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL CAP_CHOWN CAP_DAC_OVERRIDE{more}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={state}
ProtectHome=yes
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/kvm rw{tun}
IPAddressDeny=any
UMask=0077

[Install]
WantedBy=multi-user.target
",
        user = wish.user,
        record = place.record().display(),
        state = wish.state.display(),
    )
}

/// A jailer that runs.
pub(crate) struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    /// Its command line.
    pub(crate) line: Vec<String>,
}

/// The jailer of this place, if one runs.
pub(crate) fn running(place: &Place, systemd: bool) -> Option<Running> {
    let number = if systemd {
        let asked = systemctl(&["show", "--property=MainPID", "--value", UNIT]).ok()?;
        asked.trim().parse::<i32>().ok()?
    } else {
        fs::read_to_string(place.pid_file()).ok()?.trim().parse().ok()?
    };
    let pid = Pid::from_raw(number)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Asked after the descriptor is held: the number may long mean another process.
    let line = fs::read(format!("/proc/{number}/cmdline")).ok()?;
    let line: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let socket = format!("--socket={}", place.socket().display());
    let is_ours = line.first().is_some_and(|program| Path::new(program).starts_with(place.programs()))
        && line.contains(&socket);
    is_ours.then(|| Running { pid, pidfd, line: line.into_iter().filter(|word| !word.is_empty()).collect() })
}

impl Running {
    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal and waits for the end.
    fn end(&self, signal: Signal) -> Outcome {
        let _gone = pidfd_send_signal(&self.pidfd, signal);
        let mut waiting = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&STOP_WITHIN)));
        if matches!(ended, Ok(1..)) {
            return Ok(());
        }
        let _gone = pidfd_send_signal(&self.pidfd, Signal::KILL);
        Err(Failure::local(format!("the jailer (pid {}) did not stop and was killed", self.pid())))
    }
}

/// Starts it, or starts it anew with another command line; its jails go on. Returns when it serves.
pub(crate) fn start(place: &Place, programs: &Path, wish: &Wish, systemd: bool) -> Outcome {
    if systemd {
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--quiet", UNIT])?;
        return systemctl(&["restart", UNIT]).map(drop);
    }
    if let Some(old) = running(place, systemd) {
        old.end(Signal::HUP)?;
    }
    let line = command_line(place, programs, wish);
    let log = wish.state.join("jailer.log");
    let failed = |error| Failure::io("cannot start the jailer", error);
    let errors = fs::File::options().create(true).append(true).mode(0o600).open(&log).map_err(failed)?;
    let (program, arguments) = line.split_first().ok_or_else(|| Failure::local("no command line"))?;
    let mut command = Command::new(program);
    command.args(arguments).arg("--detach").env_clear().current_dir("/").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().map_err(failed)?;
    fs::write(place.pid_file(), format!("{}\n", child.id())).map_err(failed)?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut said).map_err(failed)?;
    }
    if said.starts_with("ready") {
        return Ok(());
    }
    let exit = child.wait().map_err(failed)?;
    let words = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<_> = words.lines().collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default();
    Err(Failure::local(format!(
        "the jailer ended ({exit}); the end of {}:\n  {}",
        log.display(),
        last.join("\n  ")
    )))
}

/// Stops it; every sandbox ends.
pub(crate) fn stop(place: &Place, systemd: bool) -> Outcome {
    let ended = match running(place, systemd) {
        Some(_) if systemd => systemctl(&["stop", UNIT]).map(drop),
        Some(jailer) => jailer.end(Signal::TERM),
        None => Ok(()),
    };
    if systemd {
        systemctl(&["disable", "--quiet", UNIT])?;
    }
    let _absent = fs::remove_file(place.pid_file());
    ended
}

/// Makes systemd forget a unit whose file is gone.
pub(crate) fn forget_unit() -> Outcome {
    systemctl(&["daemon-reload"]).map(drop)
}

/// How the jailer is started at boot where no service manager does it.
pub(crate) fn boot_line(place: &Place, programs: &Path) -> String {
    let root = place.other_root().map(|root| format!(" --root {}", root.display())).unwrap_or_default();
    format!("{} host start{root}", programs.join("warren").display())
}

/// The folder of the record's programs.
pub(crate) fn programs_of(place: &Place, record: &Record) -> Option<PathBuf> {
    let build = record.build.as_ref()?;
    Some(folder_of(place, &build.version, &build.digest))
}

/// The folder of a build.
pub(crate) fn folder_of(place: &Place, version: &str, digest: &str) -> PathBuf {
    place.programs().join(format!("{version}-{digest}"))
}

fn systemctl(arguments: &[&str]) -> Outcome<String> {
    let failed = |error| Failure::io("cannot run systemctl", error);
    let mut command = Command::new("systemctl");
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").args(arguments);
    let done = command.stdin(Stdio::null()).output().map_err(failed)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(Failure::local(format!(
        "systemctl {} failed: {}; see journalctl -u {UNIT}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_the_command_line() {
        let place = Place::new(Path::new("/"));
        let wish = Wish {
            user: "ada".into(),
            uid: 1000,
            state: place.state(),
            uid_base: 80_000,
            sandboxes: 16,
            memory_mib: 512,
            network: false,
            favordynmods: false,
        };
        let programs = folder_of(&place, "0.1.0", "abc");
        let text = unit(&place, &programs, &wish);
        for line in [
            "ExecStart=/usr/local/lib/warren/0.1.0-abc/warren-jailer serve --socket=/run/warren/jailer.sock",
            "ReadWritePaths=/var/lib/warren-host\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains(&command_line(&place, &programs, &wish).join(" ")));
        assert!(!text.contains("CAP_NET_ADMIN"), "{text}");
        let connected = unit(&place, &programs, &Wish { network: true, ..wish.clone() });
        for words in [" --network=auto\n", "CAP_NET_ADMIN", "DeviceAllow=/dev/net/tun rw\n"] {
            assert!(connected.contains(words), "{connected}");
        }
        // Filters that every VMM would inherit.
        for option in [
            "SystemCall",
            "Restrict",
            "Lock",
            "MemoryDeny",
            "ProtectHostname",
            "ProtectKernel",
            "ProtectClock",
        ] {
            assert!(text.lines().all(|line| !line.starts_with(option)), "{option}");
        }
    }
}
