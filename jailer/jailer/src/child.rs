//! The jailer's child until exec: it takes the steps that every jail of its slot begins with, waits, and takes those that it is
//! told.
//!
//! The jailer has one thread, so its copy may allocate; it never returns to the jailer's own code.

use crate::{
    steps::{self, Child},
    sys,
};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};
use std::{
    ffi::CString,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};
use warren_sandbox_plan::plan::Step;

/// Descriptors that come with a request's steps at most: those of its places and the program.
pub(crate) const MAX_SOURCES: usize = 16;
/// Bytes of those steps at most.
pub(crate) const MAX_STEPS: usize = 4096;

/// Where the child's part ended, and why.
pub(crate) struct ChildFailure {
    /// Index in the plan.
    pub(crate) step: usize,
    /// The kernel's error.
    pub(crate) errno: Errno,
}

impl ChildFailure {
    /// As it goes through the status socket.
    pub(crate) fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.raw_os_error().to_le_bytes();
        [u8::try_from(self.step).unwrap_or(u8::MAX), a, b, c, d]
    }

    /// The reverse; the child is ours, so anything else is a defect and reads as `EIO` at an unknown step.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let [step, a, b, c, d] = bytes.try_into().unwrap_or([u8::MAX; 5]);
        match i32::from_le_bytes([a, b, c, d]) {
            raw @ 1..4096 => Self { step: step.into(), errno: Errno::from_raw_os_error(raw) },
            _ => Self { step: step.into(), errno: Errno::IO },
        }
    }
}

/// The child's life: it ends here, or in exec. Of its jailer's descriptors it has `kept` alone, `status` among them.
pub(crate) fn run(ahead: &[Step], status: &OwnedFd, kept: Vec<RawFd>, fail_at: Option<&str>) -> ! {
    let ended = live(ahead, status, kept, fail_at);
    if let Some(failure) = ended {
        sys::write(status.as_raw_fd(), &failure.to_bytes());
    }
    sys::exit(127)
}

/// `None` if the jailer has gone.
fn live(ahead: &[Step], status: &OwnedFd, kept: Vec<RawFd>, fail_at: Option<&str>) -> Option<ChildFailure> {
    let defect = |step, errno| Some(ChildFailure { step, errno });
    if let Err(errno) = sys::close_all_but(kept) {
        return defect(0, errno);
    }
    let mut go = [0_u8; 1];
    // The jailer's death shows as 0 bytes: nobody else has its end.
    if !matches!(sys::read(status.as_raw_fd(), &mut go), Ok(1)) {
        return None;
    }
    // For people who look at processes; exec gives another.
    let _ = rustix::thread::set_name(c"warren-slot");
    let nothing = &mut Child { sources: &[], program: -1, status: status.as_raw_fd(), argv: &[] };
    if let Err(failure) = walk(ahead, 0, nothing, fail_at) {
        return Some(failure);
    }
    // After these comes the step that is the jailer's own, the limits.
    let told_from = ahead.len() + 1;
    let (steps, mut sources) = match hear(status) {
        Ok(Some(told)) => told,
        Ok(None) => return None,
        Err(errno) => return defect(told_from, errno),
    };
    let Some(program) = sources.pop() else { return defect(told_from, Errno::BADF) };
    let argv = steps.iter().find_map(|step| match step {
        Step::Exec { argv } => {
            Some(argv.iter().filter_map(|word| CString::new(word.as_str()).ok()).collect())
        }
        _ => None,
    });
    let argv: Vec<CString> = argv.unwrap_or_default();
    let numbers: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    // A number that no place has, as the sources have it.
    let status = match fcntl_dupfd_cloexec(status, steps::FIRST_FREE) {
        Ok(status) => status,
        Err(errno) => return defect(told_from, errno),
    };
    let mut child =
        Child { sources: &numbers, program: program.as_raw_fd(), status: status.as_raw_fd(), argv: &argv };
    let failure = walk(&steps, told_from, &mut child, fail_at).err();
    let failure = failure.unwrap_or(ChildFailure { step: told_from + steps.len(), errno: Errno::NOEXEC });
    // Its number may be another by now, and the descriptors have no owner any more.
    sys::write(child.status, &failure.to_bytes());
    sys::exit(127)
}

/// What a request adds: steps, and descriptors.
type Told = (Vec<Step>, Vec<OwnedFd>);

/// The steps that are left and their descriptors, the program's last, each with a number that no place has. `None` if the jailer
/// has gone.
fn hear(status: &OwnedFd) -> Result<Option<Told>, Errno> {
    let mut bytes = [0_u8; MAX_STEPS];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOURCES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let heard = recvmsg(status, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    if heard.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if heard.bytes == 0 {
        return Ok(None);
    }
    let steps =
        postcard::from_bytes(bytes.get(..heard.bytes).unwrap_or_default()).map_err(|_| Errno::PROTO)?;
    let came = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let sources = came.flatten().map(|fd| fcntl_dupfd_cloexec(fd, steps::FIRST_FREE));
    Ok(Some((steps, sources.collect::<Result<_, _>>()?)))
}

/// Takes the child's steps of a plan, the first of which has the number `from` there.
fn walk(
    steps: &[Step],
    from: usize,
    child: &mut Child<'_>,
    fail_at: Option<&str>,
) -> Result<(), ChildFailure> {
    for (step, number) in steps.iter().zip(from..) {
        let result = match fail_at {
            Some(name) if name == step.name() && !step.is_jailers() => Err(Errno::IO),
            _ => steps::take(step, child),
        };
        result.map_err(|errno| ChildFailure { step: number, errno })?;
    }
    Ok(())
}
