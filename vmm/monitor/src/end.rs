//! How a `warren-vmm run` ends, and what its exit status says.

use crate::cpu::GuestFault;

/// Why the process ends.
#[derive(Debug)]
pub enum End {
    /// Asked to.
    Shutdown,
    /// An event or init ran past its deadline.
    TimedOut,
    /// The guest broke the contract or died.
    Guest(GuestFault),
    /// The load was refused, or the function's init failed.
    LoadFailed,
    /// The host failed the monitor.
    Host(anyhow::Error),
    /// The pager that brings the guest's memory gave up, or is gone: what is not there yet will never be.
    Pager(String),
    /// A Linux guest powered itself off.
    PoweredOff,
    /// A Linux guest reset itself: a reboot, or a panic that ends in one.
    Reset,
}

impl End {
    /// The exit status.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Shutdown => 0,
            Self::TimedOut => 20,
            Self::Guest(_) => 21,
            Self::LoadFailed => 22,
            Self::Host(_) => 23,
            Self::Pager(_) => 24,
            Self::PoweredOff => 10,
            Self::Reset => 11,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shutdown => f.write_str("shutdown"),
            Self::TimedOut => f.write_str("timed-out"),
            Self::Guest(fault) => write!(f, "guest: {fault}"),
            Self::LoadFailed => f.write_str("load-failed"),
            Self::Host(error) => write!(f, "host: {error:#}"),
            Self::Pager(why) => write!(f, "pager: {why}"),
            Self::PoweredOff => f.write_str("powered-off"),
            Self::Reset => f.write_str("reset"),
        }
    }
}
