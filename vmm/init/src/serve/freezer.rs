//! Nothing of the function runs between two events: its programs, and all that they start, are in one group of processes
//! that the kernel holds (cgroup v2, `cgroup.freeze`).
//!
//! ```text
//!  everything waits ──▶ the answer leaves ──▶ held ──▶ an event, or the end ──▶ let go ──▶ it is handed out
//! ```
//! - The file system of groups is mounted nowhere: what is open here is all there is of it, and programs see none.
//! - Programs are born in the group, because this process is in it while it starts them: nothing can be forked outside.
//! - Time goes on. A timer that came due meanwhile fires when the group is let go, as on Lambda. A system call that is
//!   not begun again after a stop (`epoll_wait` above all) returns EINTR to whoever held it, as after SIGCONT.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::{pread, pwrite};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen,
};
use std::cell::Cell;
use std::io::Result as IoResult;
use std::time::Duration;
use tokio::sync::Notify;

/// The programs' group.
const GROUP: &str = "function";
/// How often it is asked whether a group that is to be held is: the kernel stops it task by task.
const ASK: Duration = Duration::from_millis(1);

/// Holds programs, or, without a group, lets them be.
#[derive(Default)]
pub(crate) struct Freezer {
    group: Option<Group>,
    /// What the machine wants.
    wanted: Cell<bool>,
    held: Cell<bool>,
    /// How often they were held.
    count: Cell<u64>,
    changed: Notify,
}

/// The files by which it is done.
struct Group {
    outside: OwnedFd,
    inside: OwnedFd,
    freeze: OwnedFd,
    events: OwnedFd,
}

impl Group {
    fn new() -> IoResult<Self> {
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // Starting a program moves this process twice; without it each move waits for every CPU. Kernels before 6.0 lack it.
        let _ = fsconfig_set_flag(&context, "favordynmods");
        fsconfig_create(&context)?;
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        mkdirat(&root, GROUP, Mode::from_raw_mode(0o755))?;
        let open_to = |how, name: &str| openat(&root, name, how | OFlags::CLOEXEC, Mode::empty());
        let open = |name: &str| open_to(OFlags::WRONLY, name);
        Ok(Self {
            outside: open("cgroup.procs")?,
            inside: open(&format!("{GROUP}/cgroup.procs"))?,
            freeze: open(&format!("{GROUP}/cgroup.freeze"))?,
            events: open_to(OFlags::RDONLY, &format!("{GROUP}/cgroup.events"))?,
        })
    }

    /// Whether every task of it is.
    fn is_frozen(&self) -> bool {
        let mut text = [0; 256];
        let len = pread(&self.events, &mut text, 0).unwrap_or_default();
        text.get(..len).unwrap_or_default().split(|byte| *byte == b'\n').any(|line| line == b"frozen 1")
    }
}

impl Freezer {
    /// For the programs of a guest.
    pub(crate) fn of_guest() -> Self {
        match Group::new() {
            Ok(group) => Self { group: Some(group), ..Self::default() },
            Err(error) => {
                crate::say!("this kernel cannot hold programs between events: {error}");
                Self::default()
            }
        }
    }

    /// What `start` starts is in the group.
    pub(crate) fn inside<R>(&self, start: impl FnOnce() -> IoResult<R>) -> IoResult<R> {
        let Some(group) = &self.group else { return start() };
        // Who writes 0 means himself.
        pwrite(&group.inside, b"0", 0)?;
        let started = start();
        pwrite(&group.outside, b"0", 0)?;
        started
    }

    /// Programs are to be held, as soon as [`Freezer::hold`] is called.
    pub(crate) fn want(&self) {
        self.wanted.set(self.group.is_some());
        self.changed.notify_waiters();
    }

    /// They run from now on.
    pub(crate) fn let_go(&self) {
        self.wanted.set(false);
        if self.held.replace(false) {
            self.set(false);
        }
        self.changed.notify_waiters();
    }

    /// Returns when they are to be held.
    pub(crate) async fn wanted(&self) {
        self.until(|freezer| freezer.wanted.get() && !freezer.held.get()).await;
    }

    /// Holds them, if that is still wanted.
    pub(crate) fn hold(&self) {
        if self.wanted.get() && !self.held.replace(true) {
            self.count.set(self.count.get().wrapping_add(1));
            self.set(true);
        }
    }

    /// Returns when they run.
    pub(crate) async fn awake(&self) {
        self.until(|freezer| !freezer.held.get()).await;
    }

    /// Returns when every program is held, or is not to be any more: whether they are.
    pub(crate) async fn still(&self) -> bool {
        let Some(group) = &self.group else { return false };
        self.until(|freezer| freezer.held.get() || !freezer.wanted.get()).await;
        while self.held.get() && !group.is_frozen() {
            tokio::time::sleep(ASK).await;
        }
        self.held.get()
    }

    /// How often they were held so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    fn set(&self, held: bool) {
        let Some(group) = &self.group else { return };
        if let Err(error) = pwrite(&group.freeze, if held { b"1" } else { b"0" }, 0) {
            crate::say!("hold programs ({held}): {error}");
        }
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}
