//! What a preparation has to do: facts in, steps out. [`steps`] is pure; `--dry-run` prints what it gives.

use super::{
    Prepare,
    accounts::{Account, Accounts},
    contract::{self, Contract},
    kvm,
    place::Place,
    record::{Build, Record, Wish},
    service,
    status::unprepare_line,
};
use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use warren_client::{Failure, Outcome};

/// The programs a prepared host keeps: those of the jail, and this one, to undo it all.
pub(crate) const KEPT: &str = "warren";

/// Everything the steps follow from.
pub(crate) struct Ready {
    pub(crate) wish: Wish,
    pub(crate) build: Build,
    /// Where the programs go.
    pub(crate) programs: PathBuf,
    /// Name and contents of each program that is not there yet as it must be.
    pub(crate) missing: Vec<(&'static str, Vec<u8>)>,
    /// Folders of other builds.
    pub(crate) old_builds: Vec<PathBuf>,
    pub(crate) record: Option<Record>,
    /// What the device lacks, or why nothing is looked at.
    kvm: Result<kvm::Lacking, String>,
    /// Whether a rule gives the device its group at each boot; none where there is no udev.
    rule: Option<bool>,
    state_is_there: bool,
    pub(crate) systemd: bool,
    /// The unit as it is.
    unit: Option<String>,
    /// The command line of the jailer that runs.
    running: Option<Vec<String>>,
}

/// One step.
pub(crate) struct Step {
    /// What it is about.
    pub(crate) what: &'static str,
    /// What is to be done.
    pub(crate) need: Need,
}

/// Whether something is to be done.
pub(crate) enum Need {
    /// Nothing; why.
    Nothing(String),
    /// This.
    Do(Action),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Group,
    Node,
    Member(String),
    Rule(PathBuf),
    Programs(PathBuf),
    State(PathBuf),
    Unit(PathBuf),
    Service { restart: bool },
    OldBuild(PathBuf),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => write!(f, "make the group {}", kvm::GROUP),
            Self::Node => write!(f, "give {} to the group {}, mode 0660", kvm::PATH, kvm::GROUP),
            Self::Member(user) => {
                write!(f, "add {user} to the group {} (from the next login on)", kvm::GROUP)
            }
            Self::Rule(path) | Self::Unit(path) => write!(f, "write {}", path.display()),
            Self::Programs(path) => write!(f, "install into {}", path.display()),
            Self::State(path) => write!(f, "make {}, root's alone", path.display()),
            Self::Service { restart: false } => f.write_str("start"),
            Self::Service { restart: true } => f.write_str("start anew; its sandboxes go on"),
            Self::OldBuild(path) => write!(f, "remove {}", path.display()),
        }
    }
}

/// The steps in the order in which they are done.
pub(crate) fn steps(ready: &Ready) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |what, action: Option<Action>, there: &str| {
        let need = action.map_or_else(|| Need::Nothing(there.to_owned()), Need::Do);
        steps.push(Step { what, need });
    };
    step("packages", None, "none needed: every program is static");
    match &ready.kvm {
        Ok(lacking) => {
            step("kvm group", lacking.group.then_some(Action::Group), "there");
            step("/dev/kvm", lacking.node.then_some(Action::Node), "can be opened by its group or everybody");
            let member = lacking.member.then(|| Action::Member(ready.wish.user.clone()));
            step("membership", member, "not needed, or there");
        }
        Err(why) => step("/dev/kvm", None, why),
    }
    match ready.rule {
        Some(there) => {
            let rule = Place::new(Path::new("/")).udev_rule();
            step("udev rule", (!there).then_some(Action::Rule(rule)), "there");
        }
        None => step("udev rule", None, "not needed here"),
    }
    let install = (!ready.missing.is_empty()).then(|| Action::Programs(ready.programs.clone()));
    step("programs", install, &ready.programs.display().to_string());
    let state = (!ready.state_is_there).then(|| Action::State(ready.wish.state.clone()));
    step("state", state, &ready.wish.state.display().to_string());
    let (unit, line) = ready.wanted();
    let other_unit = ready.systemd && ready.unit.as_deref() != Some(unit.as_str());
    if ready.systemd {
        let path = Place::new(Path::new("/")).unit();
        step("unit", other_unit.then_some(Action::Unit(path)), "there");
    }
    let same = |running: &Vec<String>| running.iter().filter(|word| *word != "--detach").eq(&line);
    let serves = ready.running.as_ref().is_some_and(same) && !other_unit;
    let restart = ready.running.is_some();
    step("jailer", (!serves).then_some(Action::Service { restart }), "runs");
    for old in &ready.old_builds {
        step("old build", Some(Action::OldBuild(old.clone())), "");
    }
    steps
}

impl Ready {
    /// The unit and the command line it must have.
    fn wanted(&self) -> (String, Vec<String>) {
        let place = self.place();
        let line = service::command_line(&place, &self.programs, &self.wish);
        (service::unit(&place, &self.programs, &self.wish), line)
    }

    fn place(&self) -> Place {
        // The programs' folder is `<root>/usr/local/lib/warren/<build>`.
        Place::new(self.programs.ancestors().nth(5).unwrap_or(Path::new("/")))
    }

    /// What to do next.
    pub(crate) fn farewell(&self, place: &Place) -> String {
        let Wish { user, sandboxes, memory_mib, .. } = &self.wish;
        let boot = if self.systemd {
            String::new()
        } else {
            let line = service::boot_line(place, &self.programs);
            format!("No systemd runs here: at boot, as root, run\n  {line}\n\n")
        };
        format!(
            "\nPrepared for {user}: at most {sandboxes} sandboxes and {memory_mib} MiB together.\n\n{boot}\
             Now, as {user} and without sudo:\n  warren up"
        )
    }
}

/// Looks at everything, changes nothing.
pub(crate) fn gather(options: &Prepare, place: &Place) -> Outcome<Ready> {
    let accounts = Accounts::read(&place.accounts("passwd"), &place.accounts("group"));
    let record = Record::load(&place.record())?;
    let before = record.as_ref().map(|record| &record.wish);
    let account = account(options, before, &accounts)?;
    if let Some(old) = record.as_ref().filter(|old| old.wish.uid != account.uid) {
        return Err(Failure::Usage(format!(
            "this machine is prepared for {} (uid {}), and one user at a time can be; to change that:\n\n  \
             {}",
            old.wish.user,
            old.wish.uid,
            unprepare_line(place.other_root().unwrap_or(Path::new("/")))
        )));
    }
    let wish = wish(options, before, place, &account, &accounts)?;
    let source = own_program()?.parent().map(Path::to_owned).unwrap_or_default();
    let names = contract::JAILED.into_iter().chain([KEPT]);
    let files: Vec<_> = names.map(|name| Ok((name, read(&source.join(name))?))).collect::<Outcome<_>>()?;
    let jailed = files.iter().filter(|(name, _)| *name != KEPT);
    let digest = contract::digest_of(jailed.map(|(name, bytes)| (*name, bytes.as_slice())));
    let build = Build { version: env!("CARGO_PKG_VERSION").into(), digest, contract: Contract::here() };
    let programs = service::folder_of(place, &build.version, &build.digest);
    let missing = files.into_iter().filter(|(name, bytes)| !is_installed(&programs.join(name), bytes));
    let missing = missing.collect();
    let others = fs::read_dir(place.programs()).into_iter().flatten().flatten().map(|entry| entry.path());
    let systemd = has_systemd(place);
    let kvm = device(options, place, &account, &accounts);
    Ok(Ready {
        old_builds: others.filter(|other| *other != programs).collect(),
        missing,
        rule: kvm.is_ok().then(rule_is_there).flatten(),
        kvm,
        state_is_there: fs::symlink_metadata(&wish.state)
            .is_ok_and(|about| about.is_dir() && about.uid() == 0 && about.mode() & 0o777 == 0o700),
        systemd,
        unit: fs::read_to_string(place.unit()).ok(),
        running: service::running(place, systemd).map(|running| running.line),
        wish,
        build,
        programs,
        record,
    })
}

fn account(options: &Prepare, before: Option<&Wish>, accounts: &Accounts) -> Outcome<Account> {
    let user = options.user.as_deref().or(before.map(|wish| wish.user.as_str())).ok_or_else(|| {
        Failure::Usage("for whom? `--user NAME`; with sudo it is by default who typed it".into())
    })?;
    let numbered = |uid: u32| Account { name: uid.to_string(), uid, gid: uid };
    let account = accounts.find(user).or_else(|| user.parse().ok().map(numbered));
    let account =
        account.ok_or_else(|| Failure::Usage(format!("there is no user {user} on this machine")))?;
    if account.uid == 0 {
        return Err(Failure::Usage("root needs no preparation: `warren up` works as it is".into()));
    }
    Ok(account)
}

/// What is asked for; what is not said stays as it was.
fn wish(
    options: &Prepare,
    before: Option<&Wish>,
    place: &Place,
    account: &Account,
    accounts: &Accounts,
) -> Outcome<Wish> {
    let uid_base = options.uid_base.or(before.map(|wish| wish.uid_base)).unwrap_or(80_000);
    let sandboxes = options.max_sandboxes.or(before.map(|wish| wish.sandboxes)).unwrap_or(1024);
    let free = sandboxes > 0 && uid_base > 999 && uid_base.checked_add(sandboxes).is_some();
    let own = (uid_base..uid_base.saturating_add(sandboxes)).contains(&account.uid);
    if !free || own || !accounts.is_free(uid_base, sandboxes) {
        return Err(Failure::Usage(format!(
            "user ids {uid_base} to {} are not free for sandboxes; choose others with --uid-base",
            uid_base.saturating_add(sandboxes).saturating_sub(1)
        )));
    }
    let state = options.data.clone().or(before.map(|wish| wish.state.clone()));
    let state = state.unwrap_or_else(|| place.state());
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !state.is_absolute() || !state.to_str().is_some_and(|text| text.chars().all(plain)) {
        return Err(Failure::Usage(format!("--data {} is no plain absolute path", state.display())));
    }
    let memory_mib = match options.max_memory_mib.or(before.map(|wish| wish.memory_mib)) {
        Some(mib) => mib,
        None => machine_mib()? / 5 * 4,
    };
    let network = options.network.or(before.map(|wish| wish.network)).unwrap_or(false);
    let favordynmods = options.favordynmods.or(before.map(|wish| wish.favordynmods)).unwrap_or(false);
    let (user, uid) = (account.name.clone(), account.uid);
    Ok(Wish { user, uid, state, uid_base, sandboxes, memory_mib, network, favordynmods })
}

fn device(
    options: &Prepare,
    place: &Place,
    account: &Account,
    accounts: &Accounts,
) -> Result<kvm::Lacking, String> {
    if options.keep_kvm || !place.is_machine() {
        return Err("left as it is: the jailer opens it".into());
    }
    let node = kvm::Node::read(Path::new(kvm::PATH))
        .ok_or("missing: load kvm_intel or kvm_amd; `warren doctor` says more")?;
    if accounts.find(&account.name).is_none() {
        return Err(format!(
            "uid {} has no account that a group could have; the jailer opens it",
            account.uid
        ));
    }
    Ok(kvm::lacking(node, account, accounts))
}

/// `None` where there is no udev.
fn rule_is_there() -> Option<bool> {
    if !Path::new("/run/udev").is_dir() {
        return None;
    }
    let folders = ["/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];
    let files = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let gives = |line: &str| line.contains("KERNEL==\"kvm\"") && line.contains("GROUP=\"kvm\"");
    Some(texts.into_iter().any(|text| text.lines().any(gives)))
}

/// Whether systemd is this machine's service manager.
pub(crate) fn has_systemd(place: &Place) -> bool {
    place.is_machine() && Path::new("/run/systemd/system").is_dir()
}

/// Whether a file is root's alone and says this.
fn is_installed(path: &Path, bytes: &[u8]) -> bool {
    let own = fs::symlink_metadata(path)
        .is_ok_and(|about| about.is_file() && about.uid() == 0 && about.mode() & 0o7777 == 0o755);
    own && fs::read(path).is_ok_and(|there| there == bytes)
}

/// The file itself, not what a link points to: its contents will be readable by everybody.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    use std::{io::Read as _, os::unix::fs::OpenOptionsExt as _};
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::options().read(true).custom_flags(nofollow).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let fix = "build everything with `cargo xtask build`";
    file().map_err(|error| Failure::io(format!("cannot read {}; {fix}", path.display()), error))
}

/// This very program, without links.
pub(crate) fn own_program() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| Failure::io("cannot find this program", error))
}

fn machine_mib() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib / 1024)
        .ok_or_else(|| Failure::local("/proc/meminfo names no MemTotal; give --max-memory-mib"))
}
