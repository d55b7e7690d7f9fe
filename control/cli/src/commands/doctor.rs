//! `warren doctor`: what works on this machine, and how to fix what does not.
//!
//! Each check looks at the real thing (opens /dev/kvm, asks `warren-vmm probe` to run a guest) rather than at names
//! and versions.

use crate::{host, screen, up::Template};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};
use warren_client::{Failure, Outcome};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  warren doctor\n  warren doctor --json")]
pub(crate) struct Options {
    #[command(flatten)]
    below: host::Below,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// Works, with less.
    Less,
    /// Warren does not run like this.
    Bad,
}

struct Finding {
    what: &'static str,
    grade: Grade,
    text: String,
    fix: String,
}

/// Runs every check; fails if one is bad.
pub(crate) fn run(options: &Options, config: &Path, json: bool) -> Outcome {
    let kvm = kvm();
    // Who may not open the device cannot try it either; the jailer can.
    let [wasm, linux, templates] = if kvm.grade == Grade::Less {
        ["Wasm sandboxes", "Linux guests", "templates"].map(|what| {
            Finding::less(what, "cannot be tried by this user", "sudo warren doctor, once, tries it")
        })
    } else {
        probe()
    };
    let findings = [
        kvm,
        wasm,
        linux,
        templates,
        privilege(options),
        cgroups(),
        user_namespaces(),
        landlock(),
        network(),
        seccomp(),
        programs(),
        port(7070),
        port(7071),
        configured(config),
    ];
    if json {
        screen::print_json(&findings.iter().map(Finding::json).collect());
    } else {
        for finding in &findings {
            screen::print(&finding.line());
        }
    }
    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    if bad == 0 { Ok(()) } else { Err(Failure::local(format!("{bad} of {} checks failed", findings.len()))) }
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, grade: Grade::Good, text: text.into(), fix: String::new() }
    }

    fn less(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, grade: Grade::Less, text: text.into(), fix: fix.into() }
    }

    fn bad(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, grade: Grade::Bad, text: text.into(), fix: fix.into() }
    }

    fn grade(&self) -> &'static str {
        match self.grade {
            Grade::Good => "ok",
            Grade::Less => "note",
            Grade::Bad => "BAD",
        }
    }

    fn line(&self) -> String {
        let fix = if self.fix.is_empty() { String::new() } else { format!("\n{:22}-> {}", "", self.fix) };
        format!("{:<5}{:<17}{}{fix}", self.grade(), self.what, self.text)
    }

    fn json(&self) -> Value {
        json!({ "check": self.what, "grade": self.grade(), "text": self.text, "fix": self.fix })
    }
}

fn kvm() -> Finding {
    let what = "/dev/kvm";
    match fs::File::options().read(true).write(true).open(what) {
        Ok(_) => Finding::good(what, "opens"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Finding::less(
            what,
            "only root may open it",
            "fine: the jailer, as root, opens it for every sandbox",
        ),
        Err(error) => Finding::bad(
            what,
            error.to_string(),
            "load kvm_intel or kvm_amd; in a virtual machine, switch nested virtualisation on at its host",
        ),
    }
}

/// Lets the monitor try what this KVM can do: one verdict for each kind of guest, and what Linux guests can see of the processor.
fn probe() -> [Finding; 3] {
    let (wasm, linux, templates) = ("Wasm sandboxes", "Linux guests", "templates");
    let Some(vmm) = beside("warren-vmm") else {
        return [wasm, linux, templates]
            .map(|what| Finding::less(what, "warren-vmm is not here to try", "cargo xtask build"));
    };
    let done = match Command::new(vmm).args(["probe", "--json"]).stdin(Stdio::null()).output() {
        Ok(done) => done,
        Err(error) => {
            return [wasm, linux, templates]
                .map(|what| Finding::less(what, error.to_string(), "cargo xtask build"));
        }
    };
    let found: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let verdict = |kind: &str| {
        let because = found[kind]["because"].as_str().unwrap_or("the probe gave no verdict").to_owned();
        (found[kind]["can"] == true, because)
    };
    let more = "warren-vmm probe shows everything that was tried";
    [
        match verdict("wasm") {
            (true, because) => Finding::good(wasm, format!("can run: {because}")),
            (false, because) => Finding::bad(wasm, format!("cannot run: {because}"), more),
        },
        match verdict("linux") {
            (true, because) => Finding::good(linux, format!("can run: {because}")),
            (false, because) => Finding::less(linux, format!("cannot run: {because}"), more),
        },
        can_be(templates, &Template::all(&found)),
    ]
}

/// What `--cpu-template` of `warren up` can be on this machine.
fn can_be(what: &'static str, templates: &[Template]) -> Finding {
    if templates.is_empty() {
        return Finding::less(
            what,
            "the probe named none",
            "warren-vmm probe shows everything that was tried",
        );
    }
    let here = templates.iter().filter(|one| one.lacks.is_none()).map(|one| one.name.as_str());
    let lacking = templates.iter().filter_map(|one| Some((one.name.as_str(), one.lacks.as_deref()?)));
    let lacking = lacking.map(|(name, lacks)| format!("; not {name}: {lacks}"));
    let here = here.collect::<Vec<_>>().join(", ");
    Finding::good(
        what,
        format!("Linux guests can see this processor as {here}{}", lacking.collect::<String>()),
    )
}

fn privilege(options: &Options) -> Finding {
    let what = "privilege";
    if rustix::process::geteuid().is_root() {
        return Finding::good(what, "root: warren up can start the jailer");
    }
    match host::advice(&options.below.root) {
        (true, text, _) => Finding::good(what, format!("none needed: {text}")),
        (false, text, fix) => Finding::less(what, text, format!("{fix} (clients need no privilege)")),
    }
}

fn cgroups() -> Finding {
    let what = "cgroups";
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = ["cpu", "memory", "pids"];
    if wanted.iter().all(|name| v2.split_whitespace().any(|has| has == *name)) {
        let favored =
            mounts.lines().any(|line| line.contains(" - cgroup2 ") && line.contains("favordynmods"));
        let waits = if favored {
            ""
        } else {
            "; a VM is made 10 ms sooner with --favordynmods of `warren up` (root) or of `warren host prepare`"
        };
        return Finding::good(what, format!("version 2, cpu, memory and pids{waits}"));
    }
    let missing: Vec<_> =
        wanted.into_iter().filter(|name| !Path::new("/sys/fs/cgroup").join(name).is_dir()).collect();
    if missing.is_empty() {
        Finding::good(what, "version 1, cpu, memory and pids")
    } else {
        let fix =
            "boot with systemd.unified_cgroup_hierarchy=1, or mount these controllers under /sys/fs/cgroup";
        Finding::bad(what, format!("no {} controller", missing.join(", no ")), fix)
    }
}

fn user_namespaces() -> Finding {
    let what = "user namespaces";
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match most.trim() {
        "" => {
            Finding::less(what, "not in this kernel", "sandboxes run without one, under their own host user")
        }
        "0" => Finding::less(what, "switched off", "sysctl user.max_user_namespaces=4096"),
        count => Finding::good(what, format!("at most {count}")),
    }
}

/// What Linux functions' network needs; where it is not there they run without one.
fn network() -> Finding {
    let what = "network";
    let without = "Linux functions run without a network, and those made with --network outbound are refused";
    if !Path::new("/dev/net/tun").exists() {
        return Finding::less(what, "no /dev/net/tun", format!("modprobe tun; else {without}"));
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Finding::less(what, "no network namespaces in this kernel", without);
    }
    // A container often may neither make a namespace nor change the rules.
    let may = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = may.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let (net_admin, sys_admin) = (1 << 12, 1 << 21);
    if rustix::process::geteuid().is_root()
        && set.unwrap_or(0) & (net_admin | sys_admin) != net_admin | sys_admin
    {
        return Finding::less(what, "this root may not change the network (a container?)", without);
    }
    Finding::good(
        what,
        "taps and namespaces; `warren hosts` says whether Linux functions have it (nftables is tried then), --network-mbit of `warren up` bounds \
         each sandbox's",
    )
}

fn landlock() -> Finding {
    let what = "Landlock";
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if list.split(',').any(|name| name.trim() == "landlock") {
        return Finding::good(what, "active");
    }
    // securityfs is often not mounted in containers; the monitor's own plan says what it could apply.
    Finding::less(
        what,
        if list.is_empty() { "unknown (securityfs is not mounted)" } else { "not active" },
        "boot with lsm=landlock,...; the other layers of the jail hold without it",
    )
}

fn seccomp() -> Finding {
    let what = "seccomp";
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.contains("kill_process") {
        Finding::good(what, "filters")
    } else {
        Finding::bad(what, "no filters", "a kernel with CONFIG_SECCOMP_FILTER")
    }
}

fn programs() -> Finding {
    let what = "programs";
    let needed = [
        "warren-jailer",
        "warren-control",
        "warren-agent",
        "warren-pager",
        "warren-vmm",
        "warren-compile",
        "warren-guest",
    ];
    let missing: Vec<_> = needed.into_iter().filter(|name| beside(name).is_none()).collect();
    if missing.is_empty() {
        Finding::good(what, "all beside this one")
    } else {
        Finding::less(what, format!("missing: {}", missing.join(", ")), "cargo xtask build")
    }
}

fn port(number: u16) -> Finding {
    let what = if number == 7070 { "port 7070" } else { "port 7071" };
    match TcpListener::bind(("127.0.0.1", number)) {
        Ok(_) => Finding::good(what, "free"),
        Err(_) => {
            Finding::less(what, "in use", "if that is not Warren itself: warren up --listen 127.0.0.1:0")
        }
    }
}

fn configured(path: &Path) -> Finding {
    let what = "client";
    if path.exists() {
        Finding::good(what, path.display().to_string())
    } else {
        Finding::less(what, format!("no {}", path.display()), "warren up writes it")
    }
}

fn beside(name: &str) -> Option<std::path::PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.parent().map(|directory| directory.join(name)).filter(|path| path.is_file())
}
