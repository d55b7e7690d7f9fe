//! A machine prepared once, then everything without privilege: no root, no capability, no group.
//!
//! The preparation is real but stands below a directory of its own (`--root`), for a user id that nobody has: accounts,
//! devices and services of this machine are left alone. With real accounts it is run on the lab host
//! (`cargo xtask test --only lab`).

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{ExitCode, Output, Stdio},
    sync::LazyLock,
};
use warren_suites::{Deploy, Installation, Options, Suite, User, cases, collected, modules, plain};

/// Whom the machine is prepared for: the first from 61,234 on that has no process, such as a run that was killed may have left.
static USER: LazyLock<u32> = LazyLock::new(|| {
    let running = processes().unwrap_or_default();
    let is_free = |uid: &u32| !running.iter().any(|(_, status)| is_of(status, *uid));
    (61_234..62_234).step_by(2).find(is_free).unwrap_or(61_234)
});
/// Sandboxes' uids; other suites begin at 100,000.
const UID_BASE: u32 = 180_000;
const MEMORY_MIB: u64 = 4096;
const NAME: &str = "unprivileged";

fn main() -> ExitCode {
    let listing = std::env::args().any(|word| word == "--list");
    let cases = cases![
        deploys_and_invokes_cold_and_warm,
        nothing_of_it_has_any_privilege,
        sandboxes_stay_within_what_was_given,
        nobody_else_is_served,
        a_second_one_of_the_same_user_is_told_why_not,
    ];
    if listing || !rustix::process::geteuid().is_root() || !Path::new("/dev/kvm").exists() {
        if !listing {
            println!(
                "warren-skipped: {NAME}: it makes a preparation of its own, which needs root and /dev/kvm"
            );
            return ExitCode::SUCCESS;
        }
        return Suite { name: NAME, options: Options::default(), cases }.main();
    }
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(error) => {
            println!("test result: FAILED. 0 passed; 1 failed; no machine to prepare: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let before = plain(
        NAME,
        &[
            ("an_unprepared_machine_names_the_one_command", &|| machine.unprepared()),
            ("prepare_again_changes_nothing", &|| machine.prepare_twice()),
            ("a_second_user_is_refused", &|| machine.second_user()),
            ("programs_of_others_are_never_started", &|| machine.changed_program()),
            ("another_build_works_and_says_so", &|| machine.other_build()),
            ("a_build_that_does_not_fit_is_refused", &|| machine.unfit_build()),
            ("an_agent_that_nobody_watches_makes_room", &|| machine.orphan()),
        ],
    );
    let options =
        Options { user: Some(machine.user()), data: Some(machine.home().join("data")), ..Options::default() };
    let during = Suite { name: NAME, options, cases }.main();
    let after = plain(NAME, &[("unprepare_leaves_nothing", &|| machine.unprepare())]);
    if before && after { during } else { ExitCode::FAILURE }
}

async fn deploys_and_invokes_cold_and_warm(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    for cold in [true, false] {
        let answer = warren.invoke(&name, r#"{"name":"Ada"}"#).await?;
        ensure!(answer.payload == br#"{"message":"Hello, Ada!"}"#[..], "{answer:?}");
        ensure!(answer.timing.is_some_and(|timing| timing.cold == cold), "{answer:?}");
    }
    let shown = warren.cli_json(&["ps", "--function", &name]).await?;
    let shown = shown.as_array().context("ps is a list")?;
    ensure!(shown.len() == 1 && shown.iter().all(|row| row["function"] == name.as_str()), "{shown:?}");
    Ok(())
}

async fn nothing_of_it_has_any_privilege(warren: &Installation) -> Result<()> {
    warren.settled().await?;
    let mut seen = Vec::new();
    for (pid, status) in processes()? {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        if !is_of(&status, *USER) {
            continue;
        }
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(u64::from_str_radix(&field(set), 16)? == 0, "{pid} has {set} {}", field(set));
        }
        let ids: Vec<String> = field("Uid:").split_whitespace().map(str::to_owned).collect();
        ensure!(ids.iter().all(|uid| *uid == USER.to_string()), "{pid}: {ids:?}");
        ensure!(field("Groups:").is_empty() && field("NoNewPrivs:") == "1", "{pid}: {status}");
        seen.push(field("Name:"));
    }
    seen.sort();
    ensure!(seen == ["warren", "warren-agent", "warren-control"], "{seen:?}");
    for sandbox in warren.sandboxes().await? {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.pid))?;
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        let uid: u32 = uid.context("a uid")?;
        ensure!((UID_BASE..UID_BASE + 16).contains(&uid), "a sandbox runs as {uid}");
    }
    Ok(())
}

async fn sandboxes_stay_within_what_was_given(warren: &Installation) -> Result<()> {
    let hosts = warren.cli_json(&["hosts"]).await?;
    let total = hosts[0]["memory_mib"].as_u64().context("the host's memory")?;
    ensure!(total <= MEMORY_MIB, "control was promised {total} MiB");
    let large = Deploy { memory_mib: 10_240, ..Deploy::default() };
    let name = warren.name("large");
    let deployed = warren.deploy(&name, modules::assemble(&modules::good())?, large).await;
    ensure!(deployed.is_err() || warren.invoke(&name, "{}").await.is_err(), "10 GiB out of {MEMORY_MIB} MiB");
    warren.settled().await?;
    Ok(())
}

async fn nobody_else_is_served(warren: &Installation) -> Result<()> {
    let machine = Machine::of(warren)?;
    let other = User { uid: *USER + 1, home: "/nonexistent".into(), ..machine.user() };
    let (code, said) = end(other.warren().args(["up", "--once", "--listen", "127.0.0.1:0"]).output().await?);
    ensure!(
        code == Some(7) && said.contains("prepared for") && said.contains("host unprepare"),
        "{code:?} {said}"
    );
    // A record that lies changes nothing: the socket is closed to him, and the jailer asks the kernel who he is.
    let lie = machine.copied("lie", |record| record["wish"]["uid"] = (*USER + 1).into())?;
    let socket = machine.root.join("run/warren/jailer.sock");
    let liar = User { root: lie, ..other };
    for mode in [0o600, 0o666] {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode))?;
        let (code, said) =
            end(liar.warren().args(["up", "--once", "--listen", "127.0.0.1:0"]).output().await?);
        ensure!(code == Some(7) && said.contains("does not serve this user"), "{mode:o}: {code:?} {said}");
    }
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

async fn a_second_one_of_the_same_user_is_told_why_not(warren: &Installation) -> Result<()> {
    let machine = Machine::of(warren)?;
    let data = machine.home().join("second");
    let mut second = machine.user().warren();
    second.args(["up", "--once", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, said) = end(second.output().await?);
    ensure!(code == Some(5) && said.contains("another `warren up` of yours"), "{code:?} {said}");
    deploys_again(warren).await
}

async fn deploys_again(warren: &Installation) -> Result<()> {
    let name = warren.deploy_built("hello", Deploy::default()).await?;
    warren.invoke(&name, r#"{"name":"x"}"#).await?;
    Ok(())
}

/// A machine to prepare: a directory.
struct Machine {
    root: PathBuf,
}

impl Machine {
    fn new() -> Result<Self> {
        let root = tempfile::Builder::new().prefix("warren-prepared-").tempdir_in("/var/tmp")?.keep();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755))?;
        let machine = Self { root };
        // The checkout may be closed to others; and a user's programs are his own.
        for part in ["bin", "policies"] {
            copy(&collected().join(part), &machine.home().join(part))?;
        }
        chown(machine.home(), Some(*USER), Some(*USER))?;
        Ok(machine)
    }

    /// The one whose user this installation is.
    fn of(warren: &Installation) -> Result<Self> {
        let root = warren.data().ancestors().nth(2).context("data stands in the user's home")?;
        Ok(Self { root: root.to_owned() })
    }

    fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    fn user(&self) -> User {
        User { uid: *USER, programs: self.home().join("bin"), root: self.root.clone(), home: self.home() }
    }

    /// `warren host ...` as root.
    fn host(&self, words: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = std::process::Command::new(self.home().join("bin/warren"));
        command
            .args(["--json", "host"])
            .args(words)
            .env("WARREN_HOST_ROOT", &self.root)
            .env_remove("SUDO_UID");
        Ok(end(command.stdin(Stdio::null()).output()?))
    }

    fn prepare(&self, user: u32) -> Result<(Option<i32>, String)> {
        let user = user.to_string();
        let (base, memory) = (UID_BASE.to_string(), MEMORY_MIB.to_string());
        let bounds = ["--uid-base", &base, "--max-sandboxes", "16", "--max-memory-mib", &memory];
        self.host(&[&["prepare", "--user", &user], &bounds[..]].concat())
    }

    /// `warren up` as the user, to its end.
    fn up(user: &User, words: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = user.warren();
        command.args(["up", "--once", "--listen", "127.0.0.1:0"]).args(words);
        Ok(end(command.into_std().output()?))
    }

    fn unprepared(&self) -> Result<()> {
        let (code, said) = Self::up(&self.user(), &[])?;
        let line = format!(
            "sudo {}/bin/warren host prepare --user {} --root {}",
            self.home().display(),
            *USER,
            self.root.display()
        );
        ensure!(code == Some(7), "{code:?} {said}");
        ensure!(
            said.lines().filter(|text| text.contains("sudo")).map(str::trim).eq([line.as_str()]),
            "{said}"
        );
        ensure!(!self.home().join(".local").exists(), "it began to make state");
        Ok(())
    }

    fn prepare_twice(&self) -> Result<()> {
        let (code, said) = self.prepare(*USER)?;
        ensure!(code == Some(0), "{said}");
        let before = std::fs::read_to_string(self.root.join("etc/warren/host.json"))?;
        let pid = std::fs::read_to_string(self.root.join("run/warren/jailer.pid"))?;
        // What is not said stays as it was.
        for again in [self.prepare(*USER)?, self.host(&["prepare"])?] {
            let report: Value = serde_json::from_str(&again.1).with_context(|| again.1.clone())?;
            ensure!(again.0 == Some(0) && report["changed"] == serde_json::json!([]), "{report}");
        }
        ensure!(std::fs::read_to_string(self.root.join("etc/warren/host.json"))? == before);
        ensure!(std::fs::read_to_string(self.root.join("run/warren/jailer.pid"))? == pid);
        Ok(())
    }

    fn second_user(&self) -> Result<()> {
        let (code, said) = self.prepare(*USER + 1)?;
        ensure!(code == Some(2) && said.contains(&format!("prepared for {}", *USER)), "{code:?} {said}");
        Ok(())
    }

    /// The service runs copies in a folder of root's; what the user does to his own changes nothing, and what somebody
    /// did to the copies is put right by the next preparation.
    fn changed_program(&self) -> Result<()> {
        let record: Value =
            serde_json::from_str(&std::fs::read_to_string(self.root.join("etc/warren/host.json"))?)?;
        let build = format!("0.1.0-{}", record["build"]["digest"].as_str().context("a digest")?);
        let programs = self.root.join("usr/local/lib/warren").join(build);
        let pid = std::fs::read_to_string(self.root.join("run/warren/jailer.pid"))?;
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()))?;
        ensure!(line.starts_with(&programs.join("warren-jailer").display().to_string()), "{line}");
        let vmm = programs.join("warren-vmm");
        chown(&vmm, Some(*USER), None)?;
        let (code, said) = self.prepare(*USER)?;
        ensure!(code == Some(0) && said.contains("programs: install"), "{said}");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&vmm)?);
        ensure!(owner == 0, "{} belongs to {owner}", vmm.display());
        // A way that others can change is refused before anything is put there.
        let place = self.root.join("usr/local");
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777))?;
        std::fs::remove_file(&vmm)?;
        let (code, said) = self.prepare(*USER)?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))?;
        ensure!(code == Some(5) && said.contains("can be written by others"), "{code:?} {said}");
        let (code, said) = self.prepare(*USER)?;
        ensure!(code == Some(0), "{said}");
        Ok(())
    }

    fn other_build(&self) -> Result<()> {
        let programs = self.home().join("newer/bin");
        copy(&self.home().join("bin"), &programs)?;
        copy(&self.home().join("policies"), &self.home().join("newer/policies"))?;
        let mut guest = std::fs::read(programs.join("warren-guest"))?;
        guest.push(0);
        std::fs::write(programs.join("warren-guest"), guest)?;
        let newer = User { programs, ..self.user() };
        let (code, said) = Self::up(&newer, &[])?;
        ensure!(code == Some(0) && said.contains("of another build"), "{code:?} {said}");
        ensure!(said.contains(&format!("{}/newer/bin/warren host prepare", self.home().display())), "{said}");
        Ok(())
    }

    fn unfit_build(&self) -> Result<()> {
        let old = self.copied("old", |record| record["build"]["contract"]["vmm"] = 0.into())?;
        let (code, said) = Self::up(&User { root: old, ..self.user() }, &[])?;
        ensure!(code == Some(7) && said.contains("VMM protocol 0 there"), "{code:?} {said}");
        ensure!(said.contains("host prepare --user"), "{said}");
        Ok(())
    }

    fn orphan(&self) -> Result<()> {
        let mut command = self.user().warren().into_std();
        command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(self.home().join("orphan"));
        let mut killed = command.stdout(Stdio::piped()).spawn()?;
        let output = killed.stdout.take().context("its output")?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        ensure!(line.starts_with("ready"), "{line}");
        killed.kill()?;
        killed.wait()?;
        let (code, said) = Self::up(&self.user(), &[])?;
        ensure!(code == Some(0) && said.contains("of an earlier run"), "{code:?} {said}");
        // The same directory again: the control process it left is ended as well.
        let data = self.home().join("orphan");
        let (code, said) = Self::up(&self.user(), &["--data", data.to_str().context("a path")?])?;
        ensure!(code == Some(0) && said.contains("of an earlier run"), "{code:?} {said}");
        let left: Vec<_> = processes()?.into_iter().filter(|(_, status)| is_of(status, *USER)).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }

    fn unprepare(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.root.join("run/warren/jailer.pid"))?;
        let groups = std::fs::read_to_string(self.root.join("var/lib/warren-host/jailer/cgroups.json"))?;
        let groups: Value = serde_json::from_str(&groups)?;
        let (code, said) = self.host(&["unprepare"])?;
        ensure!(code == Some(0), "{said}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        ensure!(status.is_empty() || status.contains("State:\tZ"), "the jailer runs on: {status}");
        for parent in groups["parents"].as_array().context("parents")? {
            let path = parent["path"].as_str().context("a path")?;
            ensure!(!Path::new(path).exists(), "{path} stays");
        }
        let left = std::fs::read_dir(&self.root)?.flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| *name != "home" && *name != "lie" && *name != "old").collect();
        ensure!(left.is_empty(), "{left:?} stays");
        let (code, said) = self.host(&["unprepare"])?;
        ensure!(code == Some(0) && said.contains("\"removed\": []"), "{code:?} {said}");
        std::fs::remove_dir_all(&self.root)?;
        Ok(())
    }

    /// A machine whose record says something else and whose jailer is this one's.
    fn copied(&self, name: &str, change: impl Fn(&mut Value)) -> Result<PathBuf> {
        let root = self.root.join(name);
        for folder in ["etc/warren", "run/warren"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        let mut record: Value =
            serde_json::from_str(&std::fs::read_to_string(self.root.join("etc/warren/host.json"))?)?;
        change(&mut record);
        std::fs::write(root.join("etc/warren/host.json"), record.to_string())?;
        symlink(self.root.join("run/warren/jailer.sock"), root.join("run/warren/jailer.sock"))?;
        Ok(root)
    }
}

/// Whether a process has this among its user ids.
fn is_of(status: &str, user: u32) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_whitespace().any(|uid| uid == user.to_string())
}

/// Every process: its number and its status.
fn processes() -> Result<Vec<(u32, String)>> {
    let numbers =
        std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let status = |pid: u32| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?));
    // What has ended and only waits for its parent to look is no process any more.
    Ok(numbers.filter_map(status).filter(|(_, status)| !status.contains("State:\tZ")).collect())
}

/// Exit code and everything said.
fn end(done: Output) -> (Option<i32>, String) {
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            bail!("{} is no file", entry.path().display());
        }
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
