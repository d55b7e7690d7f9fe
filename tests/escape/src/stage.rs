//! How far the program has sealed itself when it tries.

use std::str::FromStr;
use warren_vmm::seal::{LinuxSeal, Seal, SealError};

/// Whose filter it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody's: only the jail holds it, as it holds a VMM that was taken over before it sealed itself (none reads a byte before).
    Jail,
    /// That of a Wasm VMM's start.
    WasmStart,
    /// That of its main thread.
    WasmMain,
    /// That of its vCPU thread.
    WasmVcpu,
    /// That of a Linux VMM's start.
    LinuxStart,
    /// That of its main thread.
    LinuxMain,
    /// That of a vCPU thread.
    LinuxVcpu,
    /// That of the thread that gives entropy and balloons.
    LinuxWorker,
    /// That of the thread for streams and frames.
    LinuxNetwork,
    /// That of a disk's thread.
    LinuxDisk,
    /// That of the thread that listens to a pager.
    LinuxPager,
}

use Stage::{
    Jail, LinuxDisk, LinuxMain, LinuxNetwork, LinuxPager, LinuxStart, LinuxVcpu, LinuxWorker, WasmMain,
    WasmStart, WasmVcpu,
};

impl Stage {
    /// All of them, with the names they are told by.
    pub const ALL: [(Self, &str); 11] = [
        (Jail, "jail"),
        (WasmStart, "wasm-start"),
        (WasmMain, "wasm-main"),
        (WasmVcpu, "wasm-vcpu"),
        (LinuxStart, "linux-start"),
        (LinuxMain, "linux-main"),
        (LinuxVcpu, "linux-vcpu"),
        (LinuxWorker, "linux-worker"),
        (LinuxNetwork, "linux-network"),
        (LinuxDisk, "linux-disk"),
        (LinuxPager, "linux-pager"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(stage, _)| *stage == self).map_or("", |(_, name)| name)
    }

    /// Seals the process and narrows the calling thread, as the VMM does it.
    pub fn enter(self) -> Result<(), SealError> {
        let (wasm, linux) = (Seal::begin, LinuxSeal::begin);
        match self {
            Jail => Ok(()),
            WasmStart => wasm().map(drop),
            WasmMain => wasm()?.main.put_on(),
            WasmVcpu => wasm()?.vcpu.put_on(),
            LinuxStart => linux().map(drop),
            LinuxMain => linux()?.main.put_on(),
            LinuxVcpu => linux()?.vcpu.put_on(),
            LinuxWorker => linux()?.worker.put_on(),
            LinuxNetwork => linux()?.network.put_on(),
            LinuxDisk => linux()?.disk.put_on(),
            LinuxPager => linux()?.pager.put_on(),
        }
    }
}

/// There is no such stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchStage;

impl FromStr for Stage {
    type Err = NoSuchStage;

    fn from_str(name: &str) -> Result<Self, NoSuchStage> {
        Self::ALL.iter().find(|(_, is)| *is == name).map(|(stage, _)| *stage).ok_or(NoSuchStage)
    }
}
